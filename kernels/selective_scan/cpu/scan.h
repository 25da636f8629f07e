// Selective scan, forward and backward. Lanes run over channels; a block of states stays in registers over a chunk
// of steps. A task is one sequence and one block of channels of one group of B and C. See README.md for the algebra.
#pragma once
#include <algorithm>
#include "tensor.h"

#if VECTOR_BYTES == 64
#define FORWARD_STATES 16
#else
#define FORWARD_STATES 8
#endif
#define BACKWARD_STATES 4

struct ScanArguments {
  View u, delta, z, y, B, C, dy, du, ddelta, dz;  // data is null where absent
  const void *A, *D, *delta_bias, *initial_state, *d_last_state;
  const uint8_t* step_mask;   // (batch, length) contiguous
  const int64_t* cu_seqlens;  // null: every batch row is a sequence
  void *last_state, *entries;                       // entries: null when no gradient will be asked for
  void *d_A, *d_D, *d_delta_bias, *d_initial_state;  // (sequences, channels[, state]); the caller sums d_A, d_D, bias
  void *d_B, *d_C;                                   // (blocks of a group, batch, length, groups, state)
  int64_t batch, length, channels, state, groups, sequences, block, delta_softplus, dtype, threads;
};

struct Task {
  int64_t sequence, group, part, batch, start, stop, channel, channels, vectors, first_vector, first_row;
};

// Number the tasks so that the blocks of one sequence follow each other.
template <class R> static Task make_task(const ScanArguments& a, int64_t index) {
  const int64_t width = a.channels / a.groups, parts = (width + a.block - 1) / a.block;
  Task t;
  t.sequence = index / (a.groups * parts);
  t.group = index / parts % a.groups;
  t.part = index % parts;
  const bool packed = a.cu_seqlens != nullptr;
  t.batch = packed ? 0 : t.sequence;
  t.start = packed ? a.cu_seqlens[t.sequence] : 0;
  t.stop = packed ? a.cu_seqlens[t.sequence + 1] : a.length;
  t.channel = t.group * width + t.part * a.block;
  t.channels = std::min(a.block, width - t.part * a.block);
  t.vectors = (t.channels + Lanes<R>::W - 1) / Lanes<R>::W;
  const int64_t padded = (width + 15) / 16 * 16;
  t.first_vector = (t.group * padded + t.part * a.block) / Lanes<R>::W;
  // Every sequence has room for its chunks at a row that needs no prefix sum over the sequences before it.
  t.first_row = (t.batch * a.length + t.start) / CHUNK + t.sequence;
  return t;
}

template <class R> static R* entry_row(const ScanArguments& a, const Task& task, int64_t chunk) {
  const int64_t width = a.channels / a.groups, padded = (width + 15) / 16 * 16 * a.groups;
  return (R*)a.entries + ((task.first_row + chunk) * padded + task.first_vector * Lanes<R>::W) * a.state;
}

// [vector][state][lane] <- (channels, state) and back; absent lanes and absent tensors are zero.
template <class R> static void gather_states(const R* source, const Task& task, int64_t state, R scale, R* out) {
  constexpr int W = Lanes<R>::W;
  for (int64_t v = 0; v < task.vectors; v++)
    for (int64_t n = 0; n < state; n++)
      for (int i = 0; i < W; i++) {
        bool there = source && v * W + i < task.channels;
        out[(v * state + n) * W + i] = there ? source[(task.channel + v * W + i) * state + n] * scale : R(0);
      }
}
template <class R> static void scatter_states(const R* in, const Task& task, int64_t state, R* target) {
  constexpr int W = Lanes<R>::W;
  for (int64_t c = 0; c < task.channels; c++)
    for (int64_t n = 0; n < state; n++)
      target[(task.channel + c) * state + n] = in[(c / W * state + n) * W + c % W];
}

// delta as the recurrence uses it; `slope`, if wanted, is its derivative by the raw delta.
template <class R> static void step_sizes(const ScanArguments& a, const Task& task, const Window& w, R* delta, R* slope) {
  constexpr int W = Lanes<R>::W;
  const uint8_t* mask = a.step_mask ? a.step_mask + w.batch * a.length + w.start : nullptr;
  for (int64_t v = 0; v < task.vectors; v++) {
    alignas(64) R bias[W] = {};
    for (int i = 0; i < W && v * W + i < task.channels; i++)
      if (a.delta_bias) bias[i] = ((const R*)a.delta_bias)[task.channel + v * W + i];
    for (int64_t t = 0; t < w.steps; t++) {
      const int64_t at = (v * w.capacity + t) * W;
      Vec<R> x = load(delta + at) + load(bias);
      const bool real = !mask || mask[t];
      Vec<R> step = x, by_raw = all(R(1));
      if (a.delta_softplus) {
        const Softplus<R> smooth(x);
        step = smooth.value();
        if (slope) by_raw = smooth.slope();
      }
      if (slope) store(slope + at, real ? by_raw : Vec<R>{});
      store(delta + at, real ? step : Vec<R>{});
    }
  }
}

