// C interface of the CPU kernels, called from backend.py and convolution.py through ctypes. No PyTorch headers: a build
// takes seconds and outlives upgrades of PyTorch. Every function returns 0, or 1 when memory ran out.
#include <cstdlib>
#include "convolution.h"
#include "scan_backward.h"

template <class R> static int64_t task_count(const ScanArguments& a) {
  const int64_t width = a.channels / a.groups;
  return a.sequences * a.groups * ((width + a.block - 1) / a.block);
}

// Bytes of y and of the gradients that have its shape, of the saved states, and of the parts of dB and dC.
static void expect_outputs(const ScanArguments& a, bool forward) {
  const int64_t real = a.dtype == FLOAT64 ? 8 : 4, element = a.dtype == FLOAT64 ? 8 : a.dtype == FLOAT32 ? 4 : 2;
  const int64_t steps = a.batch * a.length, width = a.channels / a.groups, activations = steps * a.channels * element;
  const int64_t rows = steps / CHUNK + a.sequences, parts = (width + a.block - 1) / a.block;
  if (forward) {
    expect_writes(a.y.data, activations);
    expect_writes(a.entries, rows * a.groups * ((width + 15) / 16 * 16) * a.state * real);
    return;
  }
  for (void* gradient : {a.du.data, a.ddelta.data, a.dz.data}) expect_writes(gradient, activations);
  for (void* gradient : {a.d_B, a.d_C}) expect_writes(gradient, parts * steps * a.groups * a.state * real);
}

template <class R> static int forward(const ScanArguments& a) {
  expect_outputs(a, true);
  return run_tasks<R>(task_count<R>(a), a.threads, forward_scratch(a),
                      [&](int64_t i, R* scratch) { forward_task(a, make_task<R>(a, i), scratch); });
}

template <class R> static int backward(const ScanArguments& a) {
  expect_outputs(a, false);
  return run_tasks<R>(task_count<R>(a), a.threads, BackwardTiles<R>::size(a),
                      [&](int64_t i, R* scratch) { backward_task(a, make_task<R>(a, i), scratch); });
}

template <class R> static int convolve(const ConvolutionArguments& a, bool forward) {
  expect_writes(forward ? a.y.data : a.dx.data, a.batch * a.length * a.channels * (a.dtype == FLOAT64 ? 8 : a.dtype == FLOAT32 ? 4 : 2));
  const int64_t tasks = a.sequences * ((a.channels + a.block - 1) / a.block);
  return run_tasks<R>(tasks, a.threads, ConvolutionTask<R>::scratch(a), [&](int64_t i, R* scratch) {
    forward ? convolve_task(a, i, scratch) : convolve_backward_task(a, i, scratch);
  });
}

extern "C" {
int convolution_forward(const ConvolutionArguments* a) { return a->dtype == FLOAT64 ? convolve<double>(*a, true) : convolve<float>(*a, true); }
int convolution_backward(const ConvolutionArguments* a) { return a->dtype == FLOAT64 ? convolve<double>(*a, false) : convolve<float>(*a, false); }
int selective_scan_forward(const ScanArguments* a) { return a->dtype == FLOAT64 ? forward<double>(*a) : forward<float>(*a); }
int selective_scan_backward(const ScanArguments* a) { return a->dtype == FLOAT64 ? backward<double>(*a) : backward<float>(*a); }
int64_t selective_scan_chunk() { return CHUNK; }
int64_t vector_bytes() { return VECTOR_BYTES; }
void exp2_of(const float* x, float* y, int64_t count) {  // for the test of the exponential by itself
  constexpr int W = Lanes<float>::W;
  for (int64_t i = 0; i + W <= count; i += W) store(y + i, exp2_steps(load(x + i)));
}
}
