"""Bounds of a pack: read from a GPU once for each tensor, on the host in every call, and made into tables once."""

import gc

import numpy as np
import pytest
import torch
import torch.utils.checkpoint

from kernels.selective_scan import causal_conv1d, remembered, selective_scan
from kernels.testing import ScanCase, make_inputs


class OnCard(torch.Tensor):
    """Stands for a tensor on a GPU, which this machine may lack."""

    device = torch.device("cuda")


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """What was read from the card."""
    read: list[list[int]] = []

    def copy(bounds: torch.Tensor) -> torch.Tensor:
        read.append(bounds.tolist())
        return torch.tensor(bounds.tolist())

    monkeypatch.setattr(remembered, "_read", copy)
    monkeypatch.setattr(remembered, "Tensor", OnCard)
    return read


def on_card(*values: int) -> torch.Tensor:
    return torch.tensor(values).as_subclass(OnCard)


def test_a_tensor_on_a_card_is_read_once_until_it_is_written_to(copies):
    bounds = on_card(0, 3, 8)
    assert remembered.on_the_host(bounds) is remembered.on_the_host(bounds)
    bounds[1] = 4
    assert remembered.on_the_host(bounds).tolist() == [0, 4, 8]
    bounds.add_(1)
    assert remembered.on_the_host(bounds).tolist() == [1, 5, 9]
    assert copies == [[0, 3, 8], [0, 4, 8], [1, 5, 9]]


def test_equal_tensors_on_a_card_are_not_the_same_and_none_is_kept_alive(copies):
    before = len(remembered._copies)
    for _ in range(5):
        remembered.on_the_host(on_card(0, 3))
    gc.collect()
    assert len(copies) == 5
    assert len(remembered._copies) == before


def test_nothing_is_kept_of_tensors_without_a_version(copies):
    with torch.inference_mode():
        bounds = on_card(0, 3)
        for _ in range(2):
            remembered.on_the_host(bounds)
    assert len(copies) == 2


def test_bounds_on_the_host_come_as_int64():
    wide = torch.tensor([0, 5, 8])
    assert remembered.on_the_host(wide) is wide
    assert remembered.on_the_host(wide.int()).dtype == torch.int64


def noting():
    """Return a maker, and the list of what it was asked for."""
    made = []

    def make(*asked):
        made.append(asked)
        return len(made)

    return make, made


def test_what_is_made_of_bounds_is_made_once_for_equal_values():
    (make, made), cpu = noting(), torch.device("cpu")
    for bounds, argument in (((0, 3), "a"), ((0, 3), "a"), ((0, 3), "b"), ((0, 4), "a"), ((0, 3), "a")):
        remembered.made_of(torch.tensor(bounds), make, cpu, argument)
    assert made == [((0, 3), cpu, "a"), ((0, 3), cpu, "b"), ((0, 4), cpu, "a")]


def test_what_is_made_of_bounds_is_made_for_each_stream_of_a_gpu(monkeypatch):
    """It goes there without a wait: on another stream it might be read before it is there."""
    (make, _), current = noting(), [1]
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda _index: current[0], raising=False)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    bounds, card, other = torch.tensor([0, 3]), torch.device("cuda", 0), torch.device("cuda", 1)
    found = []
    for current[0], device in ((1, card), (2, card), (1, card), (1, other), (2, card)):
        found.append(remembered.made_of(bounds, make, device))
    assert found == [1, 2, 1, 3, 2]


@pytest.mark.parametrize("kind", [np.int64, np.int32])
def test_bounds_that_numpy_writes_to_are_seen(kind):
    """PyTorch's count of versions does not move: a loader that fills one buffer again and again writes so."""
    inputs = make_inputs(ScanCase(batch=1, channels=3, length=8, lengths=(5, 3)))
    buffer = np.array([0, 5, 8], dtype=kind)
    for cut in (5, 2, 7):
        buffer[1] = cut
        found = selective_scan(**inputs | {"cu_seqlens": torch.from_numpy(buffer)}, backend="cpu")
        wanted = selective_scan(**inputs | {"cu_seqlens": torch.tensor([0, cut, 8])}, backend="reference")
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def packed(function, bounds, backend="cpu", device="cpu"):
    x = torch.randn(1, 4, 12, device=device, requires_grad=True)
    if function is causal_conv1d:
        return x, causal_conv1d(x, torch.ones(4, 3, device=device), cu_seqlens=bounds, backend=backend)
    B, A = torch.ones(1, 2, 12, device=device), -torch.ones(4, 2, device=device)
    return x, selective_scan(x, torch.full_like(x, 0.1), A, B, B, cu_seqlens=bounds, backend=backend)


@pytest.mark.parametrize("function", [causal_conv1d, selective_scan])
def test_bounds_written_between_the_passes_change_no_gradient(function):
    torch.manual_seed(0)
    bounds = torch.tensor([0, 5, 12])
    x, y = packed(function, bounds)
    (expected,) = torch.autograd.grad(y.square().sum(), x, retain_graph=True)
    bounds[1:] = 10_000  # past the end: read by the kernels, it ends the process
    (found,) = torch.autograd.grad(y.square().sum(), x)
    assert torch.equal(found, expected)


def test_a_checkpoint_whose_gradients_keep_a_graph_gives_the_plain_ones():
    torch.manual_seed(0)
    x = torch.randn(1, 4, 12, requires_grad=True)
    B = torch.ones(1, 2, 12)

    def scan(x):
        return selective_scan(x, torch.full((1, 4, 12), 0.1), -torch.ones(4, 2), B, B, backend="cpu")

    (expected,) = torch.autograd.grad(scan(x).square().sum(), x)
    y = torch.utils.checkpoint.checkpoint(scan, x, use_reentrant=False)
    (found,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    assert torch.equal(found, expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("function", [causal_conv1d, selective_scan])
def test_new_bounds_from_the_host_make_nobody_wait_for_the_card(function):
    def both(bounds):
        x, y = packed(function, torch.tensor(bounds), "triton", "cuda")
        return torch.autograd.grad(y.sum(), x)

    both([0, 5, 12])  # compiled
    torch.cuda.set_sync_debug_mode("error")
    try:
        both([0, 6, 12])
    finally:
        torch.cuda.set_sync_debug_mode("default")