// B or C of one group, as [step][state].
template <class R> static void read_projection(const View& view, const ScanArguments& a, const Window& w, int64_t group, R* out) {
  with_dtype<R>(a.dtype, [&](auto* kind) {
    typedef std::remove_pointer_t<decltype(kind)> E;
    const E* base = (const E*)view.data + w.batch * view.batch + w.start * view.time + group * view.group;
    for (int64_t t = 0; t < w.steps; t++) {
      const E* row = base + t * view.time;
      if (view.channel == 1)
        for (int64_t n = 0; n < a.state; n++) out[t * a.state + n] = widen(row[n]);
      else
        for (int64_t n = 0; n < a.state; n++) out[t * a.state + n] = widen(row[n * view.channel]);
    }
  });
}

template <class R, int NB>
static void forward_block(const R* delta, const R* drive, const R* B, const R* C, const R* A, R* state, R* y, int64_t steps, int64_t pitch) {
  constexpr int W = Lanes<R>::W;
  Vec<R> h[NB];
  for (int n = 0; n < NB; n++) h[n] = load(state + n * W);
  for (int64_t t = 0; t < steps; t++) {
    const Vec<R> d = load(delta + t * W), x = load(drive + t * W);
    Vec<R> even = load(y + t * W), odd{};
    #pragma GCC unroll 16
    for (int n = 0; n < NB; n++) {
      h[n] = exp2_steps(d * load(A + n * W)) * h[n] + x * B[t * pitch + n];
      (n & 1 ? odd : even) += h[n] * C[t * pitch + n];
    }
    store(y + t * W, even + odd);
  }
  for (int n = 0; n < NB; n++) store(state + n * W, h[n]);
}

// y = D u, or 0, and drive = delta u.
template <class R> static void start_outputs(const ScanArguments& a, const Task& task, const Window& w, const R* delta, const R* u, R* drive, R* y) {
  constexpr int W = Lanes<R>::W;
  for (int64_t v = 0; v < task.vectors; v++) {
    alignas(64) R skip[W] = {};
    for (int i = 0; i < W && v * W + i < task.channels; i++)
      if (a.D) skip[i] = ((const R*)a.D)[task.channel + v * W + i];
    for (int64_t at = v * w.capacity * W, end = at + w.steps * W; at < end; at += W) {
      store(drive + at, load(delta + at) * load(u + at));
      store(y + at, load(skip) * load(u + at));
    }
  }
}

static int64_t forward_scratch(const ScanArguments& a) { return a.block * (2 * a.state + 5 * CHUNK) + 2 * CHUNK * a.state + 64; }

template <class R> static void forward_task(const ScanArguments& a, const Task& task, R* scratch) {
  constexpr int W = Lanes<R>::W;
  const int64_t N = a.state, tile = a.block * CHUNK;
  R *u = scratch, *delta = u + tile, *drive = delta + tile, *y = drive + tile, *z = y + tile;
  R *A = z + tile, *state = A + a.block * N, *B = state + a.block * N, *C = B + CHUNK * N;
  gather_states((const R*)a.A, task, N, R(LOG2E), A);
  const R* first = a.initial_state ? (const R*)a.initial_state + task.sequence * a.channels * N : nullptr;
  gather_states(first, task, N, R(1), state);
  for (int64_t start = task.start, chunk = 0; start < task.stop; start += CHUNK, chunk++) {
    const Window w{task.batch, start, std::min<int64_t>(CHUNK, task.stop - start), task.channel, task.channels, CHUNK, CHUNK};
    if (a.entries) memcpy(entry_row<R>(a, task, chunk), state, task.vectors * N * W * sizeof(R));
    read_tile(a.u, a.dtype, w, u);
    read_tile(a.delta, a.dtype, w, delta);
    step_sizes<R>(a, task, w, delta, nullptr);
    read_projection(a.B, a, w, task.group, B);
    read_projection(a.C, a, w, task.group, C);
    start_outputs(a, task, w, delta, u, drive, y);
    for (int64_t v = 0; v < task.vectors; v++) {
      const int64_t at = v * CHUNK * W;
      int64_t n = 0;
      auto run = [&](auto block, auto width) {
        for (; n + width <= N; n += width)
          block(delta + at, drive + at, B + n, C + n, A + (v * N + n) * W, state + (v * N + n) * W, y + at, w.steps, N);
      };
      run(forward_block<R, FORWARD_STATES>, FORWARD_STATES);
      run(forward_block<R, 4>, 4);
      run(forward_block<R, 1>, 1);
    }
    if (a.z.data) {
      read_tile(a.z, a.dtype, w, z);
      for (int64_t v = 0; v < task.vectors; v++)
        for (int64_t at = v * CHUNK * W, end = at + w.steps * W; at < end; at += W)
          store(y + at, load(y + at) * load(z + at) * sigmoid<R>(load(z + at)));
    }
    write_tile(a.y, a.dtype, w, y);
  }
  scatter_states(state, task, N, (R*)a.last_state + task.sequence * a.channels * N);
}
