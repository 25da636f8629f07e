"""Every backend against the float64 reference: output, last state and every gradient."""

from dataclasses import replace
from functools import cache, partial

import pytest
import torch

from kernels.selective_scan import selective_scan
from kernels.selective_scan.cpu import build as cpu_build
from kernels.testing import (
    ScanCase,
    assert_close,
    assert_softplus_is_right,
    make_inputs,
    outputs_and_gradients,
    widen,
)

CASES = {
    "plain": ScanCase(gate=False, skip=False, bias=False, initial=False),
    "everything": ScanCase(channels=33, length=70, state=16, mask=True),
    "one_step": ScanCase(length=1, channels=3),
    "no_steps": ScanCase(length=0),
    "length_63": ScanCase(length=63, channels=16),
    "length_1000": ScanCase(batch=1, length=1000, channels=20, state=3),
    "one_channel_one_state": ScanCase(channels=1, state=1, length=40),
    "state_64": ScanCase(channels=9, state=64, length=37),
    "state_7_odd_channels": ScanCase(channels=50, state=7, length=35),
    "groups": ScanCase(channels=36, groups=3, length=40, mask=True),
    "blocks": ScanCase(channels=600, length=34, batch=1, state=5),
    "channels_first": ScanCase(channels=19, length=40, channels_last=False),
    "no_D": ScanCase(skip=False, length=40),
    "no_z": ScanCase(gate=False, length=40),
    "no_bias": ScanCase(bias=False, length=40),
    "pack": ScanCase(batch=1, lengths=(5, 0, 33, 1, 64, 0), length=103, channels=18, mask=True),
    "pack_of_empty": ScanCase(batch=1, lengths=(0, 0), length=0),
    "pack_groups_bf16": ScanCase(
        batch=1, lengths=(40, 3), length=43, channels=8, groups=2, dtype=torch.bfloat16
    ),
    "bf16": ScanCase(length=63, channels=24, state=16, dtype=torch.bfloat16, mask=True),
    "fp16": ScanCase(length=63, channels=24, state=16, dtype=torch.float16, mask=True),
    "float64": ScanCase(length=63, channels=24, state=9, dtype=torch.float64, mask=True),
    "two_days": ScanCase(batch=1, length=20160, channels=3, state=2),
}


@cache
def truth(name):
    inputs = widen(make_inputs(CASES[name]))
    return outputs_and_gradients(scan("reference"), inputs)


def scan(backend):
    return partial(selective_scan, return_last_state=True, backend=backend)


def ours(case, backend):
    return outputs_and_gradients(scan(backend), make_inputs(case))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
def test_softplus_is_right_over_its_whole_range(backend, dtype):
    assert_softplus_is_right("cpu", backend, dtype)


@pytest.mark.parametrize("name", [name for name in CASES if name != "two_days"])
@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
def test_backend_agrees_with_float64_reference(backend, name):
    assert_close(ours(CASES[name], backend), truth(name), CASES[name].dtype)


@pytest.mark.parametrize("level", ["avx512", "avx2", "plain"])
@pytest.mark.parametrize("name", ["everything", "pack", "groups", "state_64", "bf16", "fp16", "float64"])
def test_every_build_agrees(level, name, monkeypatch):
    levels = list(cpu_build.LEVELS)
    if levels.index(level) < levels.index(cpu_build.best_level()):
        pytest.skip(f"this CPU has no {level}")
    monkeypatch.setattr(cpu_build, "best_level", lambda: level)
    assert_close(ours(CASES[name], "cpu"), truth(name), CASES[name].dtype)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_two_days_of_windows(backend):
    case = CASES["two_days"]
    assert_close(ours(case, backend), truth("two_days"), case.dtype)


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
@pytest.mark.parametrize("case", [
    ScanCase(batch=2, channels=3, length=5, state=2, mask=True, dtype=torch.float64),
    ScanCase(batch=1, channels=4, length=36, state=3, groups=2, lengths=(33, 0, 3), dtype=torch.float64),
], ids=["batch", "pack"])  # fmt: skip
def test_gradcheck(backend, case):
    inputs = make_inputs(case)
    names = [n for n, x in inputs.items() if isinstance(x, torch.Tensor) and x.is_floating_point()]
    leaves = [inputs[name].clone().requires_grad_() for name in names]

    def function(*tensors):
        return scan(backend)(**{**inputs, **dict(zip(names, tensors, strict=True))})

    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
