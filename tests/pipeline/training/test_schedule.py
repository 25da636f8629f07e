import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.schedule import learning_rate, micro_batches, plan_epoch, seed_of

RECIPE = {"peak": 1e-4, "start": 1e-6, "final": 1e-7, "warmup_epochs": 5.0}


def test_the_papers_rates_at_start_after_warm_up_halfway_and_at_the_end():
    assert learning_rate(0.0, 40, **RECIPE) == 1e-6
    assert learning_rate(2.5, 40, **RECIPE) == pytest.approx((1e-6 + 1e-4) / 2)
    assert learning_rate(5.0, 40, **RECIPE) == pytest.approx(1e-4)
    assert learning_rate(22.5, 40, **RECIPE) == pytest.approx((1e-4 + 1e-7) / 2)
    assert learning_rate(40.0, 40, **RECIPE) == pytest.approx(1e-7)


def test_a_short_run_warms_up_for_half_of_it_and_none_is_allowed():
    assert learning_rate(2.0, 4, **RECIPE) == pytest.approx(1e-4)
    assert learning_rate(0.0, 1, **RECIPE | {"warmup_epochs": 0.0}) == pytest.approx(1e-4)


@given(epoch=st.floats(0, 40), later=st.floats(0, 40))
def test_the_rate_rises_then_falls(epoch, later):
    low, high = sorted((epoch, later))
    rising = learning_rate(low, 40, **RECIPE) <= learning_rate(high, 40, **RECIPE) + 1e-18
    assert rising if high <= 5 else True
    assert not (low >= 5) or learning_rate(low, 40, **RECIPE) >= learning_rate(high, 40, **RECIPE)


@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=3),
    batch=st.integers(1, 12),
    epoch=st.integers(0, 5),
)
def test_every_group_gives_as_many_batches_and_the_smallest_is_passed_through(sizes, batch, epoch):
    plan = plan_epoch(sizes, batch, epoch, seed=3)
    used = [group for group, size in enumerate(sizes) if size]
    counts = Counter(b.group for b in plan)
    assert set(counts) == set(used)
    assert len(set(counts.values())) <= 1
    assert [b.number for b in plan] == list(range(len(plan)))
    for b in plan:
        assert len(b.items) == min(batch, sizes[b.group])
        assert all(0 <= item < sizes[b.group] for item in b.items)
    if used:
        passes = min(math.ceil(sizes[group] / batch) for group in used)
        assert counts[used[0]] == passes


def test_a_group_is_used_up_before_any_of_it_comes_again_over_epochs():
    seen = [
        i for epoch in range(4) for b in plan_epoch([8, 4], 4, epoch, seed=0) if b.group == 0 for i in b.items
    ]
    # The smaller group needs one batch an epoch, so the larger gives one of its two.
    assert len(seen) == 16
    assert Counter(seen[:8]) == Counter(range(8))
    assert Counter(seen[8:]) == Counter(range(8))
    assert seen[:8] != seen[8:]


def test_the_plan_depends_on_seed_and_epoch_alone():
    assert plan_epoch([9, 5], 3, 2, seed=1) == plan_epoch([9, 5], 3, 2, seed=1)
    assert plan_epoch([9, 5], 3, 2, seed=1) != plan_epoch([9, 5], 3, 2, seed=2)
    assert len(plan_epoch([9, 5], 3, 0, seed=1, batches_per_group=7)) == 14
    assert plan_epoch([0, 0], 3, 0, seed=1) == []


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=30), limit=st.integers(1, 60))
def test_micro_batches_hold_every_item_once_within_the_limit(lengths, limit):
    items = list(range(100, 100 + len(lengths)))
    runs = micro_batches(items, lengths, limit)
    assert sorted(i for run in runs for i in run) == items
    for run in runs:
        assert len(run) == 1 or sum(lengths[i - 100] for i in run) <= limit


def test_seeds_of_neighbouring_places_differ():
    places = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0,), (0, 0)]
    assert len({seed_of(*place) for place in places}) == len(places)
    assert all(0 <= seed_of(*place) < 2**63 for place in places)
    assert seed_of(5, 7) == seed_of(5, 7)
    assert np.iinfo(np.int64).max >= seed_of(2**40)
