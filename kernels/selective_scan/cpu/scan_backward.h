// Backward pass of the selective scan: chunks from last to first; in each, the states are computed again from the
// state saved at its entry, then the adjoint walks back through them.
#pragma once
#include "scan.h"

// Where one task keeps its tiles. [vector][step][lane] unless said otherwise.
template <class R> struct BackwardTiles {
  R *delta, *slope, *u, *drive, *dy, *y, *z;  // z holds dz at the end
  R *by_drive, *by_exponent;   // sum over states of adjoint B, and of (adjoint times decayed state) A
  R *A, *adjoint, *dA;         // [vector][state][lane]; A times log2(e)
  R *B, *C;                    // [step][state]
  R *dB, *dC;                  // [step][state][lane]
  R *decay, *before;           // [step][state of the block][vector of the pair][lane]
  R *dD, *dbias;               // [vector][lane]

  static int64_t size(const ScanArguments& a) {
    return a.block * (9 * CHUNK + 3 * a.state + 2) + 2 * CHUNK * a.state * (1 + Lanes<R>::W) + 4 * CHUNK * BACKWARD_STATES * Lanes<R>::W + 512;
  }
  BackwardTiles(const ScanArguments& a, R* memory) {
    auto take = [&](int64_t count) { R* p = memory; memory += (count + 15) / 16 * 16; return p; };
    for (R** tile : {&delta, &slope, &u, &drive, &dy, &y, &z, &by_drive, &by_exponent}) *tile = take(a.block * CHUNK);
    for (R** states : {&A, &adjoint, &dA}) *states = take(a.block * a.state);
    for (R** rows : {&B, &C}) *rows = take(CHUNK * a.state);
    for (R** rows : {&dB, &dC}) *rows = take(CHUNK * a.state * Lanes<R>::W);
    for (R** rows : {&decay, &before}) *rows = take(2 * CHUNK * BACKWARD_STATES * Lanes<R>::W);
    dD = take(a.block);
    dbias = take(a.block);
  }
};

// NB states of P neighbouring vectors through one chunk. Two vectors share each load and store of dB and dC.
template <class R, int NB, int P>
static void backward_block(BackwardTiles<R>& s, const R* entry, int64_t v, int64_t n0, int64_t N, int64_t steps, bool gated) {
  constexpr int W = Lanes<R>::W;
  const int64_t tile = CHUNK * W;
  const R *delta = s.delta + v * tile, *drive = s.drive + v * tile, *dy = s.dy + v * tile, *A = s.A + (v * N + n0) * W;
  R *y = s.y + v * tile;
  Vec<R> h[P][NB];
  for (int p = 0; p < P; p++)
    for (int n = 0; n < NB; n++) h[p][n] = load(entry + ((v + p) * N + n0 + n) * W);
  for (int64_t t = 0; t < steps; t++) {
    R *decay = s.decay + t * NB * P * W, *before = s.before + t * NB * P * W, *dC = s.dC + (t * N + n0) * W;
    const R *B = s.B + t * N + n0, *C = s.C + t * N + n0;
    #pragma GCC unroll 16
    for (int n = 0; n < NB; n++) {
      Vec<R> sum = load(dC + n * W);
      #pragma GCC unroll 2
      for (int p = 0; p < P; p++) {
        const int64_t at = p * tile + t * W;
        Vec<R> a = exp2_steps(load(delta + at) * load(A + (p * N + n) * W));
        store(decay + (n * P + p) * W, a);
        store(before + (n * P + p) * W, h[p][n]);
        h[p][n] = a * h[p][n] + load(drive + at) * B[n];
        sum += load(dy + at) * h[p][n];
      }
      store(dC + n * W, sum);
    }
    if (gated)
      for (int p = 0; p < P; p++) {
        Vec<R> read = load(y + p * tile + t * W);
        #pragma GCC unroll 16
        for (int n = 0; n < NB; n++) read += h[p][n] * C[n];
        store(y + p * tile + t * W, read);
      }
  }
  Vec<R> q[P][NB], dA[P][NB];
  for (int p = 0; p < P; p++)
    for (int n = 0; n < NB; n++) q[p][n] = load(s.adjoint + ((v + p) * N + n0 + n) * W), dA[p][n] = Vec<R>{};
  for (int64_t t = steps - 1; t >= 0; t--) {
    const R *decay = s.decay + t * NB * P * W, *before = s.before + t * NB * P * W;
    const R *B = s.B + t * N + n0, *C = s.C + t * N + n0;
    R *dB = s.dB + (t * N + n0) * W, *by_drive = s.by_drive + v * tile + t * W, *by_exponent = s.by_exponent + v * tile + t * W;
    Vec<R> sum_drive[P], sum_exponent[P];
    for (int p = 0; p < P; p++) sum_drive[p] = load(by_drive + p * tile), sum_exponent[p] = load(by_exponent + p * tile);
    #pragma GCC unroll 16
    for (int n = 0; n < NB; n++) {
      Vec<R> sum = load(dB + n * W);
      #pragma GCC unroll 2
      for (int p = 0; p < P; p++) {
        const int64_t at = p * tile + t * W;
        Vec<R> r = q[p][n] + load(dy + at) * C[n];
        sum += r * load(drive + at);
        sum_drive[p] += r * B[n];
        q[p][n] = r = r * load(decay + (n * P + p) * W);
        r *= load(before + (n * P + p) * W);
        sum_exponent[p] += r * load(A + (p * N + n) * W);
        dA[p][n] += r * load(delta + at);
      }
      store(dB + n * W, sum);
    }
    for (int p = 0; p < P; p++) store(by_drive + p * tile, sum_drive[p]), store(by_exponent + p * tile, sum_exponent[p]);
  }
  for (int p = 0; p < P; p++)
    for (int n = 0; n < NB; n++) {
      const int64_t at = ((v + p) * N + n0 + n) * W;
      store(s.adjoint + at, q[p][n]);
      store(s.dA + at, load(s.dA + at) + dA[p][n]);
    }
}

