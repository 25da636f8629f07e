// Vectors of one register's width, and the few functions of them that a scan needs.
// Written once for float and double with GCC/Clang vector extensions; the build's -march decides the width.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__AVX512F__)
#include <immintrin.h>
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

template <class R> struct Lanes;
template <> struct Lanes<float> {
  typedef float V __attribute__((vector_size(VECTOR_BYTES)));
  typedef int32_t I __attribute__((vector_size(VECTOR_BYTES)));
  static constexpr int W = VECTOR_BYTES / 4, mantissa = 23;
  static constexpr float lowest_exponent = -126.f, highest_exponent = 127.f, rounder = 12582912.f;  // 1.5 * 2^23
};
template <> struct Lanes<double> {
  typedef double V __attribute__((vector_size(VECTOR_BYTES)));
  typedef int64_t I __attribute__((vector_size(VECTOR_BYTES)));
  static constexpr int W = VECTOR_BYTES / 8, mantissa = 52;
  static constexpr double lowest_exponent = -1022., highest_exponent = 1023., rounder = 6755399441055744.;
};
template <class R> using Vec = typename Lanes<R>::V;
template <class R> using VecInt = typename Lanes<R>::I;

template <class R> static inline Vec<R> all(R x) { return x - Vec<R>{}; }
template <class R> static inline Vec<R> load(const R* p) { Vec<R> v; memcpy(&v, p, sizeof v); return v; }
template <class R> static inline void store(R* p, Vec<R> v) { memcpy(p, &v, sizeof v); }
template <class V> static inline V greater(V a, V b) { return a > b ? a : b; }
template <class V> static inline V lesser(V a, V b) { return a < b ? a : b; }

// ln(2)^k / k!: 2^f = sum of these times f^k. In double fifteen terms reach the last bit for |f| <= 1/2.
static constexpr double LN2 = 0.69314718055994530942, LOG2E = 1.44269504088896340736;
template <int K> static constexpr double exp2_term = exp2_term<K - 1> * LN2 / K;
template <> constexpr double exp2_term<0> = 1.0;

template <int K> static inline Vec<double> exp2_taylor(Vec<double> f) {
  if constexpr (K == 14) return all(exp2_term<14>);
  else return exp2_taylor<K + 1>(f) * f + exp2_term<K>;
}

// Of every polynomial p below p(0) = 1 exactly: an unconstrained fit is off by 1e-7 at 0, and a state that
// should stand still would drift by a quarter of a percent over 20160 steps.
static inline Vec<float> exp2_fraction(Vec<float> f) {  // minimax, 1.1e-7 on |f| <= 1/2
  Vec<float> p = all(0.001326472731307149f);
  p = p * f + 0.009671512991189957f;
  p = p * f + 0.05550733581185341f;
  p = p * f + 0.24022242426872253f;
  p = p * f + 0.6931470036506653f;
  return p * f + 1.0f;
}
static inline Vec<double> exp2_fraction(Vec<double> f) { return exp2_taylor<0>(f); }

// 2^x; saturates instead of becoming 0, denormal or infinite.
template <class R> static inline Vec<R> exp2_any(Vec<R> x) {
  typedef Lanes<R> L;
  x = greater(x, all(L::lowest_exponent));
  x = lesser(x, all(L::highest_exponent));
  Vec<R> shifted = x + L::rounder;  // the integer nearest to x is now in the low bits
  Vec<R> p = exp2_fraction(x - (shifted - L::rounder));
  return (Vec<R>)((VecInt<R>)p + ((VecInt<R>)shifted << L::mantissa));
}

#if defined(__AVX512F__)
alignas(64) static const float EXP2_TABLE[32] = {  // 2^(i/32)
    1.000000000f, 1.021897149f, 1.044273782f, 1.067140401f, 1.090507733f, 1.114386743f, 1.138788635f, 1.163724859f,
    1.189207115f, 1.215247360f, 1.241857812f, 1.269050957f, 1.296839555f, 1.325236643f, 1.354255547f, 1.383909882f,
    1.414213562f, 1.445180807f, 1.476826146f, 1.509164428f, 1.542210825f, 1.575980845f, 1.610490332f, 1.645755478f,
    1.681792831f, 1.718619298f, 1.756252160f, 1.794709075f, 1.834008086f, 1.874167634f, 1.915206561f, 1.957144124f};
