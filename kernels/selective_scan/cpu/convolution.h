// Causal depthwise convolution with SiLU and carried inputs, forward and backward. A task is one sequence and one
// block of channels; a tile holds CHUNK steps with the `width - 1` inputs before them in front.
#pragma once
#include <algorithm>
#include "tensor.h"

struct ConvolutionArguments {
  View x, y, dy, dx;
  const void *weight, *bias, *initial_state, *d_final_state;  // (channels, width), (channels), (sequences, channels, width - 1)
  const int64_t* cu_seqlens;
  void *final_state, *d_weight, *d_bias, *d_initial_state;  // those of weight and bias per sequence; the caller sums
  int64_t batch, length, channels, width, sequences, block, silu, dtype, threads;
};

template <class R> struct ConvolutionTask {
  static constexpr int W = Lanes<R>::W;
  const ConvolutionArguments& a;
  int64_t sequence, batch, start, stop, channel, channels, vectors, carried, capacity, ahead = CHUNK;
  R *tile, *out, *dx, *weight, *bias, *d_weight, *d_bias, *pending;

  ConvolutionTask(const ConvolutionArguments& a, int64_t index, R* memory) : a(a) {
    const int64_t blocks = (a.channels + a.block - 1) / a.block;
    sequence = index / blocks, channel = index % blocks * a.block, channels = std::min(a.block, a.channels - channel);
    batch = a.cu_seqlens ? 0 : sequence;
    start = a.cu_seqlens ? a.cu_seqlens[sequence] : 0;
    stop = a.cu_seqlens ? a.cu_seqlens[sequence + 1] : a.length;
    vectors = (channels + W - 1) / W, carried = a.width - 1, capacity = CHUNK + carried;
    for (R** t : {&tile, &out, &dx}) *t = memory, memory += a.block * capacity;
    for (R** t : {&weight, &d_weight, &pending}) *t = memory, memory += a.block * a.width;
    for (R** t : {&bias, &d_bias}) *t = memory, memory += a.block;
    for (int64_t c = 0; c < vectors * W; c++) {
      const bool there = c < channels;
      bias[c] = there && a.bias ? ((const R*)a.bias)[channel + c] : R(0);
      for (int64_t j = 0; j < a.width; j++) row(weight, c / W, j, a.width)[c % W] = there ? ((const R*)a.weight)[(channel + c) * a.width + j] : R(0);
    }
  }
  static int64_t scratch(const ConvolutionArguments& a) { return a.block * (3 * (CHUNK + a.width) + 3 * a.width + 2); }
  static R* row(R* rows, int64_t vector, int64_t index, int64_t count) { return rows + (vector * count + index) * W; }

  Window window(int64_t from, int64_t steps) const { return {batch, from, steps, channel, channels, capacity, ahead}; }

  // Steps [from, from + steps), and in front of them the inputs before `from`: before the sequence, the carried ones.
  void read(int64_t from, int64_t steps) {
    for (int64_t j = 0; j < carried; j++) {
      const int64_t t = from - carried + j;
      if (t >= start) read_tile(a.x, a.dtype, window(t, 1), tile + j * W);
      else read_state(a.initial_state, t - start + carried, tile + j * W, capacity);
    }
    if (steps) read_tile(a.x, a.dtype, window(from, steps), tile + carried * W);
  }
  void read_state(const void* state, int64_t column, R* rows, int64_t count) const {
    with_dtype<R>(a.dtype, [&](auto* kind) {
      typedef std::remove_pointer_t<decltype(kind)> E;
      for (int64_t c = 0; c < vectors * W; c++)
        rows[c / W * count * W + c % W] = state && c < channels ? widen(((const E*)state)[place(c, column)]) : R(0);
    });
  }
  void write_state(void* state, int64_t column, const R* rows, int64_t count) const {
    with_dtype<R>(a.dtype, [&](auto* kind) {
      typedef std::remove_pointer_t<decltype(kind)> E;
      for (int64_t c = 0; c < channels; c++) narrow(rows[c / W * count * W + c % W], (E*)state + place(c, column));
    });
  }
  int64_t place(int64_t c, int64_t column) const { return (sequence * a.channels + channel + c) * carried + column; }

  Vec<R> filter(int64_t v, int64_t t) const {
    Vec<R> sum = load(bias + v * W);
    for (int64_t j = 0; j < a.width; j++) sum += load(row(tile, v, t + j, capacity)) * load(row(weight, v, j, a.width));
    return sum;
  }
};

