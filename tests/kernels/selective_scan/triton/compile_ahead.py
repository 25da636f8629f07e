"""Compile for a named GPU every kernel that a call launches, and print their resources as JSON.

The calls are real, down to Triton's binding of their arguments; in the driver's place stands one that only names the
GPU, and a launch ends with the compiled kernel. A process of its own: kernels decorated under TRITON_INTERPRET cannot
be compiled. Usage: python compile_ahead.py 90 [all]. Without `all`: 16 states in float32, what the models use
(the second design); with it, all kinds of the second design's kernels, and the first design in every candidate that
tuning may choose, for any strides in float32 and for bfloat16.
"""

import json
import sys
from functools import partial

import torch
from triton.runtime import driver, jit

from benchmarks.scan_code import NamedDriver, resources
from kernels.selective_scan import backends, causal_conv1d, selective_scan
from kernels.selective_scan.triton import backend as triton_backend
from kernels.selective_scan.triton.tiling import candidates
from kernels.testing import ScanCase, make_inputs, outputs_and_gradients

LATER_AXES = 65535  # CUDA's limit on the second and third axis of a grid
report = {}


def compile_launches(label):
    """From now on, a launch compiles its kernel and reports it as `label`."""
    run = jit.JITFunction.run

    def compile_only(kernel, *arguments, grid, warmup, **constants):
        assert all(programs <= LATER_AXES for programs in grid[1:]), (kernel.fn.__name__, grid)
        compiled = run(kernel, *arguments, grid=grid, warmup=True, **constants)
        name = f"{kernel.fn.__name__} {label()} #{len(report)}"
        report[name] = resources(compiled)

    jit.JITFunction.run = compile_only


def differentiate(case):
    """Launch everything that a scan forward and backward needs."""
    outputs_and_gradients(
        partial(selective_scan, return_last_state=True, backend="triton"), make_inputs(case)
    )


def scan_cases(everything):
    yield ScanCase(channels=64, length=40, state=16, mask=True), candidates(16)[0]
    if not everything:
        return
    yield ScanCase(channels=64, length=40, state=17, mask=True), candidates(17)[0]
    for case in LANES:
        yield case, candidates(16)[0]
    bare = ScanCase(channels=64, length=40, state=17, gate=False, bias=False)
    yield bare, candidates(17)[0]
    for state in (17, 64):
        for tiling in candidates(state):
            options = {"channels": 65, "length": 39, "state": state, "mask": True}
            yield ScanCase(**options, channels_last=False), tiling  # strides that are known for nothing
            yield ScanCase(**options, dtype=torch.bfloat16), tiling


LANES = [
    ScanCase(channels=128, length=64, state=16),
    ScanCase(channels=128, length=64, state=16, gate=False, bias=False, initial=False, skip=False),
    ScanCase(channels=512, length=64, state=16, dtype=torch.bfloat16),
    ScanCase(channels=65, length=39, state=16, dtype=torch.float16, mask=True, channels_last=False),
    ScanCase(channels=66, length=39, state=7, groups=2, mask=True),
    ScanCase(batch=1, channels=65, length=43, lengths=(40, 0, 3), state=1, mask=True),
]
"""Kinds of the second design."""


def convolve():
    x = torch.randn(2, 40, 64).mT.requires_grad_()
    weight, state = torch.randn(64, 4), torch.randn(2, 64, 3)
    causal_conv1d(x, weight, torch.randn(64), initial_state=state, backend="triton").sum().backward()
    halves = x.detach()[:1].bfloat16().requires_grad_()
    bounds = torch.tensor([0, 7, 40])
    y, last = causal_conv1d(
        halves, weight, return_final_state=True, activation=None, cu_seqlens=bounds, backend="triton"
    )
    torch.autograd.backward([y, last], [y, last])


def scan_a_large_batch():
    """Launch the forward pass at the largest size of the benchmark, whose memory nobody touches."""
    wide, narrow = torch.zeros(1, 1, 1).expand(64, 512, 20160), torch.zeros(1, 1, 1).expand(64, 16, 20160)
    with torch.no_grad():
        selective_scan(wide, wide, torch.zeros(512, 16), narrow, narrow, backend="triton")


def main(architecture, everything):
    driver.set_active(NamedDriver(architecture))
    backends.triton_is_interpreted = lambda: True  # tensors on the CPU will do
    label = ""
    compile_launches(lambda: label)
    for case, tiling in scan_cases(everything):
        triton_backend.tiling = lambda *_, chosen=tiling: chosen
        label = f"{case} {tiling}"
        differentiate(case)
    convolve()
    scan_a_large_batch()
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main(int(sys.argv[1]), "all" in sys.argv)
