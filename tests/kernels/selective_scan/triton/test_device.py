"""Kernels launch on the GPU of their tensors, whatever device is the current one."""

from contextlib import contextmanager
from functools import partial

import pytest
import torch

from kernels.selective_scan import causal_conv1d, selective_scan
from kernels.selective_scan.operands import ConvolutionInputs, scan_inputs
from kernels.testing import ScanCase, assert_close, make_inputs, outputs_and_gradients, widen

pytest.importorskip("triton")

from kernels.selective_scan.triton import backend, binaries, convolution, designs, device, tuning
from kernels.selective_scan.triton.lanes import launch

LAUNCHED = {
    backend: (
        "summarize_chunks", "pass_over_chunks", "write_chunks", "summarize_adjoints", "differentiate_chunks"
    ),
}  # fmt: skip

CONVOLUTION = {"convolve", "differentiate_filter", "spread"}
LANES = {"summarize", "carry", "write", "summarize_back", "differentiate", "finish"}


class Launches:
    """Stands for the kernels and for the guard: notes which kernel was launched under the guard of which tensor."""

    def __init__(self, monkeypatch):
        self.guarding, self.seen = [], []
        monkeypatch.setattr(device, "several_cards", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_of", self.device_of)
        for module, names in LAUNCHED.items():
            for name in names:
                monkeypatch.setattr(module, name, self.kernel(name))

        def call(_launcher, binary, _programs, *_arguments):
            self.seen.append((binary.function.__name__, tuple(self.guarding)))

        monkeypatch.setattr(binaries.ByTensor, "__call__", call)

    @contextmanager
    def device_of(self, tensor):
        self.guarding.append(tensor.data_ptr())
        yield
        self.guarding.pop()

    def kernel(self, name):
        launches = self

        class Kernel:
            def __getitem__(self, grid):
                return lambda *_, **__: launches.seen.append((name, tuple(launches.guarding)))

        return Kernel()


def test_every_launch_is_under_the_guard_of_its_own_tensor(monkeypatch):
    launches = Launches(monkeypatch)
    operands = tuning._operands(torch.device("cpu"), torch.float32, 2, 3, 40)
    tuning._seconds(operands, None)
    assert {name for name, _ in launches.seen} == set(LAUNCHED[backend])
    assert {guards for _, guards in launches.seen} == {(operands.u.data_ptr(),)}
    launches.seen.clear()
    y, entries = torch.empty_like(operands.u), torch.empty(0)
    designs.forward(operands, y, True)
    designs.backward(operands, entries, y, None)
    assert {name for name, _ in launches.seen} == LANES
    assert {guards for _, guards in launches.seen} == {(operands.u.data_ptr(),)}
    launches.seen.clear()
    x = ConvolutionInputs(torch.zeros(1, 40, 3).mT, torch.zeros(3, 4), None, None, None, True)
    convolution.forward(x, torch.zeros_like(x.x))
    convolution.backward(x, x.x, torch.zeros(1, 3, 3))
    assert {name for name, _ in launches.seen} == CONVOLUTION
    assert {guards for _, guards in launches.seen} == {(x.x.data_ptr(),)}


@pytest.mark.parametrize(("changed", "expected"), [
    ({}, launch), ({"state": 16}, launch), ({"dtype": torch.float16}, launch), ({"length": 0}, launch),
    ({"state": 17}, backend), ({"dtype": torch.float64}, backend),
])  # fmt: skip
def test_one_place_decides_which_design_computes_a_scan(changed, expected):
    case = ScanCase(**{"dtype": torch.bfloat16, "length": 3, **changed})
    tensors = make_inputs(case)
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
    x = scan_inputs([*[tensors[n] for n in names], None, None], True)
    assert designs.design(x) is expected
    assert designs.entries_shape(x) == expected.entries_shape(x)


def test_a_batch_of_more_steps_than_lanes_count_goes_to_the_first_design(monkeypatch):
    x = tuning._operands(torch.device("cpu"), torch.float32, 2, 3, 40)
    assert designs.design(x) is launch
    monkeypatch.setattr(launch, "MOST_ROWS", 39)
    assert designs.design(x) is backend


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no two CUDA devices")
def test_tensors_on_the_second_gpu_give_the_reference_results_there():
    case = ScanCase(batch=1, channels=70, length=1064, lengths=(1000, 0, 63, 1), groups=2, state=16)
    scan = partial(selective_scan, return_last_state=True)
    truth = outputs_and_gradients(partial(scan, backend="reference"), widen(make_inputs(case)))
    with torch.cuda.device(0):
        ours = outputs_and_gradients(partial(scan, backend="triton"), make_inputs(case, device="cuda:1"))
        assert {value.device for value in ours.values()} == {torch.device("cuda", 1)}
        assert_close(ours, truth, case.dtype)
        x, weight = torch.randn(1, 3, 37), torch.randn(3, 4)
        y = causal_conv1d(x.to("cuda:1"), weight.to("cuda:1"), activation="silu")
    torch.testing.assert_close(y.cpu(), causal_conv1d(x, weight, activation="silu"), rtol=1e-5, atol=1e-5)
