import dataclasses

import numpy as np
import pytest
import torch

from models.assimilation.events import DRAW, HOUR_US, Row, pack_rows
from models.assimilation.lab_filter import LabFilters
from models.assimilation.parameters import NAMES, FilterParameters
from models.assimilation.scan import filter_events, log_likelihood
from models.errors import BadAssimilationInput
from models.testing.dense_posterior import dense_posterior
from models.testing.planted_labs import TYPICAL, planted_row, random_parameters, repeated


def random_row(rng, most_draws=6, most_readings=25):
    """Return draws and readings at any times of two days, some at the same one, some missing, of several assays."""
    counts = rng.integers(0, most_draws), rng.integers(0, most_readings)
    times = [rng.integers(0, 96, n) * HOUR_US // 2 for n in counts]
    values = [np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)) for n in counts]
    draws, readings = zip(times, values, strict=True)
    return Row.of(
        draws,
        readings,
        draw_noise=rng.uniform(0.5, 3.0, counts[0]),
        reading_noise=rng.uniform(1, 2, counts[1]),
    )


def random_case(seed, rows=4):
    rng = np.random.default_rng(seed)
    made = [random_row(rng) for _ in range(rows)]
    return made, pack_rows(made), FilterParameters.joined([random_parameters(rng) for _ in made])


def test_it_equals_a_dense_gaussian_process_in_200_random_cases():
    rows, events, parameters = random_case(0, 200)
    filtered = filter_events(parameters, events)
    worst, compared = 0.0, 0
    for i, row in enumerate(rows):
        row, own = row.ordered(), parameters.take(torch.tensor([i]))
        hours = row.time_us / HOUR_US
        for j in range(len(hours)):
            mean, variance = dense_posterior(own, row, np.arange(len(hours)) < j, hours[j], hours)
            worst = max(worst, abs(mean - filtered.mean[j, i]), abs(variance - filtered.variance[j, i]))
            compared += 1
    assert worst < 1e-8
    assert compared > 2000


def test_likelihood_is_that_of_the_joint_normal():
    rng = np.random.default_rng(3)
    row = planted_row(rng, TYPICAL, 6.0, 3)
    events = pack_rows([row])
    joint, draws = log_likelihood(filter_events(TYPICAL, events), events, 1.0)
    ordered = row.ordered()
    hours, draw = ordered.time_us / HOUR_US, ordered.kind == DRAW
    p = {name: float(getattr(TYPICAL, name)[0]) for name in NAMES}
    lag, gain = np.abs(hours[:, None] - hours[None]), np.where(draw, 1.0, p["gain"])
    covariance = np.outer(gain, gain) * (
        p["drift_variance"] * np.exp(-lag / p["drift_hours"]) + p["level_variance"]
    )
    own = p["offset_variance"] + p["offset_drift_variance"] * np.exp(-lag / p["offset_drift_hours"])
    covariance += np.outer(~draw, ~draw) * own + np.diag(np.where(draw, p["draw_noise"], p["reading_noise"]))
    left = ordered.value - np.where(draw, p["draw_mean"], p["reading_mean"])
    sign, log_det = np.linalg.slogdet(2 * np.pi * covariance)
    assert sign > 0
    assert float(joint[0]) == pytest.approx(
        -0.5 * (log_det + left @ np.linalg.solve(covariance, left)), abs=1e-9
    )
    assert float(draws[0]) != float(joint[0])


@pytest.mark.parametrize("replayed", [False, True])
def test_gradients_to_numbers_and_readings(replayed):
    rows, events, parameters = random_case(1, 2)
    if replayed:
        rng = np.random.default_rng(2)
        follows = [[rng.integers(max(-1, j - 4), j) for _ in rows] for j in range(len(events.kind))]
        events = dataclasses.replace(events, follows=torch.tensor(np.array(follows)))

    def outputs(axis, reading):
        generator = torch.Generator().manual_seed(0)
        filtered = filter_events(FilterParameters.from_axis(axis), events.with_readings(reading))
        made = [getattr(filtered, field.name) for field in dataclasses.fields(filtered)]
        return torch.stack(
            [(x * torch.randn(x.shape, generator=generator, dtype=x.dtype)).sum() for x in made]
        )

    axis = parameters.axis.requires_grad_()
    reading = torch.randn(2, int(events.number.max()) + 1, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(outputs, (axis, reading))


def test_adjoint_equals_autograd_through_the_steps():
    """The step that a bedside runs is differentiable too, and both ways agree."""
    events = pack_rows([planted_row(np.random.default_rng(4), TYPICAL, 8.0, 4)])
    grads = []
    for by_step in (False, True):
        filters = LabFilters(["potassium"])
        if by_step:
            state, total = filters.start(), torch.zeros((), dtype=torch.float64)
            for j in range(len(events.kind)):
                state = filters.predict(state, float(events.elapsed_hours[j, 0]))
                draw = bool(events.kind[j, 0] == DRAW)
                if draw:
                    mean, _, spread = filters.estimate(state)
                    total = total - 0.5 * (spread.log() + (events.value[j] - mean).square() / spread).sum()
                state = filters.update(state, events.value[j], draw=draw)
            total.backward()
        else:
            filters.log_likelihood(events, 0.0).sum().backward()
        grads.append(filters.axis.grad)
    torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-12)


