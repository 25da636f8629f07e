"""Bounds of a pack: read from a GPU once for each tensor, on the host in every call, and made into tables once."""

import gc
from types import SimpleNamespace

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


@pytest.fixture
def card(monkeypatch):
    """Return what stands for a card: its current stream, and whether that is being captured."""
    state = SimpleNamespace(stream=0, capturing=False, device=torch.device("cuda", 0))
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda _index: state.stream, raising=False)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: state.capturing)
    monkeypatch.setattr(remembered, "_captured", [])
    return state


def test_what_is_made_of_bounds_is_made_for_each_stream_of_a_gpu(card):
    """It goes there without a wait: on another stream it might be read before it is there."""
    (make, _), bounds, found = noting(), torch.tensor([0, 3]), []
    other = torch.device("cuda", 1)
    for stream, device in (
        (0, card.device),
        (7, card.device),
        (0, card.device),
        (0, other),
        (7, card.device),
    ):
        card.stream = stream
        found.append(remembered.made_of(bounds, make, device))
    assert found == [1, 2, 1, 3, 2]


def test_a_capture_takes_what_was_made_on_another_stream_and_keeps_it(card):
    """A graph is captured on a stream of its own, and what is made within a capture is there after a replay only."""
    (make, made), bounds = noting(), torch.tensor([0, 3])
    remembered.made_of(bounds, make, card.device)
    card.stream, card.capturing = 7, True
    assert remembered.made_of(bounds, make, card.device) == 1
    assert len(made) == 1
    assert remembered._captured == [1]
    with pytest.raises(
        ValueError, match=r"^cu_seqlens has bounds that no such call had before; .* it needs those of"
    ):
        remembered.made_of(torch.tensor([0, 4]), make, card.device)
    card.capturing = False
    assert remembered.made_of(torch.tensor([0, 4]), make, card.device) == 2


def test_what_a_graph_captures_of_rows_is_never_dropped(card):
    table = torch.zeros(2)
    assert remembered.kept_for_capture(card.device, table) is table
    card.capturing = True
    remembered.kept_for_capture(torch.device("cpu"), table)
    assert remembered._captured == []
    remembered.kept_for_capture(card.device, table)
    assert remembered._captured[0] is table


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


def packed(function, bounds, backend="cpu", device="cpu", x=None):
    x = torch.randn(1, 4, 12, device=device, requires_grad=True) if x is None else x
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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("function", [causal_conv1d, selective_scan])
@pytest.mark.parametrize("bounds", [[0, 5, 12], None])
def test_both_are_captured_in_a_cuda_graph(function, bounds):
    bounds = None if bounds is None else torch.tensor(bounds)
    x, _ = packed(function, bounds, "triton", "cuda")

    def both():
        return torch.autograd.grad(packed(function, bounds, "triton", "cuda", x)[1].square().sum(), x)[0]

    expected, graph = both(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = both()
    graph.replay()
    assert torch.equal(found, expected)
