"""Measure the peak memory of one provider, on a CPU in a process of its own.

``python -m benchmarks.memory <module> <case> <provider>`` prints the megabytes (10^6 bytes) that one call needs above
its inputs and the tensors that it returns. A process of its own starts without anybody else's memory, and there
freed blocks go back to the system at once (`MALLOC`): resident memory is then what is in use, and no block that
somebody freed before can hide one of the call's own.
"""

import ctypes
import gc
import importlib
import os
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.driver import Case, Provider

MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Settings of glibc: blocks from 64 KB up are mapped one by one, and given back when they are freed."""


def peak_of(module: str, case: Case, provider: Provider) -> float | None:
    """Return the provider's peak in MB, or None where it cannot be measured (no Linux, no memory for it).

    On a GPU PyTorch's allocator counts what is in use, whoever else had memory before: in this process.
    """
    if torch.cuda.is_available():
        try:
            return measure(provider)
        except torch.OutOfMemoryError:
            return None
    if not Path("/proc/self/clear_refs").exists():
        return None
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", module, case.name, provider.name]
    environment = {**os.environ, **MALLOC, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else None


def measure(provider: Provider) -> float:
    """Return how far one call raises the memory in use above what it returns, in MB: on the GPU, else resident."""
    if provider.rounds is None:
        result = provider.run()  # what the first call loads and builds is no part of the work's memory
        del result
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = provider.run()
        return (torch.cuda.max_memory_allocated() - before - returned_bytes(result)) / 1e6
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = _status("VmRSS")
    result = provider.run()
    return max(0.0, (_status("VmHWM") - before - returned_bytes(result)) / 1e6)  # pages round by a few KB


def returned_bytes(result: object) -> int:
    """Return the memory that the tensors in (nested tuples of) `result` keep, each block once."""
    return sum({block.data_ptr(): block.nbytes() for block in _blocks(result)}.values())


def _blocks(result: object) -> list[torch.UntypedStorage]:
    if isinstance(result, torch.Tensor):
        return [result.untyped_storage()]
    return [b for part in result for b in _blocks(part)] if isinstance(result, (tuple, list)) else []


def _status(key: str) -> int:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(key))
    return int(line.split()[1]) * 1024


def main(module: str, case_name: str, provider_name: str) -> None:
    """Print the peak of one provider of one case."""
    case = next(c for c in importlib.import_module(module).CASES if c.name == case_name)
    provider = next(p for p in case.providers() if p.name == provider_name)
    sys.stdout.write(f"{measure(provider)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
