// Strided tensors of any floating dtype, read and written a tile at a time; and a loop over tasks by threads.
#pragma once
#include <atomic>
#include <system_error>
#include <thread>
#include <vector>
#include "vector.h"
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

#ifndef CHUNK
#define CHUNK 32  // steps of a tile, and between saved states; the backward pass holds the states of one chunk
#endif

enum Dtype : int64_t { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2, FLOAT64 = 3 };

// (batch, time, channel) with strides in elements. B and C use `channel` for the state and `group` beside it.
struct View {
  void* data;
  int64_t batch, time, channel, group;
};

struct bfloat16 { uint16_t bits; };
static inline float widen(float x) { return x; }
static inline double widen(double x) { return x; }
static inline float widen(_Float16 x) { return (float)x; }
static inline float widen(bfloat16 x) {
  uint32_t bits = (uint32_t)x.bits << 16;
  float y;
  memcpy(&y, &bits, 4);
  return y;
}
static inline void narrow(float x, float* p) { *p = x; }
static inline void narrow(double x, double* p) { *p = x; }
static inline void narrow(float x, _Float16* p) { *p = (_Float16)x; }
static inline void narrow(float x, bfloat16* p) {  // to nearest, ties to even; NaN stays NaN
  uint32_t bits;
  memcpy(&bits, &x, 4);
  p->bits = x != x ? 0x7fc0 : (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

template <class R, class E> static inline Vec<R> load_wide(const E* p) {
  if constexpr (std::is_same_v<R, E>) return load(p);
  R x[Lanes<R>::W];
  for (int i = 0; i < Lanes<R>::W; i++) x[i] = widen(p[i]);
  return load(x);
}
template <class R, class E> static inline void store_narrow(E* p, Vec<R> v) {
  if constexpr (std::is_same_v<R, E>) return store(p, v);
  for (int i = 0; i < Lanes<R>::W; i++) narrow(v[i], p + i);
}

// Call f with a null pointer of the element type that stands for `dtype`.
template <class R, class F> static inline void with_dtype(int64_t dtype, F f) {
  if constexpr (sizeof(R) == 8) f((double*)nullptr);
  else if (dtype == BFLOAT16) f((bfloat16*)nullptr);
  else if (dtype == FLOAT16) f((_Float16*)nullptr);
  else f((float*)nullptr);
}

// A tile holds `steps` steps of `channels` channels as [vector][step][lane]; lanes past the last are zero.
struct Window {
  int64_t batch, start, steps, channel, channels;
  int64_t capacity;  // steps between two vectors of a tile
  int64_t ahead;     // steps from this window to the one that is read next, fetched meanwhile
};

template <class R> static void read_tile(const View& view, int64_t dtype, const Window& w, R* tile) {
  constexpr int W = Lanes<R>::W;
  with_dtype<R>(dtype, [&](auto* kind) {
    typedef std::remove_pointer_t<decltype(kind)> E;
    const E* base = (const E*)view.data + w.batch * view.batch + w.start * view.time + w.channel * view.channel;
    const bool rows = view.channel == 1;
    const int64_t full = rows ? w.channels / W : 0;
    for (int64_t v = 0; v < full; v++)  // by columns: rows written at the tile's pitch would collide in the cache
      for (int64_t t = 0; t < w.steps; t++) {
        __builtin_prefetch(base + (t + w.ahead) * view.time + v * W, 0, 2);
        store(tile + (v * w.capacity + t) * W, load_wide<R>(base + t * view.time + v * W));
      }
    for (int64_t v = full; v * W < w.channels; v++)
      for (int i = 0; i < W; i++)
        for (int64_t t = 0; t < w.steps; t++) {
          int64_t c = v * W + i;
          tile[(v * w.capacity + t) * W + i] = c < w.channels ? widen(base[t * view.time + c * view.channel]) : R(0);
        }
  });
}

template <class R> static void write_tile(const View& view, int64_t dtype, const Window& w, const R* tile) {
  constexpr int W = Lanes<R>::W;
  with_dtype<R>(dtype, [&](auto* kind) {
    typedef std::remove_pointer_t<decltype(kind)> E;
    E* base = (E*)view.data + w.batch * view.batch + w.start * view.time + w.channel * view.channel;
    const int64_t full = view.channel == 1 ? w.channels / W : 0;
    for (int64_t v = 0; v < full; v++)
      for (int64_t t = 0; t < w.steps; t++)
        store_narrow<R>(base + t * view.time + v * W, load(tile + (v * w.capacity + t) * W));
    for (int64_t c = full * W; c < w.channels; c++)
      for (int64_t t = 0; t < w.steps; t++)
        narrow(tile[(c / W * w.capacity + t) * W + c % W], base + t * view.time + c * view.channel);
  });
}

// Ask for huge pages under a large output that nobody has touched yet: at 4 KB each, page faults cost as much as
// the whole forward scan.
static inline void expect_writes(void* data, int64_t bytes) {
#if defined(__linux__)
  const uintptr_t page = 4096, first = ((uintptr_t)data + page - 1) / page * page, last = ((uintptr_t)data + bytes) / page * page;
  if (data && bytes >= (4 << 20)) madvise((void*)first, last - first, MADV_HUGEPAGE);
#endif
}

// Flush denormals while in scope: a state that decays to nothing must not slow down the arithmetic.
struct FlushDenormals {
#if defined(__x86_64__)
  unsigned saved = _mm_getcsr();
  FlushDenormals() { _mm_setcsr(saved | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(saved); }
#endif
};

// Run task(i, scratch) for i < tasks. Threads live for one call: there is no pool for a fork to lose. Which thread
// runs a task does not show in any result. Returns 1 when the scratch memory cannot be had.
template <class R, class F> static int run_tasks(int64_t tasks, int64_t threads, int64_t scratch_size, F task) {
  threads = threads < tasks ? threads : tasks;
  if (threads < 1) return 0;
  scratch_size = (scratch_size + 15) / 16 * 16;
  char* memory = (char*)std::malloc(threads * scratch_size * sizeof(R) + 64);
  if (!memory) return 1;
  R* scratch = (R*)(((uintptr_t)memory + 63) / 64 * 64);
  std::atomic<int64_t> next{0};
  auto work = [&](int64_t thread) {
    FlushDenormals flush;
    for (int64_t i; (i = next.fetch_add(1)) < tasks;) task(i, scratch + thread * scratch_size);
  };
  std::vector<std::thread> others;
  for (int64_t i = 1; i < threads; i++) {
    try { others.emplace_back(work, i); } catch (const std::system_error&) { break; }  // fewer threads will do
  }
  work(0);
  for (auto& other : others) other.join();
  std::free(memory);
  return 0;
}
