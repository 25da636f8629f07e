import numpy as np
import pytest
import torch

from models.assimilation.events import HOUR_US, Row
from models.assimilation.known import KnownRow, Query, Result, queried
from models.assimilation.lab_filter import LabFilters
from models.assimilation.parameters import FilterParameters
from models.errors import BadAssimilationInput
from models.testing.dense_posterior import dense_posterior
from models.testing.planted_labs import TYPICAL, random_parameters

HALF = HOUR_US // 2
EMPTY = KnownRow(results=(), reading_end_us=np.array([], np.int64), reading=np.array([]))


def random_known(rng):
    """Return results with delays, corrections and withdrawals, readings with gaps, and questions in any order."""
    results = []
    for sampled in np.unique(rng.integers(0, 48, rng.integers(0, 6))) * HOUR_US:
        known = int(sampled) + int(rng.integers(0, 12)) * HALF
        for _ in range(rng.integers(1, 4)):
            value = np.nan if rng.random() < 0.2 else rng.normal()
            results.append(Result(sampled_us=int(sampled), available_us=known, value=float(value)))
            known += int(rng.integers(1, 20)) * HALF
    end = np.unique(rng.integers(0, 96, rng.integers(0, 30))) * HALF
    reading = np.where(rng.random(len(end)) < 0.1, np.nan, rng.normal(size=len(end)))
    at = rng.integers(0, 120, 6) * HALF
    known = np.minimum(at, np.where(rng.random(6) < 0.3, 10 * HOUR_US, at - rng.integers(0, 2, 6)))
    order = rng.permutation(len(results))
    row = KnownRow(results=[results[i] for i in order], reading_end_us=end, reading=reading)
    return row, Query(at_us=at, known_us=known)


def stands(row, known_us):
    """Return the (draw, value) of every version that stands at a time, by definition."""
    draws = {result.sampled_us for result in row.results}
    for sampled in sorted(draws):
        known = [r for r in row.results if r.sampled_us == sampled and r.available_us <= known_us]
        if known and not np.isnan((last := max(known, key=lambda r: r.available_us)).value):
            yield sampled, last.value


def dense(parameters, row, at_us, known_us):
    draws = list(stands(row, known_us))
    seen = row.reading_end_us <= at_us
    made = Row.of(
        (np.array([t for t, _ in draws], np.int64), np.array([y for _, y in draws])),
        (row.reading_end_us[seen], row.reading[seen]),
    )
    hours = made.time_us / HOUR_US
    return dense_posterior(parameters, made, np.ones(len(hours), bool), at_us / HOUR_US, hours)


def answers(parameters, rows, queries):
    plan = queried(rows, queries)
    return plan.answers(parameters, LabFilters.of(parameters)(plan.events))


def test_late_corrected_and_withdrawn_results_equal_a_dense_gaussian_process_in_200_random_cases():
    rng = np.random.default_rng(0)
    worst, differ = 0.0, 0
    rows, queries = zip(*[random_known(rng) for _ in range(200)], strict=True)
    parameters = FilterParameters.joined([random_parameters(rng) for _ in rows])
    numbered = [
        KnownRow(results=r.results, reading_end_us=r.reading_end_us, reading=r.reading, lab=i)
        for i, r in enumerate(rows)
    ]
    plan = queried(numbered, queries)
    assert plan.events.follows is not None
    mean, variance = plan.answers(parameters, LabFilters.of(parameters)(plan.events))
    for k, (row, at_us, known_us) in enumerate(
        (i, a, b)
        for i, q in enumerate(queries)
        for a, b in zip(q.at_us.tolist(), q.known_us.tolist(), strict=True)
    ):
        own = parameters.take(torch.tensor([row]))
        expected = dense(own, rows[row], at_us, known_us)
        worst = max(worst, abs(expected[0] - float(mean[k])), abs(expected[1] - float(variance[k])))
        differ += dense(own, rows[row], at_us, at_us)[0] != expected[0]
    assert worst < 1e-8
    assert differ > 100  # what was known made a difference


def test_nothing_that_came_later_changes_a_bit():
    """Results not yet available, later versions of known ones and later readings: the estimate is as before."""
    rng = np.random.default_rng(1)
    changed = 0
    for _ in range(40):
        row, query = random_known(rng)
        mean, variance = answers(TYPICAL, [row], [query])
        for k in range(len(query.at_us)):
            at, known = int(query.at_us[k]), int(query.known_us[k])
            past = KnownRow(
                results=[r for r in row.results if r.available_us <= known],
                reading_end_us=row.reading_end_us[row.reading_end_us <= at],
                reading=row.reading[row.reading_end_us <= at],
            )
            alone = answers(TYPICAL, [past], [Query(at_us=query.at_us[[k]], known_us=query.known_us[[k]])])
            assert (float(mean[k]), float(variance[k])) == (float(alone[0][0]), float(alone[1][0]))
            changed += len(past.results) < len(row.results)
    assert changed > 50


def test_gradients_reach_readings_through_replayed_steps():
    row = KnownRow(
        results=[Result(sampled_us=2 * HOUR_US, available_us=5 * HOUR_US, value=1.0)],
        reading_end_us=np.arange(1, 9) * HOUR_US,
        reading=np.zeros(8),
    )
    plan = queried([row], [Query.anchored(np.array([4, 6]) * HOUR_US)])
    reading = torch.randn(1, 8, dtype=torch.float64).requires_grad_()
    filters = LabFilters(["sodium"])

    def answer(reading):
        return plan.answers(filters.parameters_by_lab, filters(plan.events.with_readings(reading)))[0]

    assert torch.autograd.gradcheck(answer, (reading,))
    (gradient,) = torch.autograd.grad(answer(reading)[0], reading)
    assert (gradient[0] != 0).tolist() == [True] * 4 + [False] * 4


