// The steps of step.py over blocks of eight rows, and their adjoint; called from cpu.py through ctypes.
//
// Built without contraction of multiply and add: every lane does the operations of step.py in their order, so a row's
// bits depend neither on its place in a block nor on which backend ran. Arrays lie as (steps, components, rows).
#include <atomic>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

constexpr int W = 8;
typedef double V __attribute__((vector_size(8 * W)));
typedef int64_t M __attribute__((vector_size(8 * W)));
constexpr double DRIFT = 1e6;  // step.py: drift of a value below its least variance, in least variances

struct Arguments {
  int64_t steps, rows, threads;
  const double *kept, *gained, *h, *noise, *target, *start, *seen, *least;
  const int64_t* follows;
  double *means, *covariances;                                   // (2, steps, 4[, 4], rows): before, after each value
  const double *before_mean_bar, *before_covariance_bar;         // backward alone, from here
  double *mean_bar, *covariance_bar;                             // of the states after each step; the first state's last
  double *kept_bar, *gained_bar, *h_bar, *noise_bar, *target_bar;
};

struct State { V x[4], p[4][4]; };

struct Block {  // eight rows, or what is left of them
  const Arguments& a;
  int64_t first;
  int width;

  V load(const double* array, int64_t t, int k, int components) const {
    const double* from = array + (t * components + k) * a.rows + first;
    V v = {};
    if (width == W) memcpy(&v, from, sizeof v); else memcpy(&v, from, width * sizeof(double));
    return v;
  }
  void store(double* array, int64_t t, int k, int components, V v) const {
    double* to = array + (t * components + k) * a.rows + first;
    if (width == W) memcpy(to, &v, sizeof v); else memcpy(to, &v, width * sizeof(double));
  }
  void add(double* array, int64_t t, int k, int components, V v) const { store(array, t, k, components, load(array, t, k, components) + v); }
  V ones_beyond() const {  // noise of the lanes that hold no row: nothing is divided by 0
    V v = {};
    for (int l = width; l < W; ++l) v[l] = 1.0;
    return v;
  }
  State state(const double* means, const double* covariances, int64_t t) const {
    State s;
    for (int i = 0; i < 4; ++i) s.x[i] = load(means, t, i, 4);
    for (int i = 0; i < 16; ++i) s.p[i / 4][i % 4] = load(covariances, t, i, 16);
    return s;
  }
  void keep(double* means, double* covariances, int64_t t, const State& s) const {
    for (int i = 0; i < 4; ++i) store(means, t, i, 4, s.x[i]);
    for (int i = 0; i < 16; ++i) store(covariances, t, i, 16, s.p[i / 4][i % 4]);
  }
  State first_state() const {
    State s;
    for (int i = 0; i < 4; ++i) s.x[i] = V{};
    for (int i = 0; i < 16; ++i) s.p[i / 4][i % 4] = load(a.start, 0, i, 16);
    return s;
  }
  const double* after_means() const { return a.means + a.steps * 4 * a.rows; }
  const double* after_covariances() const { return a.covariances + a.steps * 16 * a.rows; }

  bool goes_on(int64_t t) const {  // whether every row follows the step before
    if (!a.follows) return true;
    for (int l = 0; l < width; ++l) if (a.follows[t * a.rows + first + l] != t - 1) return false;
    return true;
  }
  State followed(int64_t t) const {
    if (goes_on(t)) return t ? state(after_means(), after_covariances(), t - 1) : first_state();
    State s = first_state();
    for (int l = 0; l < width; ++l) {
      const int64_t row = first + l, from = a.follows[t * a.rows + row];
      if (from < 0) continue;
      for (int i = 0; i < 4; ++i) s.x[i][l] = after_means()[(from * 4 + i) * a.rows + row];
      for (int i = 0; i < 16; ++i) s.p[i / 4][i % 4][l] = after_covariances()[(from * 16 + i) * a.rows + row];
    }
    return s;
  }
};

static inline V sum(V a, V b, V c, V d) { return ((a + b) + c) + d; }

