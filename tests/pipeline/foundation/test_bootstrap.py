"""The bootstrap draws patients, not draws; Holm and p-values against hand-worked cases."""

import math

import numpy as np
import pytest

from pipeline.foundation import bootstrap


def test_first_row_is_the_estimate_and_every_replicate_draws_as_many_patients():
    weights = bootstrap.replicate_weights(7, 50, seed=3)
    assert weights.shape == (51, 7)
    assert (weights[0] == 1).all()
    assert (weights.sum(axis=1) == 7).all()
    assert (weights[1:] != 1).any()


def test_the_same_seed_draws_the_same_patients():
    assert np.array_equal(
        bootstrap.replicate_weights(5, 9, seed=1), bootstrap.replicate_weights(5, 9, seed=1)
    )
    assert not np.array_equal(
        bootstrap.replicate_weights(5, 9, seed=1), bootstrap.replicate_weights(5, 9, seed=2)
    )


def test_a_replicate_repeats_all_draws_of_its_patients():
    estimate, truth = np.array([1.0, 2.0, 7.0, 5.0]), np.array([1.0, 1.0, 4.0, 6.0])
    sums = bootstrap.sum_by_patient(estimate, truth, np.array([0, 0, 1, 2]), 3)
    weights = np.array([[2.0, 0.0, 1.0]])
    rows = [0, 1, 0, 1, 3]
    found = bootstrap.pooled_metrics(sums, weights)
    error = estimate[rows] - truth[rows]
    assert found["mae"][0] == pytest.approx(np.abs(error).mean())
    assert found["r2"][0] == pytest.approx(
        1 - (error**2).sum() / ((truth[rows] - truth[rows].mean()) ** 2).sum()
    )


def test_interval_ignores_row_zero_and_refuses_mostly_undefined_replicates():
    values = np.array([99.0, *np.linspace(0, 1, 101)])
    assert bootstrap.percentile_interval(values, 0.9) == pytest.approx((0.05, 0.95))
    mostly_nan = np.array([1.0, math.nan, math.nan, 2.0])
    assert all(math.isnan(bound) for bound in bootstrap.percentile_interval(mostly_nan, 0.9))


def test_two_sided_p_by_hand():
    # 9 replicates, one of them at or below 0: 2 (1 + 1) / (9 + 1)
    assert bootstrap.two_sided_p(np.array([5.0, -1, 1, 2, 3, 4, 5, 6, 7, 8])) == pytest.approx(0.4)
    assert bootstrap.two_sided_p(np.zeros(20)) == 1.0
    assert math.isnan(bootstrap.two_sided_p(np.full(5, math.nan)))


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, never falling
    assert bootstrap.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert bootstrap.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert bootstrap.holm([0.02, math.nan, 0.5]) == pytest.approx([0.04, math.nan, 0.5], nan_ok=True)
    assert bootstrap.holm([]) == []


def test_a_mean_over_seeds_is_the_plain_mean_in_row_zero_and_linear():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 201))
    assert bootstrap.mean_over_seeds(a, 0)[0] == pytest.approx(a[:, 0].mean())
    difference = bootstrap.mean_over_seeds(a, 0) - bootstrap.mean_over_seeds(b, 0)
    assert difference == pytest.approx(bootstrap.mean_over_seeds(a - b, 0))
    assert np.array_equal(bootstrap.mean_over_seeds(a[:1], 0), a[0])


def test_a_mean_over_seeds_spreads_as_the_mean_of_runs_does():
    """Runs that differ by the luck of training alone: the variance of their mean is s^2 / S, known exactly."""
    runs = np.array([1.0, 2.0, 6.0])  # variance about the mean, with S - 1: 7
    found = bootstrap.mean_over_seeds(np.repeat(runs[:, None], 40_001, axis=1), 1)
    assert found[0] == pytest.approx(3.0)
    assert found[1:].mean() == pytest.approx(3.0, abs=0.03)
    assert found[1:].var() == pytest.approx(7 / 3, rel=0.03)
    equal = bootstrap.mean_over_seeds(np.full((3, 50), 2.5), 1)
    assert equal == pytest.approx(2.5)


def shifted(mean, seed, replicates=2000):
    draws = np.random.default_rng(seed).normal(size=replicates)
    return np.append(mean, mean + (draws - draws.mean()))


def test_simultaneous_intervals_leave_out_0_exactly_where_holm_rejects():
    rng = np.random.default_rng(0)
    for trial in range(50):
        values = [shifted(mean, 100 * trial + i) for i, mean in enumerate(rng.uniform(-4, 4, size=8))]
        for found in bootstrap.simultaneous(values, 0.95):
            assert (found.lower > 0 or found.upper < 0) == (found.p <= 0.05)


def test_simultaneous_intervals_go_down_holms_steps():
    values = [shifted(9.0, 0), shifted(0.1, 1), shifted(0.0, 2)]
    sure, *others = bootstrap.simultaneous(values, 0.94)
    ordered = np.sort(values[0][1:])
    place = int(0.01 * 2001)  # a third of 0.06, half of it on either side
    assert (sure.lower, sure.upper) == (ordered[place - 1], ordered[-place])
    for found, value in zip(others, values[1:], strict=True):
        ordered, place = np.sort(value[1:]), int(0.015 * 2001)  # the level of the first that is not rejected
        assert (found.lower, found.upper) == (ordered[place - 1], ordered[-place])


def test_one_comparison_has_its_plain_interval():
    (found,) = bootstrap.simultaneous([shifted(0.3, 5)], 0.95)
    assert (found.lower, found.upper) == pytest.approx(
        bootstrap.percentile_interval(shifted(0.3, 5), 0.95), abs=0.02
    )


def test_what_is_not_estimable_is_no_test_and_too_few_replicates_bound_nothing():
    unknown = np.full(2001, np.nan)
    with_it, without = (bootstrap.simultaneous([shifted(0.3, 5), *more], 0.95) for more in ([unknown], []))
    assert with_it[0] == without[0]
    assert all(math.isnan(x) for x in with_it[1])
    few = bootstrap.simultaneous([shifted(0.3, i, replicates=50) for i in range(10)], 0.95)
    assert all(math.isnan(found.lower) and math.isnan(found.upper) for found in few)
