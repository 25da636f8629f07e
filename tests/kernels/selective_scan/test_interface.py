"""Bad input, streaming, processes and compilers."""

import logging
import os
import subprocess
import sys
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.selective_scan import backends, selective_scan, selective_state_step
from kernels.selective_scan.cpu import build as cpu_build
from kernels.testing import ScanCase, make_inputs

CASE = ScanCase(channels=6, length=8, groups=2, mask=True)


def run(**changes):
    return selective_scan(**{**make_inputs(CASE), **changes}, return_last_state=True)


BAD = {
    "u": [torch.zeros(2, 6), torch.zeros(2, 6, 8, dtype=torch.int64), torch.zeros(2, 0, 8), "u"],
    "delta": [torch.zeros(2, 6, 9), torch.zeros(2, 6, 8, dtype=torch.float64), torch.zeros(2, 6, 8, device="meta")],
    "z": [torch.zeros(2, 5, 8), torch.zeros(2, 6, 8, dtype=torch.bfloat16)],
    "A": [
        torch.zeros(6), torch.zeros(5, 4), torch.zeros(6, 0), torch.zeros(6, 4, dtype=torch.complex64),
        torch.zeros(6, 4, dtype=torch.float64), torch.full((6, 4), float("nan")), torch.full((6, 4), -float("inf")),
    ],
    "B": [torch.zeros(6, 4), torch.zeros(2, 4, 7), torch.zeros(2, 4, 4, 8), torch.zeros(2, 2, 3, 8)],
    "C": [torch.zeros(6, 4), torch.zeros(2, 1, 4, 8), torch.zeros(2, 2, 4, 8, dtype=torch.float16)],
    "D": [torch.zeros(5), torch.zeros(6, dtype=torch.int32)],
    "delta_bias": [torch.zeros(6, 1)],
    "initial_state": [torch.zeros(1, 6, 4), torch.zeros(2, 6, 4, dtype=torch.bfloat16)],
    "step_mask": [torch.zeros(2, 8), torch.zeros(2, 7, dtype=torch.bool)],
    "cu_seqlens": [torch.tensor([0, 8]), torch.tensor([0.0, 8.0])],
    "backend": ["fast", "triton"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, v) for name, values in BAD.items() for v in values])
def test_bad_input_is_named(name, value):
    with pytest.raises(ValueError, match=rf"^{name} has .*; it needs "):
        run(**{name: value})


@pytest.mark.parametrize("bounds", [[0, 5], [1, 8], [0, 6, 5, 8], [0, 9]])
@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
def test_lengths_that_do_not_add_up(bounds, backend):
    inputs = make_inputs(ScanCase(batch=1, length=8, initial=False))
    with pytest.raises(ValueError, match=r"^cu_seqlens has .*; it needs "):
        selective_scan(**inputs, cu_seqlens=torch.tensor(bounds), backend=backend)


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
@settings(deadline=None, max_examples=15)
@given(length=st.integers(2, 80), share=st.floats(0, 1))
def test_halves_with_carried_state_equal_the_whole(backend, length, share):
    inputs = make_inputs(ScanCase(length=length, channels=3, mask=True, dtype=torch.float64))
    leaves = {n: inputs[n].clone().requires_grad_() for n in ("u", "delta", "B", "C", "A", "initial_state")}
    whole_in = {**inputs, **leaves}
    cut = int(share * length)

    def half(where, state):
        timed = {
            n: x[..., where] for n, x in whole_in.items() if torch.is_tensor(x) and x.shape[-1] == length
        }
        kept = {**whole_in, **timed, "A": whole_in["A"], "D": inputs["D"], "delta_bias": inputs["delta_bias"]}
        return selective_scan(**{**kept, "initial_state": state}, return_last_state=True, backend=backend)

    y, last = selective_scan(**whole_in, return_last_state=True, backend=backend)
    first, middle = half(slice(0, cut), leaves["initial_state"])
    second, end = half(slice(cut, length), middle)
    joined = torch.cat([first, second], -1)
    torch.testing.assert_close(joined, y)
    torch.testing.assert_close(end, last)
    options = {"allow_unused": True, "materialize_grads": True}
    attached = torch.autograd.grad(joined.square().sum() + end.sum(), list(leaves.values()), **options)
    whole = torch.autograd.grad(y.square().sum() + last.sum(), list(leaves.values()), **options)
    torch.testing.assert_close(attached, whole)
    second, end = half(slice(cut, length), middle.detach())
    truncated = torch.autograd.grad(
        second.square().sum() + end.sum(), [leaves["u"], leaves["initial_state"]], **options
    )
    assert not truncated[0][..., :cut].any()
    assert not truncated[1].any()


def test_one_step_at_a_time_equals_the_batch_result():
    inputs = make_inputs(CASE)
    y, last = selective_scan(**inputs, return_last_state=True)
    state = inputs["initial_state"]
    for t in range(CASE.length):
        step = {n: inputs[n][..., t] for n in ("u", "delta", "B", "C", "z", "step_mask")}
        rest = {n: inputs[n] for n in ("A", "D", "delta_bias", "delta_softplus")}
        out, state = selective_state_step(state, **step, **rest)
        torch.testing.assert_close(out, y[..., t], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state, last, rtol=1e-5, atol=1e-6)


@pytest.fixture
def no_library(monkeypatch):
    """Forget what was built, and pick backends afresh."""
    monkeypatch.setattr(cpu_build, "_libraries", {})
    backends._pick.cache_clear()
    yield
    backends._pick.cache_clear()


def test_missing_compiler_means_torch_and_one_warning(no_library, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.warns(RuntimeWarning, match=r"(?s)slow `torch` backend.*no C\+\+ compiler.*install"):
        y = run()[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(run()[0], y)


def test_auto_says_its_choice_once(no_library, caplog):
    with caplog.at_level(logging.INFO, logger="kernels.selective_scan.backends"):
        run()
        run()
    assert [record.message for record in caplog.records] == ["selective scan on cpu: backend 'cpu'"]


def test_torch_compile_traces_through():
    inputs = make_inputs(CASE)
    leaf = inputs.pop("u").requires_grad_()

    def total(u):
        y, last_state = selective_scan(u, **inputs, return_last_state=True, backend="cpu")
        return y.sum() + last_state.sum()

    compiled = torch.compile(total, backend="aot_eager", fullgraph=True)
    eager = torch.autograd.grad(total(leaf), leaf)[0]
    torch.testing.assert_close(torch.autograd.grad(compiled(leaf), leaf)[0], eager)


def test_import_needs_neither_triton_nor_a_compiler(tmp_path):
    """And starts neither, where they are there."""
    code = "import sys; sys.modules['triton'] = None; from kernels.selective_scan import selective_scan as s; print(s)"
    no_compiler = {"PATH": "", "CXX": "no-such-compiler", "XDG_CACHE_HOME": str(tmp_path)}
    for own in (no_compiler, {"XDG_CACHE_HOME": str(tmp_path)}):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env=os.environ | own, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.startswith("<function selective_scan")
    assert list(tmp_path.iterdir()) == [], "nothing was built"