static void predict(const Block& b, int64_t t, State& s) {
  V kept[4];
  for (int i = 0; i < 4; ++i) kept[i] = b.load(b.a.kept, t, i, 4);
  for (int i = 0; i < 4; ++i) {
    s.x[i] = kept[i] * s.x[i];
    for (int j = 0; j < 4; ++j) s.p[i][j] = s.p[i][j] * kept[i] * kept[j];
  }
  s.p[0][0] += b.load(b.a.gained, t, 0, 2);
  s.p[3][3] += b.load(b.a.gained, t, 1, 2);
}

struct Measured { V h[4], noise, along[4], variance; };

static Measured measure(const Block& b, int64_t t, const State& s) {
  Measured m;
  for (int i = 0; i < 4; ++i) m.h[i] = b.load(b.a.h, t, i, 4);
  m.noise = b.load(b.a.noise, t, 0, 1) + b.ones_beyond();
  for (int j = 0; j < 4; ++j) m.along[j] = sum(s.p[0][j] * m.h[0], s.p[1][j] * m.h[1], s.p[2][j] * m.h[2], s.p[3][j] * m.h[3]);
  m.variance = sum(m.along[0] * m.h[0], m.along[1] * m.h[1], m.along[2] * m.h[2], m.along[3] * m.h[3]) + m.noise;
  return m;
}

static void forward_block(const Block& b) {
  const Arguments& a = b.a;
  double *after_means = a.means + a.steps * 4 * a.rows, *after_covariances = a.covariances + a.steps * 16 * a.rows;
  State s = b.first_state();
  for (int64_t t = 0; t < a.steps; ++t) {
    if (!b.goes_on(t)) s = b.followed(t);
    predict(b, t, s);
    Measured m = measure(b, t, s);
    if (a.least) {
      for (int k = 0; k < 2; ++k) {
        const V least = b.load(a.least, t, k, 2);
        const M below = m.variance < least;
        s.p[3 * k][3 * k] += below ? DRIFT * least : V{};
      }
      m = measure(b, t, s);
    }
    b.keep(a.means, a.covariances, t, s);
    const V inverse = b.load(a.seen, t, 0, 1) / m.variance;
    const V innovation = b.load(a.target, t, 0, 1) - sum(m.h[0] * s.x[0], m.h[1] * s.x[1], m.h[2] * s.x[2], m.h[3] * s.x[3]);
    V gain[4];
    for (int i = 0; i < 4; ++i) gain[i] = m.along[i] * inverse;
    for (int i = 0; i < 4; ++i) {
      for (int j = 0; j < 4; ++j) s.p[i][j] = s.p[i][j] - gain[i] * m.along[j];
      const V rest = gain[i] * m.noise - sum(s.p[i][0] * m.h[0], s.p[i][1] * m.h[1], s.p[i][2] * m.h[2], s.p[i][3] * m.h[3]);
      for (int j = 0; j < 4; ++j) s.p[i][j] = s.p[i][j] + rest * gain[j];
      s.x[i] = s.x[i] + gain[i] * innovation;
    }
    b.keep(after_means, after_covariances, t, s);
  }
}

static void halve(V p[4][4]) {
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < i; ++j) p[i][j] = p[j][i] = 0.5 * (p[i][j] + p[j][i]);
}