template <class R> static void read_backward_tiles(const ScanArguments& a, const Task& task, const Window& w, BackwardTiles<R>& s) {
  constexpr int W = Lanes<R>::W;
  read_tile(a.u, a.dtype, w, s.u);
  read_tile(a.delta, a.dtype, w, s.delta);
  read_tile(a.dy, a.dtype, w, s.dy);
  step_sizes(a, task, w, s.delta, s.slope);
  read_projection(a.B, a, w, task.group, s.B);
  read_projection(a.C, a, w, task.group, s.C);
  start_outputs(a, task, w, s.delta, s.u, s.drive, s.y);
  if (!a.z.data) return;
  read_tile(a.z, a.dtype, w, s.z);
  for (int64_t v = 0; v < task.vectors; v++)
    for (int64_t at = v * CHUNK * W, end = at + w.steps * W; at < end; at += W) {
      Vec<R> z = load(s.z + at), gate = sigmoid<R>(z), dout = load(s.dy + at);
      store(s.z + at, dout * gate * (R(1) + z * (R(1) - gate)));  // times y, once it is known, this is dz
      store(s.dy + at, dout * z * gate);
    }
}

// From the sums over states to the gradients of u, delta and z, in place; and this chunk's share of dD and d bias.
template <class R> static void finish_tiles(const ScanArguments& a, const Task& task, const Window& w, BackwardTiles<R>& s) {
  constexpr int W = Lanes<R>::W;
  for (int64_t v = 0; v < task.vectors; v++) {
    alignas(64) R skip[W] = {};
    for (int i = 0; i < W && v * W + i < task.channels; i++)
      if (a.D) skip[i] = ((const R*)a.D)[task.channel + v * W + i];
    Vec<R> dD{}, dbias{};
    for (int64_t at = v * CHUNK * W, end = at + w.steps * W; at < end; at += W) {
      const Vec<R> by_drive = load(s.by_drive + at), u = load(s.u + at), dy = load(s.dy + at);
      const Vec<R> ddelta = (by_drive * u + load(s.by_exponent + at) * R(LN2)) * load(s.slope + at);
      dD += dy * u;
      dbias += ddelta;
      store(s.by_drive + at, by_drive * load(s.delta + at) + load(skip) * dy);
      store(s.by_exponent + at, ddelta);
      if (a.z.data) store(s.z + at, load(s.z + at) * load(s.y + at));
    }
    store(s.dD + v * W, load(s.dD + v * W) + dD);
    store(s.dbias + v * W, load(s.dbias + v * W) + dbias);
  }
  write_tile(a.du, a.dtype, w, s.by_drive);
  write_tile(a.ddelta, a.dtype, w, s.by_exponent);
  if (a.z.data) write_tile(a.dz, a.dtype, w, s.z);
}

