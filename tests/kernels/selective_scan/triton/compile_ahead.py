"""Compile for a named GPU every kernel that a call launches, and print their resources as JSON.

The calls are real, down to Triton's binding of their arguments; in the driver's place stands one that only names the
GPU, and a launch ends with the compiled kernel. A process of its own: kernels decorated under TRITON_INTERPRET cannot
be compiled. Usage: python compile_ahead.py 90 [all]. Without `all`: the default for 16 states in float32, what the
models use; with it, every candidate that tuning may choose, for any strides in float32 and for bfloat16.
"""

import json
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver, jit

from kernels.selective_scan import backends, causal_conv1d, selective_scan
from kernels.selective_scan.triton import backend as triton_backend
from kernels.selective_scan.triton.tiling import candidates
from kernels.testing import ScanCase, make_inputs, outputs_and_gradients

TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
LATER_AXES = 65535  # CUDA's limit on the second and third axis of a grid
report = {}


class NamedDriver:
    """A driver for a GPU that is not there."""

    def __init__(self, architecture):
        self.target = GPUTarget("cuda", architecture, 32)

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return 0

    def get_current_stream(self, _device):
        return 0


def resources(compiled):
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = subprocess.check_output([TOOLS / "cuobjdump", "--dump-resource-usage", file.name], text=True)
        code = subprocess.check_output([TOOLS / "nvdisasm", file.name], text=True, stderr=subprocess.DEVNULL)
    registers = int(re.findall(r"REG:(\d+)", usage)[-1])
    spills = len(re.findall(r"\b(?:LDL|STL)\b", code))
    return {"registers": registers, "spills": spills, "shared": compiled.metadata.shared}


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
    bare = ScanCase(channels=64, length=40, state=16, gate=False, bias=False)
    yield bare, candidates(16)[0]
    for state in (16, 64):
        for tiling in candidates(state):
            options = {"channels": 65, "length": 39, "state": state, "mask": True}
            yield ScanCase(**options, channels_last=False), tiling  # strides that are known for nothing
            yield ScanCase(**options, dtype=torch.bfloat16), tiling


def convolve():
    x = torch.randn(2, 40, 64).mT.requires_grad_()
    state = torch.randn(2, 64, 3)
    causal_conv1d(
        x, torch.randn(64, 4), torch.randn(64), initial_state=state, backend="triton"
    ).sum().backward()


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
