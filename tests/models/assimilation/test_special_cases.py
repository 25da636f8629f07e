"""What the filter is where its numbers say so: each answer is worked out on paper."""

import numpy as np
import pytest
import torch

from models.assimilation.events import HOUR_US, Row, pack_rows
from models.assimilation.lab_filter import LabFilters
from models.assimilation.parameters import FilterParameters
from models.assimilation.scan import filter_events

HOURS = np.array([0.0, 3.0, 9.5, 30.0])
VALUES = np.array([0.4, -1.2, 0.9, 2.0])
NONE = (np.array([], np.int64), np.array([]))


def before_each_draw(parameters, values=VALUES, hours=HOURS, readings=NONE):
    events = pack_rows([Row.of(((hours * HOUR_US).astype(np.int64), values), readings)])
    filtered = filter_events(parameters, events)
    drawn = events.drawn[:, 0]
    return filtered.mean[drawn, 0].numpy(), filtered.variance[drawn, 0].numpy()


@pytest.mark.parametrize("level_variance", [0.0, 0.3])
def test_exact_assay_no_drift_no_reading_carries_the_last_value_forward(level_variance):
    locf = FilterParameters.of(
        draw_noise=0.0, drift_hours=np.inf, level_variance=level_variance, draw_mean=0.2
    )
    mean, variance = before_each_draw(locf)
    np.testing.assert_allclose(mean, [0.2, *VALUES[:-1]], atol=1e-7)
    assert variance[0] == pytest.approx(0.5 + level_variance)
    assert variance[1:].max() < 1e-5


def test_exact_assay_of_a_drift_that_never_returns_is_locf_too():
    """A random walk: an infinite time constant at a steady gain of variance."""
    walk = FilterParameters.of(draw_noise=0.0, drift_hours=1e9, drift_variance=1e8, level_variance=0.0)
    mean, variance = before_each_draw(walk)
    np.testing.assert_allclose(mean[1:], VALUES[:-1], atol=1e-6)
    np.testing.assert_allclose(variance[1:], 2 * 0.1 * np.diff(HOURS), rtol=1e-6)


def test_exact_assay_without_level_is_decayed_locf():
    decayed = FilterParameters.of(draw_noise=0.0, drift_hours=10.0, level_variance=0.0, draw_mean=0.2)
    mean, _ = before_each_draw(decayed)
    expected = 0.2 + np.exp(-np.diff(HOURS) / 10.0) * (VALUES[:-1] - 0.2)
    np.testing.assert_allclose(mean[1:], expected, atol=1e-12)


def test_one_earlier_result_is_shrunk_locf():
    """a + b LOCF with b = level variance / (level variance + noise), at any age."""
    shrunk = FilterParameters.of(drift_variance=0.0, level_variance=0.3, draw_noise=0.1, draw_mean=0.2)
    mean, variance = before_each_draw(shrunk, VALUES[:2], HOURS[:2])
    assert mean[1] == pytest.approx(0.2 + 0.75 * (VALUES[0] - 0.2), abs=1e-12)
    assert variance[1] == pytest.approx(0.3 * 0.25, abs=1e-12)


def test_no_drift_is_the_patients_mean_shrunk_to_all_patients():
    level = FilterParameters.of(drift_variance=0.0, level_variance=0.3, draw_noise=0.1, draw_mean=0.2)
    mean, _ = before_each_draw(level)
    n = np.arange(1, 4)
    own = np.cumsum(VALUES)[:3] / n
    np.testing.assert_allclose(mean[1:], 0.2 + n * 0.3 / (n * 0.3 + 0.1) * (own - 0.2), atol=1e-12)
    wide, _ = before_each_draw(FilterParameters.of(drift_variance=0.0, level_variance=1e9, draw_noise=0.1))
    np.testing.assert_allclose(wide[1:], own, atol=1e-7)


def test_a_lab_that_never_differs_is_its_mean_even_where_everything_is_exact():
    constant = FilterParameters.of(drift_variance=0.0, level_variance=0.0, draw_mean=0.2)
    mean, variance = before_each_draw(constant)
    np.testing.assert_allclose(mean, 0.2)
    np.testing.assert_allclose(variance, 0.0)
    exact, _ = before_each_draw(FilterParameters.of(drift_variance=0.0, level_variance=0.0, draw_noise=0.0))
    assert np.isfinite(exact).all()


def test_no_draw_is_the_reading_calibrated():
    """One reading: regression of the lab on it."""
    p = dict(
        gain=0.5, drift_variance=0.4, level_variance=0.2, offset_variance=0.1, offset_drift_variance=0.05
    )
    parameters = FilterParameters.of(**p, reading_noise=0.15, draw_mean=0.2, reading_mean=-0.3)
    filters = LabFilters.of(parameters)
    state = filters.update(filters.start(), torch.tensor([0.9], dtype=torch.float64), draw=False)
    mean, variance, draw_variance = filters.estimate(state)
    slope = 0.5 * 0.6 / (0.25 * 0.6 + 0.1 + 0.05 + 0.15)
    assert float(mean) == pytest.approx(0.2 + slope * (0.9 + 0.3), abs=1e-12)
    assert float(variance) == pytest.approx(0.6 - slope * 0.5 * 0.6, abs=1e-12)
    assert float(draw_variance - variance) == pytest.approx(0.1, abs=1e-12)


def test_readings_that_say_nothing_of_the_lab_change_nothing():
    deaf = FilterParameters.of(gain=0.0)
    readings = (np.arange(40) * HOUR_US, np.random.default_rng(0).normal(size=40))
    for mine, alone in zip(before_each_draw(deaf, readings=readings), before_each_draw(deaf), strict=True):
        np.testing.assert_allclose(mine, alone, atol=1e-12)


def test_two_assays_of_one_draw_weigh_by_their_noise():
    parameters = FilterParameters.of(drift_variance=0.0, level_variance=0.3, draw_noise=0.1)
    row = Row.of(
        (np.array([0, 0, HOUR_US]), np.array([1.0, 2.0, np.nan])), NONE, draw_noise=np.array([1.0, 4.0, 1.0])
    )
    filtered = filter_events(parameters, pack_rows([row]))
    precision = np.array([1 / 0.3, 1 / 0.1, 1 / 0.4])
    assert float(filtered.mean[2, 0]) == pytest.approx(
        precision @ [0.0, 1.0, 2.0] / precision.sum(), abs=1e-12
    )
    assert float(filtered.variance[2, 0]) == pytest.approx(1 / precision.sum(), abs=1e-12)


def test_long_after_the_last_event_only_the_level_is_left():
    parameters = FilterParameters.of(drift_hours=5.0, drift_variance=0.5, level_variance=0.3, draw_noise=0.1)
    filters = LabFilters.of(parameters)
    state = filters.update(filters.start(), torch.tensor([1.0], dtype=torch.float64), draw=True)
    mean, variance, _ = filters.estimate(filters.predict(state, 1e6))
    assert float(mean) == pytest.approx(0.3 / 0.9, abs=1e-12)
    assert float(variance) == pytest.approx(0.5 + 0.3 - 0.3**2 / 0.9, abs=1e-12)
