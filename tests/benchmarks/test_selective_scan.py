from functools import partial

import torch

from benchmarks import driver, peers
from benchmarks.selective_scan import channels_first, disagreement, time_major
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
