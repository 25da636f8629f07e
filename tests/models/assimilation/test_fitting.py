import numpy as np
import pytest
import torch

from models.assimilation.config import FitConfig
from models.assimilation.events import HOUR_US, Row, pack_rows
from models.assimilation.fitting import FITTED, _Objective, fit_lab
from models.assimilation.lab_filter import LabFilters
from models.assimilation.parameters import BOUNDS, NAMES, PRIOR, FilterParameters
from models.assimilation.scan import filter_events, log_likelihood
from models.testing.planted_labs import TYPICAL, planted_row, repeated

NONE = (np.array([], np.int64), np.array([]))


def planted(patients, hours=24.0, draws=5, seed=0, minutes=60):
    rng = np.random.default_rng(seed)
    return [planted_row(rng, TYPICAL, hours, draws, minutes) for _ in range(patients)]


@pytest.fixture(scope="module")
def events():
    return pack_rows(planted(120))


@pytest.fixture(scope="module")
def fit(events):
    return fit_lab(events)


def test_the_fit_predicts_other_patients_as_well_as_the_numbers_that_made_them(fit):
    other = pack_rows(planted(300, seed=1))
    scores = [
        float(log_likelihood(filter_events(repeated(p, 300), other), other, 0.0)[1].sum() / other.drawn.sum())
        for p in (fit.parameters, TYPICAL, FilterParameters.from_axis(PRIOR[:, 0][None]))
    ]
    assert fit.status == FITTED
    assert scores[0] > scores[1] - 0.01
    assert scores[1] > scores[2]


def test_the_same_events_give_the_same_numbers():
    events = pack_rows(planted(40))
    fits = [fit_lab(events, FitConfig(most_iterations=12, rows_at_once=n)) for n in (256, 256, 15)]
    assert torch.equal(fits[0].parameters.axis, fits[1].parameters.axis)
    torch.testing.assert_close(fits[2].parameters.axis, fits[0].parameters.axis, rtol=0, atol=1e-3)


def test_many_patients_end_where_both_starts_on_all_of_them_end(events, monkeypatch):
    """Starts are tried on a part of more than `FIRST_PATIENTS`; their bits stay as they were below it."""
    whole = fit_lab(events)
    monkeypatch.setattr("models.assimilation.fitting.FIRST_PATIENTS", 40)
    again = fit_lab(events)
    assert again.n_draws == whole.n_draws
    assert again.draw_log_likelihood == pytest.approx(whole.draw_log_likelihood, abs=2e-4)
    torch.testing.assert_close(again.parameters.axis, whole.parameters.axis, rtol=0, atol=0.05)


def test_its_gradient_is_that_of_its_value(events):
    objective = _Objective([events], FitConfig(), 600)
    z = np.random.default_rng(0).normal(size=11) * 0.3
    _, gradient = objective.value_and_gradient(z)
    for i in range(11):
        step = np.eye(11)[i] * 1e-5
        ends = [objective.value_and_gradient(z + s)[0] for s in (step, -step)]
        assert gradient[i] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("weight", [0.0, 0.03])
def test_readings_weigh_as_they_are_told(events, weight):
    fit = fit_lab(events, FitConfig(reading_weight=weight, most_iterations=30))
    assert fit.draw_log_likelihood > -1.2
    filters = LabFilters.of(fit.parameters)
    draws = log_likelihood(filters(events), events, 0.0)[1].sum() / events.drawn.sum()
    assert fit.draw_log_likelihood == pytest.approx(float(draws), abs=1e-12)


def test_too_few_draws_keep_the_priors_numbers_and_say_so():
    prior = FilterParameters.from_axis(PRIOR[:, 0][None])
    for rows in ([], planted(3, draws=2), planted(1, draws=24, hours=48.0), [Row.of(NONE, NONE)]):
        fit = fit_lab(pack_rows(rows))
        assert fit.status.startswith("too few draws to fit: ")
        assert torch.equal(fit.parameters.axis, prior.axis)
        assert np.isnan(fit.draw_log_likelihood) == (fit.n_draws == 0)


@pytest.mark.parametrize(
    "value",
    [lambda rng: np.zeros(4), lambda rng: 1e3 * rng.normal(size=4), lambda rng: np.array([0.0, 0, 0, 50])],
)
def test_draws_that_follow_no_law_give_numbers_within_bounds(value):
    rng = np.random.default_rng(0)
    rows = [Row.of((np.arange(4) * HOUR_US, value(rng)), NONE) for _ in range(8)]
    fit = fit_lab(pack_rows(rows))
    assert fit.status == FITTED
    assert bool(
        (fit.parameters.axis >= BOUNDS[:, 0] - 1e-9).all()
        & (fit.parameters.axis <= BOUNDS[:, 1] + 1e-9).all()
    )
    assert set(fit.at_bound) <= set(NAMES)
    assert np.isfinite(fit.draw_log_likelihood)


def test_without_readings_it_is_no_worse_than_shrunk_locf_on_the_draws_it_was_fitted_on():
    rng = np.random.default_rng(2)
    rows = [planted_row(rng, TYPICAL, 72.0, 8, 60) for _ in range(80)]
    rows = [Row.of((r.time_us[r.number < 0], r.value[r.number < 0]), NONE) for r in rows]
    events = pack_rows(rows)
    fit = fit_lab(events)
    filtered = filter_events(repeated(fit.parameters, 80), events)
    truth, last = events.value[1:][events.drawn[1:]].numpy(), events.value[:-1][events.drawn[1:]].numpy()
    design = np.stack([np.ones(len(last)), last], axis=1)
    shrunk = design @ np.linalg.lstsq(design, truth, rcond=None)[0]
    ours = filtered.mean[1:][events.drawn[1:]].numpy()
    assert np.square(ours - truth).mean() < np.square(shrunk - truth).mean()


def test_its_variance_is_that_of_its_errors(fit):
    other = pack_rows(planted(300, seed=3))
    filtered = filter_events(repeated(fit.parameters, 300), other)
    score = (filtered.innovation.square() / filtered.innovation_variance)[other.drawn]
    assert float(score.mean()) == pytest.approx(1.0, abs=0.1)


def test_a_module_learns_the_same_way_and_stays_within_bounds(events):
    filters = LabFilters(["potassium"])
    optimizer = torch.optim.Adam(filters.parameters(), lr=0.1)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = -filters.log_likelihood(events, 0.03).sum() / events.drawn.sum()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.02
    with torch.no_grad():
        filters.axis.fill_(50.0)
    assert torch.equal(filters.parameters_by_lab.axis[0], BOUNDS[:, 1])