def test_start_leaves_out_results_after_t0_and_anchored_uses_all_that_is_available():
    times = np.array([3, 9, 20]) * HOUR_US
    results = [
        Result(sampled_us=int(t), available_us=int(t), value=v)
        for t, v in zip(times, [1.0, -2.0, 0.5], strict=True)
    ]
    row = KnownRow(results=results, reading_end_us=EMPTY.reading_end_us, reading=EMPTY.reading)
    at = np.array([12]) * HOUR_US
    start, anchored = (
        answers(TYPICAL, [row], [q])[0] for q in (Query.start(at, 4 * HOUR_US), Query.anchored(at))
    )
    for known, got in ((4 * HOUR_US, start), (12 * HOUR_US, anchored)):
        assert float(got[0]) == pytest.approx(dense(TYPICAL, row, int(at[0]), known)[0], abs=1e-12)
    assert float(start[0]) > 0 > float(anchored[0])


def test_a_draw_is_estimated_from_what_was_available_strictly_before_it():
    row = KnownRow(
        results=[
            Result(sampled_us=0, available_us=HOUR_US, value=3.0),
            Result(sampled_us=HOUR_US, available_us=HOUR_US, value=1.0),
        ],
        reading_end_us=np.array([HOUR_US]),
        reading=np.array([0.5]),
    )
    asked = Query.draws(np.array([HOUR_US, HOUR_US + 1]))
    mean, _ = answers(TYPICAL, [row], [asked])
    assert float(mean[0]) == pytest.approx(dense(TYPICAL, row, HOUR_US, HOUR_US - 1)[0], abs=1e-12)
    assert float(mean[1]) == pytest.approx(dense(TYPICAL, row, HOUR_US + 1, HOUR_US)[0], abs=1e-12)
    assert Query.draws(asked.at_us, t0_us=7).known_us.tolist() == [7, 7]


def test_results_before_and_after_the_recording_and_no_recording_at_all():
    before = Result(sampled_us=-200 * HOUR_US, available_us=-199 * HOUR_US, value=1.0)
    after = Result(sampled_us=40 * HOUR_US, available_us=40 * HOUR_US, value=-1.0)
    row = KnownRow(results=[after, before], reading_end_us=np.arange(1, 5) * HOUR_US, reading=np.full(4, 0.3))
    silent = KnownRow(results=[after, before], reading_end_us=EMPTY.reading_end_us, reading=EMPTY.reading)
    query = Query.anchored(np.array([-300, 0, 4, 90]) * HOUR_US)
    for made in (row, silent):
        mean, variance = answers(TYPICAL, [made], [query])
        for k, at in enumerate(query.at_us.tolist()):
            expected = dense(TYPICAL, made, at, at)
            assert (float(mean[k]), float(variance[k])) == pytest.approx(expected, abs=1e-12)


def test_no_result_no_reading_and_no_question_are_defined():
    mean, variance = answers(TYPICAL, [EMPTY], [Query.anchored(np.array([5 * HOUR_US]))])
    assert float(mean[0]) == float(TYPICAL.draw_mean)
    assert float(variance[0]) == pytest.approx(0.85)
    mean, _ = answers(TYPICAL, [EMPTY], [Query.anchored(np.array([], np.int64))])
    assert mean.shape == (0,)
    assert queried([], []).events.kind.shape == (0, 0)


def test_a_result_sent_twice_counts_once_and_two_values_at_one_moment_are_refused():
    one = Result(sampled_us=0, available_us=HOUR_US, value=1.0)
    query = Query.anchored(np.array([2 * HOUR_US]))
    rows = [
        KnownRow(results=r, reading_end_us=EMPTY.reading_end_us, reading=EMPTY.reading)
        for r in ([one], [one, one])
    ]
    once, twice = (answers(TYPICAL, [row], [query])[0] for row in rows)
    assert float(once[0]) == float(twice[0])
    other = Result(sampled_us=0, available_us=HOUR_US, value=2.0)
    with pytest.raises(BadAssimilationInput, match="One draw has the values 1 and 2 from the same moment on"):
        answers(
            TYPICAL,
            [KnownRow(results=[one, other], reading_end_us=EMPTY.reading_end_us, reading=EMPTY.reading)],
            [query],
        )
    another_assay = Result(sampled_us=0, available_us=HOUR_US, value=2.0, noise=4.0, assay=1)
    both = KnownRow(results=[one, another_assay], reading_end_us=EMPTY.reading_end_us, reading=EMPTY.reading)
    assert float(answers(TYPICAL, [both], [query])[0][0]) > float(once[0])


def test_what_cannot_be_is_refused():
    with pytest.raises(BadAssimilationInput, match=r"available 2\.00 h before its draw"):
        Result(sampled_us=2 * HOUR_US, available_us=0, value=1.0)
    with pytest.raises(BadAssimilationInput, match="the value inf"):
        Result(sampled_us=0, available_us=0, value=np.inf)
    with pytest.raises(BadAssimilationInput, match="may not use results that came after it"):
        Query(at_us=np.array([0]), known_us=np.array([1]))
    with pytest.raises(BadAssimilationInput, match="Two readings of one lab end at the same time"):
        KnownRow(results=(), reading_end_us=np.array([1, 1]), reading=np.array([0.0, 1.0]))
    with pytest.raises(BadAssimilationInput, match="A reading is infinite"):
        KnownRow(results=(), reading_end_us=np.array([1]), reading=np.array([np.inf]))
