"""Each metric against a case worked by hand; the vectorised sums against the plain definitions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.foundation import bootstrap
from pipeline.testing import metrics

TRUTH = np.array([4.0, 5.0, 6.0, 3.0])
ESTIMATE = np.array([4.5, 4.0, 6.0, 3.5])
PATIENT = np.array(["a", "a", "b", "b"])


def test_mae_by_hand():
    assert metrics.mean_absolute_error(ESTIMATE, TRUTH) == pytest.approx((0.5 + 1 + 0 + 0.5) / 4)


def test_me_is_estimate_minus_truth():
    assert metrics.mean_error(np.array([5.0, 5.0]), np.array([4.0, 4.5])) == pytest.approx(0.75)


def test_rmse_by_hand():
    assert metrics.root_mean_squared_error(ESTIMATE, TRUTH) == pytest.approx(math.sqrt(1.5 / 4))


def test_r_squared_by_hand():
    # mean 4.5, SST 0.25 + 0.25 + 2.25 + 2.25 = 5, SSE 1.5
    assert metrics.r_squared(ESTIMATE, TRUTH) == pytest.approx(1 - 1.5 / 5)


@pytest.mark.parametrize("truth", [[4.0], [4.1, 4.1, 4.1]], ids=["one draw", "equal truths"])
def test_r_squared_is_nan_when_undefined(truth):
    truth = np.array(truth)
    assert math.isnan(metrics.r_squared(truth + 0.3, truth))


def test_skill_by_hand():
    assert metrics.skill(0.3, 0.4) == pytest.approx(0.25)
    assert metrics.skill(0.5, 0.4) == pytest.approx(-0.25)
    assert math.isnan(metrics.skill(0.3, 0.0))
    assert math.isnan(metrics.skill(0.3, math.nan))


def test_patient_macro_by_hand():
    # a: errors 0.5, -1 and truths 4, 5; b: errors 0, 0.5 and truths 6, 3; b is drawn four times in all.
    truth = np.array([4.0, 5.0, 6.0, 3.0, 6.0, 3.0])
    estimate = np.array([4.5, 4.0, 6.0, 3.5, 6.0, 3.5])
    patient = np.array(["a", "a", "b", "b", "b", "b"])
    found = metrics.patient_macro(estimate, truth, patient)
    assert found["mae"] == pytest.approx((0.75 + 0.25) / 2)
    assert found["me"] == pytest.approx((-0.25 + 0.25) / 2)
    assert found["rmse"] == pytest.approx((math.sqrt(1.25 / 2) + math.sqrt(0.25 / 2)) / 2)
    # mean squared errors 0.625 and 0.125; variances 0.25 and 2.25
    assert found["r2"] == pytest.approx(1 - 0.75 / 2.5)


def test_patient_macro_r2_leaves_out_patients_whose_truth_never_moves():
    truth = np.array([4.0, 4.0, 6.0, 3.0, 9.0])
    estimate = np.array([9.0, 9.0, 6.0, 3.5, 1.0])
    found = metrics.patient_macro(estimate, truth, np.array(["a", "a", "b", "b", "c"]))
    assert found["r2"] == pytest.approx(1 - 0.125 / 2.25)


def test_no_draws_gives_nan():
    empty = np.array([])
    assert math.isnan(metrics.mean_absolute_error(empty, empty))
    assert math.isnan(metrics.r_squared(empty, empty))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 4), st.integers(10, 90), st.integers(-30, 30)), min_size=1, max_size=30
    ),
    level=st.sampled_from([0.0, 140.0, 1e5]),
)
def test_sums_agree_with_the_definitions(rows, level):
    patient = np.array([row[0] for row in rows])
    truth = np.array([level + row[1] / 10 for row in rows])
    estimate = truth + np.array([row[2] / 10 for row in rows])
    index, n_patients = bootstrap.index_patients(patient)
    sums = bootstrap.sum_by_patient(estimate, truth, index, n_patients)
    ones = np.ones((1, n_patients))
    pooled = {name: values[0] for name, values in bootstrap.pooled_metrics(sums, ones).items()}
    expected = {
        "mae": metrics.mean_absolute_error(estimate, truth),
        "me": metrics.mean_error(estimate, truth),
        "rmse": metrics.root_mean_squared_error(estimate, truth),
        "r2": metrics.r_squared(estimate, truth),
    }
    macro = {name: values[0] for name, values in bootstrap.patient_macro_metrics(sums, ones).items()}
    assert pooled == pytest.approx(expected, rel=1e-6, abs=1e-7, nan_ok=True)
    assert macro == pytest.approx(
        metrics.patient_macro(estimate, truth, patient), rel=1e-6, abs=1e-7, nan_ok=True
    )
