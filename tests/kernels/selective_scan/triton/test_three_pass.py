"""The three-pass algorithm of the GPU kernels, in PyTorch, against the float64 reference."""

import importlib
import importlib.util
from functools import partial
from pathlib import Path

import pytest
import torch

from kernels.selective_scan import selective_scan
from kernels.testing import ScanCase, assert_close, make_inputs, outputs_and_gradients, widen

pytest.importorskip("triton")
STEPS = importlib.import_module("kernels.selective_scan.triton.tiling").STEPS

CASES = {
    "one_step": ScanCase(length=1, channels=3),
    "one_chunk": ScanCase(length=32, channels=3, mask=True),
    "two_days": ScanCase(batch=1, length=20160, channels=3, state=2),
    "one_over": ScanCase(length=33, channels=3, mask=True),
    "ragged": ScanCase(length=101, channels=5, state=7, mask=True),
    "bare": ScanCase(length=40, gate=False, skip=False, bias=False, initial=False),
    "groups": ScanCase(channels=6, groups=3, length=35, mask=True),
    "pack": ScanCase(batch=1, lengths=(5, 0, 33, 1, 64, 0), length=103, mask=True),
    "pack_of_empty": ScanCase(batch=1, lengths=(0, 0), length=0),
    "bf16": ScanCase(length=50, dtype=torch.bfloat16, mask=True),
    "float64": ScanCase(length=50, channels=8, groups=2, dtype=torch.float64, mask=True),
}


@pytest.fixture(scope="module")
def three_pass_scan():
    path = Path(__file__).with_name("three_pass.py")
    spec = importlib.util.spec_from_file_location("three_pass", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.three_pass_scan


@pytest.mark.parametrize(
    ("name", "steps"), [*((n, s) for n in CASES if n != "two_days" for s in (4, STEPS)), ("two_days", STEPS)]
)
def test_three_passes_agree_with_the_reference(three_pass_scan, name, steps):
    case = CASES[name]
    reference = partial(selective_scan, return_last_state=True, backend="reference")
    truth = outputs_and_gradients(reference, widen(make_inputs(case)))
    ours = outputs_and_gradients(partial(three_pass_scan, steps=steps), make_inputs(case))
    assert_close(ours, truth, case.dtype)


def test_gradcheck(three_pass_scan):
    case = ScanCase(
        batch=1, lengths=(5, 0, 3), length=8, channels=4, groups=2, state=2, dtype=torch.float64, mask=True
    )
    inputs = make_inputs(case)
    names = [n for n, x in inputs.items() if isinstance(x, torch.Tensor) and x.is_floating_point()]

    def function(*leaves):
        return three_pass_scan(steps=2, **{**inputs, **dict(zip(names, leaves, strict=True))})

    assert torch.autograd.gradcheck(
        function, [inputs[n].clone().requires_grad_() for n in names], fast_mode=True
    )
