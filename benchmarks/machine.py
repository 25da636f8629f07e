"""Measure what the machine can do at best, with a small compiled probe."""

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from kernels.selective_scan.cpu.build import COMPILERS, LEVELS, best_level

FORWARD_OPERATIONS, BACKWARD_OPERATIONS = 12, 20
"""Vector operations per vector of states: the exponential (8), its argument, two multiply-adds and a product
forward; the same states again and the adjoint's eight operations backward (our count, see the kernel's README)."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Measured limits: vector multiply-adds per second, floats in a vector, bytes per second of memory."""

    fma_rate: float
    lanes: int
    bandwidth: float

    def scan_floor(self, state_steps: int, *, backward: bool) -> float:
        """Return the seconds for a scan whose every vector operation runs at the multiply-add rate."""
        operations = FORWARD_OPERATIONS + (BACKWARD_OPERATIONS if backward else 0)
        return state_steps / self.lanes * operations / self.fma_rate


@functools.cache
def measure() -> Machine | None:
    """Compile and run the probe; None where there is no compiler."""
    compiler = os.environ.get("CXX") or next(filter(shutil.which, COMPILERS), None)
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "machine.so"
        source = Path(__file__).with_name("machine.cpp")
        flags = ["-O3", "-std=gnu++17", "-fPIC", "-shared", "-pthread", *LEVELS[best_level()]]
        subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True, capture_output=True)
        probe = ctypes.CDLL(str(library))
        probe.fma_rate.restype = probe.triad_rate.restype = ctypes.c_double
        threads, count = torch.get_num_threads(), 1 << 25
        arrays = [torch.ones(count) for _ in range(3)]
        pointers = [ctypes.c_void_p(array.data_ptr()) for array in arrays]
        bandwidth = probe.triad_rate(threads, *pointers, ctypes.c_int64(count))
        return Machine(fma_rate=probe.fma_rate(threads), lanes=probe.lanes(), bandwidth=bandwidth)
