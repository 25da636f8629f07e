import numpy as np
import pytest

from models.assimilation.config import AssimilationConfig, FitConfig
from models.assimilation.transform import LabTransform, fit_transform
from models.errors import BadAssimilationInput

GLUCOSE = LabTransform(log=True, centre=np.log(140.0), spread=0.35)
SODIUM = LabTransform(log=False, centre=139.0, spread=4.0)


@pytest.mark.parametrize("transform", [GLUCOSE, SODIUM])
def test_scale_and_back(transform):
    values = np.array([[90.0, 140.0], [np.nan, 170.0]])
    np.testing.assert_allclose(transform.from_scale(transform.to_scale(values)), values)


@pytest.mark.parametrize("transform", [GLUCOSE, SODIUM])
def test_the_filters_mean_is_the_median_in_clinical_units(transform):
    scaled = np.random.default_rng(0).normal(0.4, np.sqrt(0.6), 400_000)
    median = np.median(transform.from_scale(scaled))
    assert transform.median(np.array([0.4]))[0] == pytest.approx(median, rel=4e-3)


def test_it_is_fitted_on_draws_and_defined_without():
    draws = np.array([100.0, 150.0, 200.0])
    fitted = fit_transform(draws, log=True, low=10.0, high=2000.0, least=3)
    assert (fitted.centre, fitted.spread) == (np.log(draws).mean(), np.log(draws).std())
    for few in (np.array([]), draws[:2], np.full(9, 7.0)):
        unknown = fit_transform(few, log=False, low=80.0, high=200.0, least=3)
        assert (unknown.centre, unknown.spread) == pytest.approx((140.0, 120.0 / (4 * np.sqrt(3))))


def test_what_cannot_be_is_refused():
    with pytest.raises(BadAssimilationInput, match="A draw of 0 has no logarithm"):
        GLUCOSE.to_scale(np.array([90.0, 0.0]))
    with pytest.raises(BadAssimilationInput, match="spread 0"):
        LabTransform(log=False, centre=0.0, spread=0.0)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: AssimilationConfig(labs=()), "labs is"),
        (lambda: AssimilationConfig(log_scale=("glucose", "glucose")), "log_scale is"),
        (lambda: AssimilationConfig(keep_hours=0.0), "keep_hours is 0"),
        (lambda: FitConfig(reading_weight=1.5), "reading_weight is 1.5"),
        (lambda: FitConfig(prior_weight=float("nan")), "prior_weight is nan"),
        (lambda: FitConfig(rows_at_once=0), "rows_at_once is 0"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused(made, said):
    with pytest.raises(ValueError, match=said):
        made()
