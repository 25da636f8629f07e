import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.assimilation.carried import last_known
from models.assimilation.events import HOUR_US
from models.assimilation.known import KnownRow, Query, Result, queried
from models.assimilation.lab_filter import LabFilters
from models.assimilation.tracker import Arrival, LabTracker
from models.errors import BadAssimilationInput
from models.testing.planted_labs import TYPICAL

HALF = HOUR_US // 2
VALUES = st.one_of(st.just(float("nan")), st.floats(-3, 3))


@st.composite
def histories(draw):
    """Draw versions of results (delay, correction, withdrawal), readings, and an order in which they arrive."""
    results, sampled_times = [], draw(st.lists(st.integers(0, 20), max_size=4, unique=True))
    for sampled in sampled_times:
        known = sampled + draw(st.integers(0, 12))
        for _ in range(draw(st.integers(1, 3))):
            results.append(Result(sampled_us=sampled * HALF, available_us=known * HALF, value=draw(VALUES)))
            known += draw(st.integers(1, 8))
    ends = draw(st.lists(st.integers(0, 40), max_size=8, unique=True))
    readings = [(end * HALF, draw(VALUES)) for end in ends]
    arrivals = draw(st.permutations([*results, *readings]))
    asked = sorted(draw(st.lists(st.integers(0, len(arrivals)), min_size=1, max_size=4)))
    times = sorted(draw(st.lists(st.integers(0, 45), min_size=len(asked), max_size=len(asked))))
    return arrivals, list(zip(asked, times, strict=True))


def batch(arrived, at_us):
    """Return what the table of events says of everything that has arrived."""
    readings = [x for x in arrived if isinstance(x, tuple)]
    row = KnownRow(
        results=[x for x in arrived if isinstance(x, Result)],
        reading_end_us=np.array([t for t, _ in readings], np.int64),
        reading=np.array([w for _, w in readings], float),
    )
    plan = queried([row], [Query.anchored(np.array([at_us]))])
    mean, variance = plan.answers(TYPICAL, LabFilters.of(TYPICAL)(plan.events))
    return float(mean[0]), float(variance[0])


def give(tracker, item):
    return tracker.add_result(item) if isinstance(item, Result) else tracker.add_reading(*item)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(histories())
def test_any_order_of_arrival_gives_what_the_batch_filter_gives_of_what_is_known(history):
    arrivals, asked = history
    tracker, given_so_far = LabTracker(TYPICAL), 0
    for count, time in asked:
        for item in arrivals[given_so_far : max(given_so_far, count)]:
            give(tracker, item)
        given_so_far = max(given_so_far, count)
        estimate = tracker.estimate(time * HALF)
        expected = batch(arrivals[:given_so_far], time * HALF)
        assert (estimate.mean, estimate.variance) == pytest.approx(expected, rel=0, abs=1e-12)
        results = [item for item in arrivals[:given_so_far] if isinstance(item, Result)]
        last = last_known(results, Query.anchored(np.array([time * HALF])))
        assert [estimate.last, estimate.last_hours] == pytest.approx([x[0] for x in last], nan_ok=True)
    in_order = LabTracker(TYPICAL)
    for item in sorted(
        arrivals[:given_so_far], key=lambda x: x.available_us if isinstance(x, Result) else x[0]
    ):
        give(in_order, item)
    # To the bit: the same states, however they came about. By repr: the last result is NaN where there is none.
    assert repr(in_order.estimate(time * HALF)) == repr(estimate)


def test_a_step_costs_the_same_however_long_the_stay_is():
    tracker, costs = LabTracker(TYPICAL, keep_hours=6.0), []
    for step in range(1, 400):
        before = tracker.n_advances
        tracker.add_reading(step * HALF, 0.1)
        if step % 12 == 0:
            tracker.add_result(Result(sampled_us=step * HALF, available_us=step * HALF, value=0.5))
        tracker.estimate(step * HALF)
        costs.append(tracker.n_advances - before)
    assert max(costs) == 2
    assert tracker.n_kept < 16


def test_a_late_result_replays_the_steps_since_its_draw_and_no_more():
    tracker = LabTracker(TYPICAL)
    for step in range(1, 101):
        tracker.add_reading(step * HALF, 0.1)
    tracker.estimate(100 * HALF)
    before = tracker.n_advances
    assert (
        tracker.add_result(Result(sampled_us=94 * HALF, available_us=98 * HALF, value=1.0)) is Arrival.TAKEN
    )
    tracker.estimate(100 * HALF)
    assert tracker.n_advances - before == 7  # the draw and six readings