// The gradient of the state before a value from that of the state after it; see torch_loop.py for the algebra.
static void update_adjoint(const Block& b, int64_t t, State& g) {
  const Arguments& a = b.a;
  const State s = b.state(a.means, a.covariances, t);
  const Measured m = measure(b, t, s);
  halve(g.p);
  const V inverse = b.load(a.seen, t, 0, 1) / m.variance;
  const V innovation = b.load(a.target, t, 0, 1) - sum(m.h[0] * s.x[0], m.h[1] * s.x[1], m.h[2] * s.x[2], m.h[3] * s.x[3]);
  V turned[4], along_bar[4];
  for (int j = 0; j < 4; ++j) turned[j] = sum(g.p[0][j] * m.along[0], g.p[1][j] * m.along[1], g.p[2][j] * m.along[2], g.p[3][j] * m.along[3]);
  const V towards = sum(g.x[0] * m.along[0], g.x[1] * m.along[1], g.x[2] * m.along[2], g.x[3] * m.along[3]);
  const V curved = sum(turned[0] * m.along[0], turned[1] * m.along[1], turned[2] * m.along[2], turned[3] * m.along[3]);
  const V target_bar = inverse * towards, variance_bar = inverse * inverse * (curved - towards * innovation);
  b.store(a.target_bar, t, 0, 1, target_bar);
  b.store(a.noise_bar, t, 0, 1, variance_bar);
  for (int i = 0; i < 4; ++i) along_bar[i] = inverse * (innovation * g.x[i] - 2.0 * turned[i]) + variance_bar * m.h[i];
  for (int j = 0; j < 4; ++j) {
    const V through = sum(s.p[0][j] * along_bar[0], s.p[1][j] * along_bar[1], s.p[2][j] * along_bar[2], s.p[3][j] * along_bar[3]);
    b.store(a.h_bar, t, j, 4, variance_bar * m.along[j] - target_bar * s.x[j] + through);
    g.x[j] = g.x[j] - m.h[j] * target_bar;
  }
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) g.p[i][j] = g.p[i][j] + along_bar[i] * m.h[j];
}

// Add a gradient to those of the states that step t follows; the first state's lie behind the last step's.
static void hand_back(const Block& b, int64_t t, const State& g) {
  const Arguments& a = b.a;
  if (b.goes_on(t)) {
    const int64_t to = t ? t - 1 : a.steps;
    for (int i = 0; i < 4; ++i) b.add(a.mean_bar, to, i, 4, g.x[i]);
    for (int i = 0; i < 16; ++i) b.add(a.covariance_bar, to, i, 16, g.p[i / 4][i % 4]);
    return;
  }
  for (int l = 0; l < b.width; ++l) {
    const int64_t row = b.first + l, from = a.follows[t * a.rows + row], to = from < 0 ? a.steps : from;
    for (int i = 0; i < 4; ++i) a.mean_bar[(to * 4 + i) * a.rows + row] += g.x[i][l];
    for (int i = 0; i < 16; ++i) a.covariance_bar[(to * 16 + i) * a.rows + row] += g.p[i / 4][i % 4][l];
  }
}

static void backward_block(const Block& b) {
  const Arguments& a = b.a;
  for (int64_t t = a.steps - 1; t >= 0; --t) {
    State g = b.state(a.mean_bar, a.covariance_bar, t);
    update_adjoint(b, t, g);
    for (int i = 0; i < 4; ++i) g.x[i] += b.load(a.before_mean_bar, t, i, 4);
    for (int i = 0; i < 16; ++i) g.p[i / 4][i % 4] += b.load(a.before_covariance_bar, t, i, 16);
    halve(g.p);
    const State from = b.followed(t);
    V kept[4];
    for (int i = 0; i < 4; ++i) kept[i] = b.load(a.kept, t, i, 4);
    b.store(a.gained_bar, t, 0, 2, g.p[0][0]);
    b.store(a.gained_bar, t, 1, 2, g.p[3][3]);
    for (int i = 0; i < 4; ++i) {
      V pulled = V{};
      for (int j = 0; j < 4; ++j) {
        const V scaled = g.p[i][j] * kept[j];
        pulled += from.p[i][j] * scaled;
        g.p[i][j] = scaled * kept[i];
      }
      b.store(a.kept_bar, t, i, 4, g.x[i] * from.x[i] + 2.0 * pulled);
      g.x[i] = kept[i] * g.x[i];
    }
    hand_back(b, t, g);
  }
}

template <class Task> static void over_blocks(const Arguments& a, Task task) {
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    for (int64_t first; (first = next.fetch_add(W)) < a.rows;)
      task(Block{a, first, static_cast<int>(a.rows - first < W ? a.rows - first : W)});
  };
  std::vector<std::thread> others;
  for (int64_t i = 1; i < a.threads; ++i) others.emplace_back(work);
  work();
  for (auto& other : others) other.join();
}

extern "C" {
void kalman_forward(const Arguments* a) { over_blocks(*a, forward_block); }
void kalman_backward(const Arguments* a) { over_blocks(*a, backward_block); }
}
