import numpy as np
import pandas as pd
import pytest

from pipeline.foundation.schema import METHODS
from pipeline.labs.base import CarryForward
from pipeline.labs.carry_forward import (
    DECAY_HOURS,
    LIVE_LOCF,
    LOCF,
    PATIENT_MEAN,
    fit_carry_forward,
    fit_decayed_locf,
    fit_shrunk_locf,
    fit_training_mean,
    least_squares_line,
)
from pipeline.testing.conformance import forgotten


def table(truth, last, *, age=1.0, lab="sodium", protocol="start", mean=0.0, live=0.0):
    return pd.DataFrame(
        {
            "protocol": protocol, "lab": lab,
            "truth": np.asarray(truth, float), "last_lab": np.asarray(last, float),
            "hours_since_last_lab": age, "history_mean": mean, "live_last_lab": live,
        }
    )  # fmt: skip


def test_values_beside_the_examples_are_taken_as_they_are():
    examples = table([1, 2], [3, 4], mean=5.0, live=6.0)
    assert LOCF.estimate(examples).tolist() == [3, 4]
    assert PATIENT_MEAN.estimate(examples).tolist() == [5, 5]
    assert LIVE_LOCF.estimate(examples).tolist() == [6, 6]


def test_shrunk_locf_is_the_least_squares_line():
    x = np.array([1.0, 2, 3, 4])
    assert least_squares_line(x, 3 + 0.5 * x) == pytest.approx((3, 0.5))
    assert fit_shrunk_locf(table(3 + 0.5 * x, x)).estimate(table([0], [10])).tolist() == [8]
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 50))
    b, a = np.polyfit(x, y, 1)
    assert least_squares_line(x, y) == pytest.approx((a, b))


def test_without_spread_the_shrunk_value_is_the_mean():
    assert fit_shrunk_locf(table([1, 3], [5, 5])).estimate(table([0], [9])).tolist() == [2]


def test_coefficients_are_kept_apart_by_protocol_and_lab():
    train = pd.concat(
        [
            table([10, 20], [1, 2]),
            table([100, 200], [1, 2], lab="glucose"),
            table([5, 6], [1, 2], protocol="anchored"),
        ]
    )
    asked = pd.concat([table([0], [3]), table([0], [3], lab="glucose"), table([0], [3], protocol="anchored")])
    np.testing.assert_allclose(fit_shrunk_locf(train).estimate(asked), [30, 300, 7])
    np.testing.assert_allclose(fit_training_mean(train).estimate(asked), [15, 150, 5.5])


def test_decayed_locf_recovers_the_time_constant():
    rng = np.random.default_rng(1)
    tau = DECAY_HOURS[8]
    last, age = rng.normal(140, 5, 400), rng.uniform(0, 50, 400)
    last += 140 - last.mean()
    truth = 140 + (last - 140) * np.exp(-age / tau)
    fitted = fit_decayed_locf(table(truth, last, age=age))
    assert fitted.decay_hours["start", "sodium"] == pytest.approx(tau)
    fresh, old = fitted.estimate(table([0, 0], [150, 150], age=np.array([0.0, 1e6])))
    assert fresh == 150
    assert old == pytest.approx(truth.mean())


def test_a_value_that_does_not_decay_is_carried_forward():
    rng = np.random.default_rng(2)
    last = rng.normal(140, 5, 50)
    fitted = fit_decayed_locf(table(last, last, age=rng.uniform(0, 50, 50)))
    assert fitted.decay_hours["start", "sodium"] == np.inf
    assert fitted.estimate(table([0], [150], age=1e5)).tolist() == [150]


@pytest.mark.parametrize("train", [table([], []), table([1, 2], [3, 4], lab="glucose")])
def test_without_training_examples_every_fitted_method_carries_forward(train):
    asked = table([1, 2], [3, 4], mean=1.0, live=1.0)
    for name, method in fit_carry_forward(train).items():
        assert np.isfinite(method.estimate(asked)).all()
        if name in ("shrunk_locf", "decayed_locf", "training_mean"):
            assert method.estimate(asked).tolist() == [3, 4]


def test_every_method_has_its_name_and_changes_nothing_it_was_given():
    examples = table([1, 2, 3], [3, 4, 5], age=np.array([1.0, 2, 3]))
    before = examples.copy()
    methods = fit_carry_forward(examples)
    assert tuple(methods) == METHODS[: METHODS.index("lstm")]
    for method in methods.values():
        assert len(method.estimate(examples)) == 3
    pd.testing.assert_frame_equal(examples, before)


def test_every_method_gives_each_example_a_finite_estimate_and_none_is_forgotten():
    fitted = fit_carry_forward(table([10, 20, 30], [1, 2, 4], age=5.0))
    assert forgotten(CarryForward, {type(method) for method in fitted.values()}) == []
    unseen = table([0], [3], lab="glucose", protocol="anchored", mean=2.0, live=1.0)
    asked = pd.concat([table([0, 0], [3, 7], mean=2.0, live=1.0), unseen])
    for method in fitted.values():
        assert isinstance(method, CarryForward)
        estimates = method.estimate(asked)
        assert estimates.shape == (3,)
        assert estimates.dtype == np.float64
        assert np.isfinite(estimates).all()
        np.testing.assert_array_equal(method.estimate(asked.iloc[::-1])[::-1], estimates)
        np.testing.assert_array_equal(method.estimate(asked.assign(truth=np.nan)), estimates)
