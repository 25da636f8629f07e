from functools import partial

import pytest
import torch

from benchmarks import assimilation
from benchmarks.assimilation import disagreement, events_of, plain_loop, statsmodels_filter


@pytest.mark.parametrize("peer", [plain_loop, statsmodels_filter])
def test_the_peers_compute_the_same(peer):
    assert disagreement(peer, events_of(3, 12.0)) == ""


def test_a_peer_that_computes_something_else_is_not_timed():
    def wrong(events):
        mean, variance = plain_loop(events)
        return mean, 1.01 * variance

    assert disagreement(wrong, events_of(2, 6.0)) == "not measured: differs from ours in variance"


def test_both_gradients_are_the_same():
    events = events_of(3, 12.0)
    torch.testing.assert_close(
        assimilation.gradient(events), assimilation.gradient_by_autograd(events), rtol=1e-9, atol=1e-9
    )


def test_every_case_has_ours_first():
    small = [
        partial(assimilation._filtering, 2, 6.0),
        partial(assimilation._gradients, 2, 6.0),
        assimilation._bedside,
    ]
    for providers in small:
        made = providers()
        assert made[0].name == "ours"
        assert all(provider.check() == "" for provider in made)