def test_a_network_learns_its_readings_through_the_likelihood():
    """Gradients reach readings that were put in, and not those that were missing."""
    rng = np.random.default_rng(5)
    rows = [planted_row(rng, TYPICAL, 12.0, 4) for _ in range(3)]
    rows[0].value[rows[0].number == 7] = np.nan
    events = pack_rows(rows)
    reading = torch.zeros(3, 72, dtype=torch.float64, requires_grad=True)
    filtered = filter_events(repeated(TYPICAL, 3), events.with_readings(reading))
    log_likelihood(filtered, events, 0.0)[0].sum().backward()
    last = [int(row.time_us[row.number < 0].max() // (HOUR_US // 6)) for row in rows]
    for i in range(3):
        reached = reading.grad[i] != 0
        assert bool(reached[: last[i]].sum() == last[i] - (i == 0 and last[0] > 7))
        assert not reached[last[i] :].any()  # what comes after the last draw has no part in its likelihood


def test_a_rows_bits_depend_on_no_other_row_and_not_on_padding():
    _, events, parameters = random_case(6, 37)
    whole = filter_events(parameters, events)
    for i in (0, 13, 36):
        alone = filter_events(parameters.take(torch.tensor([i])), events.take(torch.tensor([i])))
        for name in ("mean", "variance"):
            torch.testing.assert_close(
                getattr(alone, name)[:, 0], getattr(whole, name)[: len(alone.mean), i], rtol=0, atol=0
            )


def test_events_may_come_in_any_order_and_missing_ones_are_as_if_they_were_not_there():
    rng = np.random.default_rng(7)
    row = random_row(rng, 8, 30)
    order = rng.permutation(len(row.kind))
    mixed = dataclasses.replace(
        row, **{n: getattr(row, n)[order] for n in ("time_us", "kind", "value", "noise", "number")}
    )
    there = np.isfinite(row.value)
    fewer = dataclasses.replace(
        row, **{n: getattr(row, n)[there] for n in ("time_us", "kind", "value", "noise", "number")}
    )
    likelihoods = []
    for made in (row, mixed, fewer):
        events = pack_rows([made])
        likelihoods.append(log_likelihood(filter_events(TYPICAL, events), events, 1.0)[0])
    torch.testing.assert_close(likelihoods[0], likelihoods[1], rtol=0, atol=1e-12)
    torch.testing.assert_close(likelihoods[0], likelihoods[2], rtol=0, atol=1e-12)


def test_days_of_exact_draws_keeps_the_covariance_symmetric_and_positive():
    rng = np.random.default_rng(8)
    sharp = FilterParameters.of(
        drift_variance=20.0, level_variance=20.0, draw_noise=1e-12, reading_noise=1e-10, gain=1.0
    )
    events = pack_rows([planted_row(rng, sharp, 48.0, 100, minutes=1)])
    covariance = filter_events(sharp, events).after_covariance[..., 0]
    assert float((covariance - covariance.mT).abs().max()) < 1e-13
    assert float(torch.linalg.eigvalsh(covariance).min()) > -1e-13


@pytest.mark.parametrize(
    "rows", [[], [Row.of((np.array([], np.int64), np.array([])), (np.array([], np.int64), np.array([])))]]
)
def test_no_row_and_a_row_without_events_are_empty_tables(rows):
    events = pack_rows(rows)
    filtered = filter_events(repeated(TYPICAL, len(rows)), events)
    assert filtered.mean.shape == (0, len(rows))
    assert log_likelihood(filtered, events, 0.03)[0].tolist() == [0.0] * len(rows)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("draw_noise", float("nan"), "draw_noise of row 1 is nan; it must be finite and not negative"),
        ("level_variance", -0.1, "level_variance of row 1 is -0.1"),
        ("drift_hours", 0.0, "drift_hours of row 1 is 0.0; it must be a positive number of hours"),
        ("gain", float("inf"), "gain of row 1 is inf; it must be finite."),
    ],
)
def test_numbers_that_are_none_are_refused_by_name(name, value, said):
    wrong = FilterParameters.joined([TYPICAL, FilterParameters.of(**{name: value})])
    events = pack_rows([planted_row(np.random.default_rng(0), TYPICAL, 2.0, 1)] * 2)
    with pytest.raises(BadAssimilationInput, match=said):
        filter_events(wrong, events)


def test_events_that_are_none_are_refused():
    draws, none = (np.array([0]), np.array([1.0])), (np.array([], np.int64), np.array([]))
    with pytest.raises(BadAssimilationInput, match="infinite"):
        Row.of((np.array([0]), np.array([np.inf])), none)
    with pytest.raises(BadAssimilationInput, match="noise of an event"):
        Row.of(draws, none, draw_noise=np.nan)
    row = Row.of(draws, none)
    with pytest.raises(BadAssimilationInput, match="neither READING"):
        dataclasses.replace(row, kind=np.array([2]))