template <class R> static void convolve_task(const ConvolutionArguments& a, int64_t index, R* scratch) {
  ConvolutionTask<R> s(a, index, scratch);
  for (int64_t from = s.start; from < s.stop; from += CHUNK) {
    const int64_t steps = std::min<int64_t>(CHUNK, s.stop - from);
    s.read(from, steps);
    for (int64_t v = 0; v < s.vectors; v++)
      for (int64_t t = 0; t < steps; t++) {
        const Vec<R> y = s.filter(v, t);
        store(s.row(s.out, v, t, s.capacity), a.silu ? y * sigmoid<R>(y) : y);
      }
    write_tile(a.y, a.dtype, s.window(from, steps), s.out);
  }
  s.read(s.stop, 0);
  for (int64_t j = 0; j < s.carried; j++) s.write_state(a.final_state, j, s.row(s.tile, 0, j, s.capacity), s.capacity);
}

// One vector of one chunk: from dy in s.out to dx, and this chunk's share of the filter's gradients.
template <class R> static void convolve_backward_vector(ConvolutionTask<R>& s, int64_t v, int64_t steps) {
  const int64_t width = s.a.width;
  constexpr int W = Lanes<R>::W;
  for (int64_t t = 0; t < steps; t++) store(s.row(s.dx, v, t, s.capacity), Vec<R>{});
  for (int64_t j = 0; j < s.carried; j++) store(s.row(s.dx, v, steps + j, s.capacity), load(s.row(s.pending, v, j, width)));
  Vec<R> bias{};
  for (int64_t t = 0; t < steps; t++) {
    Vec<R> g = load(s.row(s.out, v, t, s.capacity));
    if (s.a.silu) {
      const Vec<R> y = s.filter(v, t), gate = sigmoid<R>(y);
      g *= gate * (R(1) + y * (R(1) - gate));
    }
    store(s.row(s.out, v, t, s.capacity), g);
    bias += g;
    for (int64_t j = 0; j < width; j++) {
      R* d = s.row(s.dx, v, t + j, s.capacity);
      store(d, load(d) + g * load(s.row(s.weight, v, j, width)));
    }
  }
  for (int64_t j = 0; j < width; j++) {
    Vec<R> sum{};
    for (int64_t t = 0; t < steps; t++) sum += load(s.row(s.out, v, t, s.capacity)) * load(s.row(s.tile, v, t + j, s.capacity));
    R* d = s.row(s.d_weight, v, j, width);
    store(d, load(d) + sum);
  }
  store(s.d_bias + v * W, load(s.d_bias + v * W) + bias);
  for (int64_t j = 0; j < s.carried; j++) store(s.row(s.pending, v, j, width), load(s.row(s.dx, v, j, s.capacity)));
}

// Walks the chunks backwards; `pending` holds what later steps give to the inputs before the chunk.
template <class R> static void convolve_backward_task(const ConvolutionArguments& a, int64_t index, R* scratch) {
  ConvolutionTask<R> s(a, index, scratch);
  constexpr int W = Lanes<R>::W;
  s.ahead = -CHUNK;
  std::fill(s.d_weight, s.d_weight + a.block * a.width, R(0));
  std::fill(s.d_bias, s.d_bias + a.block, R(0));
  for (int64_t j = 0; j < s.carried; j++) s.read_state(a.d_final_state, j, s.row(s.pending, 0, j, a.width), a.width);
  for (int64_t chunk = (s.stop - s.start + CHUNK - 1) / CHUNK - 1; chunk >= 0; chunk--) {
    const int64_t from = s.start + chunk * CHUNK, steps = std::min<int64_t>(CHUNK, s.stop - from);
    s.read(from, steps);
    read_tile(a.dy, a.dtype, s.window(from, steps), s.out);
    for (int64_t v = 0; v < s.vectors; v++) convolve_backward_vector(s, v, steps);
    write_tile(a.dx, a.dtype, s.window(from, steps), s.dx + s.carried * W);
  }
  for (int64_t j = 0; j < s.carried; j++) s.write_state(a.d_initial_state, j, s.row(s.pending, 0, j, a.width), a.width);
  for (int64_t c = 0; c < s.channels; c++) {
    const int64_t at = s.sequence * a.channels + s.channel + c;
    ((R*)a.d_bias)[at] = s.d_bias[c];
    for (int64_t j = 0; j < a.width; j++) ((R*)a.d_weight)[at * a.width + j] = s.row(s.d_weight, c / W, j, a.width)[c % W];
  }
}
