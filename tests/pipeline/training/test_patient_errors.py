"""Errors that hang together within a patient: their covariance, and a line that knows it."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.patient_errors import ErrorCovariance, fit_error_covariance, whitened
from pipeline.training.ridge import folds, ridge
from pipeline.training.waveform_line import PENALTIES, _slopes, generalised_line

TRUE = ErrorCovariance(noise=0.1, drift=0.2, level=0.4, drift_hours=5.0)


def planted(
    patients: int, draws: int, features: int = 6, seed: int = 0, covariance: ErrorCovariance = TRUE
) -> tuple[np.ndarray, ...]:
    """Return features, targets, hours and patients; the weights are 1 on the first two features."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(2, 2 * draws, patients)
    patient = np.repeat(np.arange(patients), counts)
    hours = np.concatenate([np.sort(rng.uniform(0, 72, n)) for n in counts])
    own = rng.normal(size=(patients, features))[patient]  # features differ between patients too
    x = own + rng.normal(size=(len(patient), features))
    error = np.concatenate([
        rng.multivariate_normal(np.zeros(n), covariance.matrix(hours[patient == k]))
        for k, n in enumerate(counts)
    ])  # fmt: skip
    return x, x[:, 0] + x[:, 1] + error, hours, patient


def test_the_covariance_of_planted_errors_is_found() -> None:
    x, y, hours, patient = planted(300, 20)
    found = fit_error_covariance(y - x[:, 0] - x[:, 1], hours, patient)
    assert found.noise + found.drift + found.level == pytest.approx(1.0, rel=0.1)  # shares of the mean square
    for name, true in dataclasses.asdict(TRUE).items():
        share = true if name == "drift_hours" else true / (TRUE.noise + TRUE.drift + TRUE.level)
        assert getattr(found, name) == pytest.approx(share, rel=0.2), name


def test_no_unit_matters() -> None:
    x, y, hours, patient = planted(30, 8)
    left_out = ridge(x, y, patient).left_out
    one = generalised_line(x, y, left_out, hours, patient, folds(patient))
    other = generalised_line(x / 1000, 18 * y, 18 * left_out, hours, patient, folds(patient))
    np.testing.assert_allclose(other.weights, 18_000 * one.weights, rtol=1e-4)
    assert other.bias == pytest.approx(18 * one.bias, rel=1e-3, abs=1e-6)


def test_errors_that_are_all_zero_are_no_error() -> None:
    x, _, hours, patient = planted(30, 8)
    general = generalised_line(x, 2 * x[:, 0], 2 * x[:, 0], hours, patient, folds(patient))
    assert general.weights[0] == pytest.approx(2.0, rel=1e-2)


def test_the_order_of_draws_and_the_names_of_patients_mean_nothing() -> None:
    x, y, hours, patient = planted(20, 6)
    order = np.random.default_rng(1).permutation(len(y))
    error = y - x[:, 0] - x[:, 1]
    one = fit_error_covariance(error, hours, patient)
    other = fit_error_covariance(error[order], 1000 + hours[order], 99 - patient[order])
    assert dataclasses.astuple(other) == pytest.approx(dataclasses.astuple(one), rel=1e-4)


@given(
    numbers=st.tuples(*[st.floats(0.01, 5)] * 3, st.floats(0.5, 100)),
    hours=st.lists(st.floats(0, 200), min_size=1, max_size=12),
)
def test_whitened_errors_are_independent(numbers, hours) -> None:
    covariance = ErrorCovariance(
        **dict(zip(("noise", "drift", "level", "drift_hours"), numbers, strict=True))
    )
    at, whose = np.array(hours), np.zeros(len(hours), np.int64)
    root = np.linalg.cholesky(covariance.matrix(at))
    white = whitened(covariance, root, at, whose)
    np.testing.assert_allclose(white, np.eye(len(at)), atol=1e-8)


def test_two_patients_errors_have_nothing_in_common() -> None:
    hours, patient = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0, 1, 0, 1])
    values = np.eye(4)
    white = whitened(TRUE, values, hours, patient)
    apart = [whitened(TRUE, values[patient == k], hours[patient == k], patient[patient == k]) for k in (0, 1)]
    for k in (0, 1):
        np.testing.assert_array_equal(white[patient == k], apart[k])


def test_slopes_are_those_of_the_penalised_normal_equations() -> None:
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(30, 4)), rng.normal(size=30)
    for penalty, found in zip(PENALTIES, _slopes(z, y, PENALTIES), strict=True):
        matrix = z.T @ z + penalty * np.diag([0.0, 1.0, 1.0, 1.0])
        np.testing.assert_allclose(found, np.linalg.solve(matrix, z.T @ y), rtol=1e-8, atol=1e-10)


def test_it_finds_planted_weights_better_than_an_ordinary_line() -> None:
    """Patients' own levels are what an ordinary line mistakes for the features'; over eight cohorts, in every one."""
    better = 0
    for seed in range(8):
        x, y, hours, patient = planted(40, 12, seed=seed)
        ordinary = ridge(x, y, patient)
        general = generalised_line(x, y, ordinary.left_out, hours, patient, folds(patient))
        truth = np.array([1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
        better += np.square(general.weights - truth).sum() < np.square(ordinary.weights - truth).sum()
    assert better == 8


def test_errors_without_a_patients_own_part_leave_the_ordinary_line() -> None:
    alone = ErrorCovariance(noise=0.5, drift=1e-4, level=1e-4, drift_hours=5.0)
    x, y, hours, patient = planted(200, 10, covariance=alone)
    ordinary = ridge(x, y, patient)
    general = generalised_line(x, y, ordinary.left_out, hours, patient, folds(patient))
    np.testing.assert_allclose(general.weights, ordinary.weights, atol=0.02)
    assert general.bias == pytest.approx(ordinary.bias, abs=0.03)


def test_features_that_never_change_have_no_weight() -> None:
    x, y, hours, patient = planted(30, 8)
    x[:, 3] = 7.0
    general = generalised_line(x, y, ridge(x, y, patient).left_out, hours, patient, folds(patient))
    assert abs(general.weights[3]) < 1e-9
    assert np.isfinite(general.bias)
