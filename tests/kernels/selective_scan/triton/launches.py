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
from triton.runtime import driver

from benchmarks import scan_host
from kernels.selective_scan import causal_conv1d, selective_scan
from kernels.selective_scan.triton import binaries
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
    # as "plain", but for what decides on another binary
    "bf16": ScanCase(channels=32, length=24, state=16, dtype=torch.bfloat16),
    "fp16": ScanCase(channels=32, length=24, state=16, dtype=torch.float16),
    "not cut": ScanCase(channels=32, length=4, state=16),
    "without states": ScanCase(channels=32, length=24, state=16, initial=False),
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
    """Stands for `Kernels.launcher`: what it gives launches both ways."""

    def __init__(self):
        self.usual, self.report, self.passes = binaries.Kernels.launcher, {}, []

    def begin(self, name):
        self.report[name] = {"kernels": [], "later_parts": 0, "parameters": 0, "differences": []}

    def launcher(self, kernels):
        self.passes.append(kernels)
        return Both(list(self.report.values())[-1], kernels.device)


class Both:
    """Stands for `ByTensor`: hands out tensors, and launches with them, and with their addresses."""

    def __init__(self, found, device):
        self.found, self.by_tensor, self.by_address = found, binaries.ByTensor(), binaries.ByAddress(device)
        self.addresses = {}

    def pointers(self, tensors):
        return self._known(tensors, self.by_tensor.pointers(tensors), self.by_address.pointers(tensors))

    def parts(self, workspace, starts):
        self.found["later_parts"] += sum(start > 0 for start in starts)
        parts = self.by_tensor.parts(workspace, starts)
        return self._known(parts, parts, self.by_address.parts(workspace, starts))

    def _known(self, tensors, pointers, addresses):
        self.found["parameters"] += sum(type(t) is torch.nn.Parameter for t in tensors)
        self.addresses |= {id(p): a for p, a in zip(pointers, addresses, strict=True) if p is not None}
        return pointers

    def __call__(self, binary, programs, *arguments):
        before = binary.compiled
        self.by_tensor(binary, programs, *arguments)  # compiles
        kernel = binary.function.__name__
        assert before in (None, binary.compiled), f"{kernel}: a binary for two kinds of call"
        addresses = [self.addresses[id(a)] if isinstance(a, torch.Tensor) else a for a in arguments]
        with launches_of(binary.compiled) as seen:
            self.by_tensor(binary, programs, *arguments)
            self.by_address(binary, programs, *addresses)
        first, second = map(as_launched, seen)
        self.found["kernels"].append(kernel)
        assert any(isinstance(value, torch.Tensor) for value in seen[0]), "not Triton's own way"
        assert not any(isinstance(value, torch.Tensor) for value in seen[1]), "not the short way"
        if len(first) != len(second):
            self.found["differences"].append(f"{kernel}: {len(first)} values, {len(second)} the short way")
        for number, (a, b) in enumerate(zip(first, second, strict=False)):
            if type(a) is not type(b) or a != b:
                self.found["differences"].append(f"{kernel}, value {number}: {a!r}, {b!r} the short way")


CONVOLUTIONS = {
    "convolution": {},
    "convolution, bf16": {"dtype": torch.bfloat16},
    "convolution without bias": {"bias": False},
    "convolution without states": {"state": False},
    "convolution, last inputs unused": {"last": False},
    "convolution, plain": {"activation": None},
}


def convolve(*, dtype=torch.float32, bias=True, state=True, last=True, activation="silu"):
    x, weight, shift, initial = scan_host.layer_convolution("triton").tensors
    y, final = causal_conv1d(
        x.to(dtype).requires_grad_(), weight, shift if bias else None, activation=activation,
        initial_state=initial.to(dtype) if state else None, return_final_state=True, backend="triton",
        cu_seqlens=torch.tensor(scan_host.BOUNDS),
    )  # fmt: skip
    outputs = [y, final] if last else [y]
    torch.autograd.backward(outputs, outputs)


def check_streams():
    """Launch on the current stream, and by address only once all kernels of a pass are compiled."""
    usual = driver.active.get_current_stream
    driver.active.get_current_stream = lambda _device: 7
    assert binaries.ByAddress(0).stream == 7
    driver.active.get_current_stream = usual
    some = binaries.Kernels(torch.device("cpu"), *(binaries.Binary(None, 1, ()) for _ in range(2)))
    for binary, expected in zip(some.binaries, (binaries.ByTensor, binaries.ByAddress), strict=True):
        binary.compiled = object()
        assert type(some.launcher()) is expected


def main():
    scan_host.idle("triton")
    lanes_plan.AT_ONCE = 1  # compiles in a fraction of the time, to the same list of arguments
    twice = Twice()
    binaries.Kernels.launcher = lambda kernels: twice.launcher(kernels)
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
    for name, options in CONVOLUTIONS.items():
        twice.begin(name)
        convolve(**options)
    binaries.Kernels.launcher = twice.usual
    check_streams()
    later = {type(twice.usual(kernels)) for kernels in twice.passes}
    assert later == {binaries.ByAddress}, f"once all are compiled, calls go the short way, not by {later}"
    print(json.dumps(twice.report))


if __name__ == "__main__":
    main()