// 32 steps to the octave from a register table leave |f| <= 1/64, where degree 3 is exact to rounding: fewer
// multiplications than one polynomial over the octave, and the rest runs on ports that multiply nothing.
// (Degree 2 would be off by 2e-7 the same way at every step, which adds up over a time constant.)
static inline Vec<float> exp2_steps(Vec<float> x) {
  const __m512 lower = _mm512_load_ps(EXP2_TABLE), upper = _mm512_load_ps(EXP2_TABLE + 16);
  const __m512 rounder = _mm512_set1_ps(393216.f);  // 1.5 * 2^18: one unit in the last place is 1/32
  __m512 shifted = _mm512_add_ps((__m512)x, rounder);
  __m512 rounded = _mm512_sub_ps(shifted, rounder);
  __m512 f = _mm512_sub_ps((__m512)x, rounded);
  __m512 p = _mm512_fmadd_ps(f, _mm512_set1_ps(0.0555041087f), _mm512_set1_ps(0.240226507f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.69314718f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  __m512 step = _mm512_permutex2var_ps(lower, _mm512_castps_si512(shifted), upper);
  return (Vec<float>)_mm512_scalef_ps(_mm512_mul_ps(p, step), rounded);
}
#else
static inline Vec<float> exp2_steps(Vec<float> x) { return exp2_any<float>(x); }
#endif
static inline Vec<double> exp2_steps(Vec<double> x) { return exp2_any<double>(x); }

template <class R> static inline Vec<R> sigmoid(Vec<R> x) { return R(1) / (R(1) + exp2_any<R>(x * R(-LOG2E))); }

// log(1 + e) for 0 <= e <= 1, as 2 artanh(e / (2 + e)): small arguments keep their relative accuracy.
template <class R> static inline Vec<R> log1p_unit(Vec<R> e) {
  constexpr int terms = sizeof(R) == 4 ? 8 : 17;
  Vec<R> s = e / (R(2) + e), s2 = s * s, p = all(R(2.0 / (2 * terms - 1)));
  for (int k = terms - 2; k >= 0; k--) p = p * s2 + R(2.0 / (2 * k + 1));
  return p * e / (R(2) + e);  // not p * s: the least normal e has an s that is none, and is flushed to 0
}
// exp(-x) for x >= 0, as good relatively far out as near 0. exp2(-x log2(e)) is not: at x = 80 the product has
// lost 7 bits of its fraction. ln(2) in two parts, the first short enough that k times it is exact, loses none.
template <class R> static inline Vec<R> exp_minus(Vec<R> x) {
  typedef Lanes<R> L;
  constexpr double upper = 0.693359375, lower = LN2 - upper;
  x = lesser(x, all(R(-L::lowest_exponent * LN2)));  // saturates, as exp2_any does
  Vec<R> shifted = x * R(LOG2E) + L::rounder, k = shifted - L::rounder;
  Vec<R> p = exp2_fraction((k * R(upper) - x + k * R(lower)) * R(LOG2E));
  return (Vec<R>)((VecInt<R>)p - ((VecInt<R>)shifted << L::mantissa));
}
// log(1 + exp(x)), and its slope, of one exponential.
template <class R> struct Softplus {
  Vec<R> x, e;
  explicit Softplus(Vec<R> at) : x(at), e(exp_minus<R>(at < R(0) ? -at : at)) {}
  Vec<R> value() const { return (x < R(0) ? Vec<R>{} : x) + log1p_unit<R>(e); }  // NaN stays NaN
  Vec<R> slope() const { return (x < R(0) ? e : all(R(1))) / (R(1) + e); }
};

// Halve a vector until one number is left: the same tree whatever the values, so sums repeat bit for bit.
template <class R> static inline R lane_sum(Vec<R> v) {
  R x[Lanes<R>::W];
  store(x, v);
  for (int half = Lanes<R>::W / 2; half; half /= 2)
    for (int i = 0; i < half; i++) x[i] += x[i + half];
  return x[0];
}
