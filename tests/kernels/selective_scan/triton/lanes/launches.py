"""Launch every kernel twice with the same arguments, as the first of its kind and as one after it; print what differs.

The first goes Triton's own way, with tensors; those after it straight to the launcher, with addresses. The driver does
nothing (`benchmarks.fake_cuda`), and what reaches it is noted. A process of its own: Triton keeps the driver it finds
first. Prints, as JSON, by kind of call, the kernels launched, how many arguments were parts of a tensor that begin
after its start, how many parameters, and the differences.
"""

import json
from contextlib import contextmanager
from functools import partial

import torch

from benchmarks import scan_host
from kernels.selective_scan import selective_scan
from kernels.selective_scan.triton.lanes import binaries
from kernels.selective_scan.triton.lanes import plan as lanes_plan
from kernels.testing import ScanCase, make_inputs, outputs_and_gradients

CASES = {
    # as cut for 132 multiprocessors: three chunks a row, two of them whole
    "plain": ScanCase(channels=32, length=24, state=16),
    "ragged bf16": ScanCase(channels=33, length=19, state=7, dtype=torch.bfloat16, mask=True),
    "pack": ScanCase(
        batch=1, channels=6, groups=2, length=23, lengths=(19, 0, 4), state=3, mask=True, gate=False
    ),
    "parameters": ScanCase(channels=32, length=24, state=16),
}


PARAMETERS = ("A", "D", "delta_bias")
UNLIKE = slice(6, 9)
"""What Triton's way gives profilers beside the launch, and the short one leaves out: metadata and two hooks."""


def as_launched(given):
    """Return what the launcher makes of what it was given: of a tensor, its address."""
    values = [value.data_ptr() if isinstance(value, torch.Tensor) else value for value in given]
    del values[UNLIKE]
    return values


@contextmanager
def launches_of(compiled):
    """Give the list of what is launched of a compiled kernel meanwhile."""
    usual, seen = compiled.run, []
    compiled._run = lambda *given: (seen.append(given), usual(*given))[1]
    try:
        yield seen
    finally:
        compiled._run = usual


class Twice:
    """Stands for `Binary.__call__`, and launches both ways."""

    def __init__(self):
        self.usual, self.report = binaries.Binary.__call__, {}

    def begin(self, name):
        self.report[name] = {"kernels": [], "later_parts": 0, "parameters": 0, "differences": []}
        return self.report[name]

    def __call__(self, binary, programs, *arguments):
        found = list(self.report.values())[-1]
        self.usual(binary, programs, *arguments)  # compiles, whatever has been
        compiled = binary.compiled[tuple(map(type, arguments))]
        with launches_of(compiled) as seen:
            binary.compiled.clear()
            for _ in range(2):
                self.usual(binary, programs, *arguments)
        first, second = map(as_launched, seen)
        kernel = binary.function.__name__
        found["kernels"].append(kernel)
        found["parameters"] += sum(type(a) is torch.nn.Parameter for a in arguments)
        found["later_parts"] += sum(type(a) is tuple and a[1] > 0 for a in arguments)
        assert any(isinstance(value, torch.Tensor) for value in seen[0]), "not Triton's own way"
        assert not any(isinstance(value, torch.Tensor) for value in seen[1]), "not the short way"
        if len(first) != len(second):
            found["differences"].append(f"{kernel}: {len(first)} values, {len(second)} the short way")
        for number, (a, b) in enumerate(zip(first, second, strict=False)):
            if type(a) is not type(b) or a != b:
                found["differences"].append(f"{kernel}, value {number}: {a!r}, {b!r} the short way")


def main():
    scan_host.idle("triton")
    lanes_plan.AT_ONCE = 1  # compiles in a fraction of the time, to the same list of arguments
    twice = Twice()
    binaries.Binary.__call__ = lambda binary, *given: twice(binary, *given)
    scan = partial(selective_scan, return_last_state=True, backend="triton")
    for name, case in CASES.items():
        twice.begin(name)
        inputs = make_inputs(case)
        if (
            name == "parameters"
        ):  # a type of its own, which `outputs_and_gradients` would make plain tensors of
            scan(**inputs | {n: torch.nn.Parameter(inputs[n]) for n in PARAMETERS})[0].sum().backward()
        else:
            outputs_and_gradients(scan, inputs)
    print(json.dumps(twice.report))


if __name__ == "__main__":
    main()
