from functools import partial

import torch

from benchmarks import driver, peers
from benchmarks.selective_scan import (
    INITIAL,
    channels_first,
    disagreement,
    forward_backward,
    gpu_cases,
    in_their_layout,
    make,
    ours,
    time_major,
)  # fmt: skip
from kernels.selective_scan import selective_scan


def test_a_peer_that_computes_the_same_passes():
    assert disagreement(partial(channels_first, partial(selective_scan, backend="torch")), "cpu") == ""
    assert disagreement(partial(time_major, peers.associative_scan()), "cpu") == ""


def test_a_peer_that_computes_something_else_is_not_timed():
    def slower(u, delta, *rest):
        return selective_scan(u, 1.01 * delta, *rest)

    reason = disagreement(partial(channels_first, slower), "cpu")
    assert reason.startswith("not measured: differs from the reference in y ")
    assert "dA" in reason


def test_a_peer_that_fails_its_check_is_not_run():
    def never():
        raise AssertionError

    made = [driver.Provider(name="ours"), driver.Provider(name="peer", run=never, check=lambda: "differs")]
    case = driver.Case(name="case", providers=lambda: made)
    peaks = []
    _, peer = driver.run_case(case, 1, lambda _case, provider: peaks.append(provider.name))
    assert (peer.note, peer.rounds) == ("differs", 0)
    assert peaks == ["ours"]


def test_a_peer_for_which_the_gpu_is_too_small_costs_no_other_figures():
    def too_large():
        raise torch.OutOfMemoryError

    made = [driver.Provider(name="ours"), driver.Provider(name="peer", run=too_large)]
    case = driver.Case(name="case", providers=lambda: made)
    ours, peer = driver.run_case(case, 3, lambda *_: None)
    assert ours.rounds == 3
    assert peer.seconds is None
    assert "memory" in peer.note


def test_the_gpu_table_has_every_size_number_gate_direction_and_clock():
    names = [case.name for case in gpu_cases()]
    assert len(set(names)) == len(names) == 3 * 2 * 2 * 2 * 2 * 2 * 2
    assert "forward+backward B64 L20160 D1024, bfloat16, gated, device" in names


def test_gated_operands_in_either_layout_give_the_same_and_a_gradient_of_the_gate():
    x, peer = (
        make(2, 5, 4, "cpu", gated=True),
        partial(channels_first, partial(selective_scan, backend="torch")),
    )
    dy, without_state = (
        torch.randn(2, 5, 4),
        [torch.zeros_like(t) if i == INITIAL else t for i, t in enumerate(x)],
    )
    for theirs in (x, in_their_layout(x)):
        outputs, gradients = forward_backward(lambda *t, scan=peer: (scan(*t),), theirs, dy)
        assert len(gradients) == 7
        (y,), whole = forward_backward(lambda *t: (ours("torch", *t)[0],), without_state, dy)
        torch.testing.assert_close(outputs[0], y)
        torch.testing.assert_close(gradients, whole)
    assert in_their_layout(x)[0].mT.is_contiguous()


def test_a_case_on_the_device_measures_no_memory(monkeypatch):
    monkeypatch.setattr(driver, "device_seconds", lambda run: run() or 0.5)
    made = [driver.Provider(name="ours")]
    case = driver.Case(name="case", providers=lambda: made, device=True)
    (row,) = driver.run_case(case, 2, lambda *_: 1 / 0)
    assert (row.seconds, row.peak_mb) == (0.5, None)
