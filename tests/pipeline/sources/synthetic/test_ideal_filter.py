"""The filter against brute force: the joint Gaussian of everything, built and solved."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.foundation.schema import HOUR_US
from pipeline.sources.synthetic.ideal_filter import DRAW, NOTHING, READING, FilterRow, filter_rows
from pipeline.sources.synthetic.law import LinearLaw, ReadingErrors, cohort_law, with_errors
from pipeline.sources.synthetic.parameters import CohortParameters

PARAMETERS = CohortParameters.load()


def law_of(coupling: float, *, errs: bool) -> LinearLaw:
    law = cohort_law(PARAMETERS, coupling, None)
    factor = 0.3 * np.random.default_rng(1).normal(size=(3, 7, 7))
    constant, drift, window = (f @ f.T for f in factor)
    errors = ReadingErrors(constant=constant, drift=drift, drift_hours=5.0, window=window)
    return with_errors(law, errors) if errs else law


def random_row(rng: np.random.Generator, events: int) -> FilterRow:
    kind = rng.choice([NOTHING, READING, *range(DRAW, DRAW + 5)], size=events)
    kind[-1] = NOTHING
    time = np.cumsum(rng.integers(1, 6 * HOUR_US, size=events))
    together = rng.random(events) < 0.2  # a panel: several draws, and questions, at one time
    time[1:] = np.where(together[1:] & (kind[1:] != READING), time[:-1], time[1:])
    value = np.where((kind == READING)[:, None], rng.normal(size=(events, 7)), 0.0)
    value[kind >= DRAW, 0] = rng.normal(size=int((kind >= DRAW).sum()))
    return FilterRow(
        time_us=np.maximum.accumulate(time), kind=kind, value=value, noise=rng.uniform(0.05, 1.0, events),
        asked=np.flatnonzero(kind == NOTHING),
    )  # fmt: skip


def dense(law: LinearLaw, row: FilterRow, question: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the labs at event `question`, by one solve of the joint covariance."""
    seen, values, times, noises = [], [], [], []
    for i in range(question):
        kind = row.kind[i]
        if kind == READING:
            seen.append(law.shape)
            values.append(row.value[i])
            noises.append(row.noise[i] * law.window_noise)
        elif kind >= DRAW:
            seen.append(law.lab[[kind - DRAW]])
            values.append(row.value[i, :1])
            noises.append(np.array([[law.lab_noise[kind - DRAW] + row.noise[i]]]))
        else:
            continue
        times += [row.time_us[i]] * len(seen[-1])
    if not seen:
        return np.zeros(5), np.diag(law.lab @ law.covariance @ law.lab.T)
    h, y, hours = np.vstack(seen), np.concatenate(values), np.array(times) / HOUR_US

    def covariance(a: np.ndarray, b: np.ndarray, gap: np.ndarray) -> np.ndarray:
        return sum(
            (a[:, [i]] * law.covariance[i, j]) * b[:, j] * np.exp(-gap / law.time_constant_hours[i])
            for i, j in zip(*np.nonzero(law.covariance), strict=True)
        )

    among = covariance(h, h, np.abs(hours[:, None] - hours[None, :]))
    at = 0
    for noise in noises:
        among[at : at + len(noise), at : at + len(noise)] += noise
        at += len(noise)
    across = covariance(law.lab, h, np.abs(row.time_us[question] / HOUR_US - hours)[None, :])
    weights = np.linalg.solve(among, across.T).T
    prior = law.lab @ law.covariance @ law.lab.T
    return weights @ y, np.diag(prior - weights @ across.T)


@pytest.mark.parametrize("coupling", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("errs", [False, True])
def test_equals_the_dense_gaussian(coupling: float, errs: bool) -> None:
    law, rng = law_of(coupling, errs=errs), np.random.default_rng(3)
    rows = [random_row(rng, events) for events in (2, 25, 40, 13)]
    for row, answer in zip(rows, filter_rows(law, rows), strict=True):
        for place, question in enumerate(row.asked):
            mean, variance = dense(law, row, question)
            assert answer.mean[place] == pytest.approx(mean, abs=1e-8)
            assert answer.variance[place] == pytest.approx(variance, abs=1e-8)


def test_the_rest_of_a_row_changes_no_answer() -> None:
    law, rng = law_of(0.5, errs=True), np.random.default_rng(4)
    row = random_row(rng, 30)
    question = int(row.asked[len(row.asked) // 2])
    later = row.value.copy()
    later[question:] += 100.0
    changed = filter_rows(law, [replace(row, value=later)])[0]
    place = len(row.asked) // 2
    before = filter_rows(law, [row])[0]
    assert np.array_equal(changed.mean[: place + 1], before.mean[: place + 1])
    assert not np.array_equal(changed.mean[place + 1 :], before.mean[place + 1 :])


def test_many_rows_are_as_each_alone() -> None:
    law, rng = law_of(1.0, errs=False), np.random.default_rng(5)
    rows = [random_row(rng, int(n)) for n in rng.integers(2, 20, size=150)]
    for row, answer in zip(rows, filter_rows(law, rows), strict=True):
        alone = filter_rows(law, [row])[0]
        assert answer.mean == pytest.approx(alone.mean, abs=1e-12)
        assert answer.variance == pytest.approx(alone.variance, abs=1e-12)
