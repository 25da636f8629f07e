// C interface of the CPU kernels, called from cpu.py through ctypes. No PyTorch headers: a build takes seconds and
// outlives upgrades of PyTorch. Every function returns 0, or 1 when memory ran out.
#include <cstdlib>
#include "cpu_scan_backward.h"

template <class R> static int64_t task_count(const ScanArguments& a) {
  const int64_t width = a.channels / a.groups;
  return a.sequences * a.groups * ((width + a.block - 1) / a.block);
}

template <class R> static int forward(const ScanArguments& a) {
  return run_tasks<R>(task_count<R>(a), a.threads, forward_scratch(a),
                      [&](int64_t i, R* scratch) { forward_task(a, make_task<R>(a, i), scratch); });
}

template <class R> static int backward(const ScanArguments& a) {
  return run_tasks<R>(task_count<R>(a), a.threads, BackwardTiles<R>::size(a),
                      [&](int64_t i, R* scratch) { backward_task(a, make_task<R>(a, i), scratch); });
}

extern "C" {
int selective_scan_forward(const ScanArguments* a) { return a->dtype == FLOAT64 ? forward<double>(*a) : forward<float>(*a); }
int selective_scan_backward(const ScanArguments* a) { return a->dtype == FLOAT64 ? backward<double>(*a) : backward<float>(*a); }
int64_t selective_scan_chunk() { return CHUNK; }
int64_t vector_bytes() { return VECTOR_BYTES; }
void exp2_of(const float* x, float* y, int64_t count) {  // for the test of the exponential by itself
  constexpr int W = Lanes<float>::W;
  for (int64_t i = 0; i + W <= count; i += W) store(y + i, exp2_steps(load(x + i)));
}
}