def test_masked_sequence_keeps_its_state(backend):
    inputs = make_inputs(ScanCase(length=40))
    inputs["step_mask"] = torch.zeros(2, 40, dtype=torch.bool)
    result = outputs_and_gradients(scan(backend), inputs)
    assert torch.equal(result["last_state"], inputs["initial_state"])
    assert not result["d_delta"].any()
    assert not result["d_A"].any()
    assert not result["d_B"].any()


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
def test_later_steps_change_no_earlier_bit(backend):
    inputs = make_inputs(ScanCase(channels=20, length=70, mask=True))
    later = {n: x.clone() if isinstance(x, torch.Tensor) else x for n, x in inputs.items()}
    for name in ("u", "delta", "B", "C", "z"):
        later[name][..., 41:] = torch.randn(later[name][..., 41:].shape)
    before, after = scan(backend)(**inputs)[0], scan(backend)(**later)[0]
    assert torch.equal(before[..., :41], after[..., :41])
    assert not torch.equal(before, after)


def test_strided_views_are_read_in_place():
    case = ScanCase(channels=20, length=40)
    inputs = make_inputs(case)
    wide = torch.randn(2, 40, 2 * 20 + 8, generator=torch.Generator().manual_seed(3))
    views = {**inputs, "u": wide[..., :20].mT, "z": wide[..., 20:40].mT, "B": wide[..., 40:44].mT,
             "C": wide[..., 44:48].mT}  # fmt: skip
    copies = {n: x.contiguous() if isinstance(x, torch.Tensor) else x for n, x in views.items()}
    y, state = scan("cpu")(**views)
    y_copied, state_copied = scan("cpu")(**copies)
    assert torch.equal(y, y_copied)
    assert torch.equal(state, state_copied)


@pytest.mark.parametrize("threads", [1, 2])
def test_gradients_repeat_bit_for_bit(threads):
    case = ScanCase(batch=2, channels=600, length=90, state=16, mask=True)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        first, second = ours(case, "cpu"), ours(case, "cpu")
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_groups_equal_separate_scans():
    case = ScanCase(channels=8, groups=2, length=40)
    inputs = make_inputs(case)
    whole, _ = scan("cpu")(**inputs)
    for g in range(2):
        part = dict(inputs)
        for name in ("u", "delta", "z"):
            part[name] = inputs[name][:, 4 * g : 4 * g + 4]
        for name in ("A", "D", "delta_bias"):
            part[name] = inputs[name][4 * g : 4 * g + 4]
        part["initial_state"] = inputs["initial_state"][:, 4 * g : 4 * g + 4]
        part["B"], part["C"] = inputs["B"][:, g], inputs["C"][:, g]
        torch.testing.assert_close(scan("cpu")(**part)[0], whole[:, 4 * g : 4 * g + 4])


@pytest.mark.parametrize(
    "name", ["plain", "everything", "groups", "no_D", "no_z", "no_bias", "state_64", "length_63"]
)
def test_mamba_ssm_reference_agrees(name):
    """Its outputs and the gradients of all its inputs, through both outputs; it has no mask and no initial state."""
    peer = pytest.importorskip("benchmarks.peers").mamba_ssm_reference()
    if peer is None:
        pytest.skip("mamba-ssm is not installed")
    case = replace(CASES[name], initial=False, mask=False)
    theirs = outputs_and_gradients(partial(peer, return_last_state=True), make_inputs(case))
    assert_close(ours(case, "cpu"), theirs, case.dtype)