template <class R> static void write_projections(const ScanArguments& a, const Task& task, const Window& w, BackwardTiles<R>& s) {
  const int64_t row = ((task.part * a.batch + w.batch) * a.length + w.start) * a.groups + task.group;
  R *dB = (R*)a.d_B + row * a.state, *dC = (R*)a.d_C + row * a.state;
  for (int64_t t = 0; t < w.steps; t++)
    for (int64_t n = 0; n < a.state; n++) {
      dB[t * a.groups * a.state + n] = lane_sum<R>(load(s.dB + (t * a.state + n) * Lanes<R>::W));
      dC[t * a.groups * a.state + n] = lane_sum<R>(load(s.dC + (t * a.state + n) * Lanes<R>::W));
    }
}

template <class R> static void backward_task(const ScanArguments& a, const Task& task, R* scratch) {
  constexpr int W = Lanes<R>::W;
  const int64_t N = a.state, of_sequence = task.sequence * a.channels;
  BackwardTiles<R> s(a, scratch);
  gather_states((const R*)a.A, task, N, R(LOG2E), s.A);
  gather_states((const R*)a.d_last_state + of_sequence * N, task, N, R(1), s.adjoint);
  std::fill(s.dA, s.dA + a.block * N, R(0));
  std::fill(s.dD, s.dD + a.block, R(0));
  std::fill(s.dbias, s.dbias + a.block, R(0));
  for (int64_t chunk = (task.stop - task.start + CHUNK - 1) / CHUNK - 1; chunk >= 0; chunk--) {
    const int64_t start = task.start + chunk * CHUNK;
    const Window w{task.batch, start, std::min<int64_t>(CHUNK, task.stop - start), task.channel, task.channels, CHUNK, -CHUNK};
    read_backward_tiles(a, task, w, s);
    std::fill(s.by_drive, s.by_drive + a.block * CHUNK, R(0));
    std::fill(s.by_exponent, s.by_exponent + a.block * CHUNK, R(0));
    std::fill(s.dB, s.dB + w.steps * N * W, R(0));
    std::fill(s.dC, s.dC + w.steps * N * W, R(0));
    const R* entry = entry_row<R>(a, task, chunk);
    int64_t v = 0;
    auto run = [&](auto wide, auto single, int pair) {
      for (; v + pair <= task.vectors; v += pair) {
        int64_t n = 0;
        for (; n + BACKWARD_STATES <= N; n += BACKWARD_STATES) wide(s, entry, v, n, N, w.steps, a.z.data);
        for (; n < N; n++) single(s, entry, v, n, N, w.steps, a.z.data);
      }
    };
    run(backward_block<R, BACKWARD_STATES, 2>, backward_block<R, 1, 2>, 2);
    run(backward_block<R, BACKWARD_STATES, 1>, backward_block<R, 1, 1>, 1);
    finish_tiles(a, task, w, s);
    write_projections(a, task, w, s);
  }
  scatter_states(s.dA, task, N, (R*)a.d_A + of_sequence * N);
  scatter_states(s.adjoint, task, N, (R*)a.d_initial_state + of_sequence * N);
  scatter_states(s.dD, task, 1, (R*)a.d_D + of_sequence);
  scatter_states(s.dbias, task, 1, (R*)a.d_delta_bias + of_sequence);
}