def test_a_result_shows_from_when_it_is_available_on():
    tracker = LabTracker(TYPICAL)
    assert tracker.add_result(Result(sampled_us=0, available_us=2 * HALF, value=2.0)) is Arrival.WAITING
    unseen = tracker.estimate(2 * HALF - 1)
    seen = tracker.estimate(2 * HALF)
    assert unseen.mean == pytest.approx(float(TYPICAL.draw_mean), abs=1e-12)
    assert seen.mean > 1
    assert seen.draw_variance == pytest.approx(seen.variance + 0.08)


def test_a_draws_own_estimate_does_not_see_it():
    tracker = LabTracker(TYPICAL)
    tracker.add_result(Result(sampled_us=HALF, available_us=HALF, value=2.0))
    assert tracker.estimate(HALF, known_us=HALF - 1).mean == pytest.approx(
        float(TYPICAL.draw_mean), abs=1e-12
    )


def test_what_is_older_than_the_states_that_are_kept_changes_nothing_and_is_counted():
    tracker = LabTracker(TYPICAL, keep_hours=10.0)
    first = Result(sampled_us=0, available_us=0, value=1.0)
    tracker.add_result(first)
    before = tracker.estimate(40 * HALF)  # it had arrived, and counts
    corrected = Result(sampled_us=0, available_us=30 * HALF, value=-1.0)
    assert tracker.add_result(corrected) is Arrival.TOO_LATE
    assert tracker.add_reading(5 * HALF, 3.0) is Arrival.TOO_LATE
    assert tracker.n_too_late == 2
    assert tracker.estimate(40 * HALF) == before
    assert before.mean == pytest.approx(batch([first], 40 * HALF)[0], abs=1e-12)


def test_the_last_result_outlives_the_states_that_are_kept():
    tracker = LabTracker(TYPICAL, keep_hours=10.0)
    for when, value in ((0, 1.0), (2, 2.0)):
        tracker.add_result(Result(sampled_us=when * HALF, available_us=when * HALF, value=value))
    assert tracker.estimate(80 * HALF).last == 2.0
    assert tracker.estimate(90 * HALF).last_hours == 44.0
    withdrawn = Result(sampled_us=2 * HALF, available_us=91 * HALF, value=float("nan"))
    assert tracker.add_result(withdrawn) is Arrival.TOO_LATE
    tracker.add_result(Result(sampled_us=88 * HALF, available_us=92 * HALF, value=3.0))
    assert [tracker.estimate(when * HALF).last for when in (91, 92)] == [2.0, 3.0]


def test_a_result_that_becomes_available_too_late_changes_nothing_and_is_counted():
    tracker = LabTracker(TYPICAL, keep_hours=10.0)
    tracker.add_result(Result(sampled_us=0, available_us=100 * HALF, value=1.0))
    tracker.estimate(50 * HALF)
    assert tracker.estimate(100 * HALF).mean == pytest.approx(float(TYPICAL.draw_mean), abs=1e-12)
    assert tracker.n_too_late == 1


def test_missing_readings_change_nothing():
    tracker, other = LabTracker(TYPICAL), LabTracker(TYPICAL)
    assert tracker.add_reading(HALF, float("nan")) is Arrival.MISSING
    assert tracker.estimate(2 * HALF) == other.estimate(2 * HALF)


def test_what_cannot_be_is_refused_and_changes_nothing():
    tracker = LabTracker(TYPICAL)
    tracker.add_result(Result(sampled_us=0, available_us=HALF, value=1.0))
    with pytest.raises(BadAssimilationInput, match="from the same moment on"):
        tracker.add_result(Result(sampled_us=0, available_us=HALF, value=2.0))
    with pytest.raises(BadAssimilationInput, match="A reading is inf"):
        tracker.add_reading(HALF, float("inf"))
    expected = tracker.estimate(2 * HALF)
    assert expected.mean == pytest.approx(
        batch([Result(sampled_us=0, available_us=HALF, value=1.0)], 2 * HALF)[0], abs=1e-12
    )
    with pytest.raises(BadAssimilationInput, match="ask in order of time"):
        tracker.estimate(HALF)
    with pytest.raises(BadAssimilationInput, match="may not use results that came after it"):
        tracker.estimate(2 * HALF, known_us=3 * HALF)
    with pytest.raises(BadAssimilationInput, match="of row 0 is nan"):
        LabTracker(TYPICAL.of(gain=float("nan")))
