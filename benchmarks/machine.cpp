// What the machine can do at best: multiply-adds of its widest vectors per second, and memory traffic.
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>
#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX2__)
#define BYTES 32
#else
#define BYTES 16
#endif
typedef float V __attribute__((vector_size(BYTES)));

template <class F> static double best_seconds(int threads, F work) {
  double best = 1e30;
  for (int round = 0; round < 7; round++) {
    auto start = std::chrono::steady_clock::now();
    std::vector<std::thread> others;
    for (int i = 1; i < threads; i++) others.emplace_back(work, i);
    work(0);
    for (auto& other : others) other.join();
    double taken = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (taken < best) best = taken;
  }
  return best;
}

extern "C" {
int lanes() { return BYTES / 4; }

// Vector multiply-adds per second, all threads together: 16 independent chains hide the latency.
double fma_rate(int threads) {
  const int64_t steps = 4000000;
  double taken = best_seconds(threads, [&](int) {
    V c = V{} + 0.999f, e = V{} + 0.001f, r[16];
    asm volatile("" : "+x"(c), "+x"(e));
    for (int k = 0; k < 16; k++) r[k] = V{} + 0.1f * k;
    for (int64_t i = 0; i < steps; i++) {
      #pragma GCC unroll 16
      for (int k = 0; k < 16; k++) r[k] = r[k] * c + e;
    }
    V sum{};
    for (int k = 0; k < 16; k++) sum += r[k];
    asm volatile("" : : "x"(sum));
  });
  return 16.0 * steps * threads / taken;
}

// Bytes per second of y = a + s * b over `count` floats, three streams.
double triad_rate(int threads, float* y, const float* a, const float* b, int64_t count) {
  double taken = best_seconds(threads, [&](int i) {
    for (int64_t k = count * i / threads; k < count * (i + 1) / threads; k++) y[k] = a[k] + 0.5f * b[k];
  });
  return 12.0 * count / taken;
}
}
