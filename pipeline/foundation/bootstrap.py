"""Bootstrap over patients, vectorised: metrics are ratios of sums over patients, a replicate one product.

A replicate draws as many patients as there are, with replacement, and takes all their draws along: the
draws of one patient are not independent. ``weights`` (replicates, patients) counts how often each patient
was drawn; row 0 of ones is the estimate itself, so the point value and its interval come from the same
arithmetic.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer, Shaped

Replicates = Float[np.ndarray, " replicates"]


@dataclass(frozen=True, kw_only=True)
class PatientSums:
    """What the metrics of one method need to know of each patient, float64 of shape (patients,) each.

    Attributes
    ----------
    count : scored draws or points
    absolute, signed, squared : sums of |error|, error and error^2, error = estimate - truth
    truth_mean : mean of the patient's truths
    truth_spread : sum of squared deviations of the truths from that mean; exactly 0 where they are all equal

    Mean and spread, and not the sums of truths and of their squares: the difference of two large sums of squares
    would keep few of their digits.
    """

    count: np.ndarray
    absolute: np.ndarray
    signed: np.ndarray
    squared: np.ndarray
    truth_mean: np.ndarray
    truth_spread: np.ndarray

    def about_common_mean(self) -> tuple[np.ndarray, np.ndarray]:
        """Return each patient's sum of truths, and of their squares, about the mean truth of all draws."""
        # Relative to the first patient's mean, so that equal means stay equal to the last bit.
        shifted = self.truth_mean - self.truth_mean[0]
        centred = shifted - (self.count * shifted).sum() / self.count.sum()
        return self.count * centred, self.truth_spread + self.count * centred**2


def sum_by_patient(
    estimate: Float[np.ndarray, " n"],
    truth: Float[np.ndarray, " n"],
    patient_index: Integer[np.ndarray, " n"],
    n_patients: int,
) -> PatientSums:
    """Sum one method's errors by patient; every patient has at least one draw."""

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(patient_index, weights=values, minlength=n_patients)

    error = estimate - truth
    count = total(np.ones_like(error))
    origin = np.zeros(n_patients)
    origin[patient_index] = truth
    # From one of the patient's own truths: equal truths must give a spread of exactly 0, not of rounding.
    shifted = truth - origin[patient_index]
    mean = total(shifted) / count
    return PatientSums(
        count=count,
        absolute=total(np.abs(error)),
        signed=total(error),
        squared=total(error**2),
        truth_mean=origin + mean,
        truth_spread=total((shifted - mean[patient_index]) ** 2),
    )


def replicate_weights(n_patients: int, replicates: int, seed: int) -> Float[np.ndarray, "rows patients"]:
    """Row 0: every patient once. Rows 1..replicates: counts of patients drawn with replacement."""
    draws = np.random.default_rng(seed).multinomial(
        n_patients, np.full(n_patients, 1 / n_patients), size=replicates
    )
    return np.vstack([np.ones((1, n_patients)), draws])


def mean_over_seeds(values: Float[np.ndarray, "seeds rows"], seed: int) -> Replicates:
    """Average a metric over training runs; each replicate draws runs with replacement beside its patients.

    Row 0 is the plain mean. Drawing S runs out of S shows only (S - 1) / S of the variance of their mean, so
    each replicate's way from the plain mean is stretched by sqrt(S / (S - 1)). The draws depend on `seed` and
    S alone: a difference of means is the mean of differences. One run is returned as it is.

    Parameters
    ----------
    values
        One row of replicates a training run, all with the same patients.
    """
    runs, rows = values.shape
    if runs == 1:
        return values[0]
    drawn = np.random.default_rng([seed, runs]).multinomial(runs, np.full(runs, 1 / runs), size=rows - 1)
    stretched = 1 / runs + math.sqrt(runs / (runs - 1)) * (drawn - 1) / runs
    weights = np.vstack([np.full((1, runs), 1 / runs), stretched])
    return (weights * values.T).sum(axis=1)


def pooled_metrics(sums: PatientSums, weights: Float[np.ndarray, "rows patients"]) -> dict[str, Replicates]:
    """MAE, ME, RMSE, R2 over all draws, one value a replicate; every draw weighs the same."""
    count = weights @ sums.count
    squared = weights @ sums.squared
    truth, truth_squared = (weights @ values for values in sums.about_common_mean())
    spread = truth_squared - truth**2 / count
    return {
        "mae": weights @ sums.absolute / count,
        "me": weights @ sums.signed / count,
        "rmse": np.sqrt(squared / count),
        "r2": _one_minus_ratio(squared, spread, scale=truth_squared),
    }


def pooled_r2(
    estimate: Float[np.ndarray, " n"],
    truth: Float[np.ndarray, " n"],
    index: Integer[np.ndarray, " n"],
    weights: Float[np.ndarray, "rows patients"],
) -> Replicates:
    """R2 over all draws, one value a replicate; `index` is the place of each draw's patient among the weights'."""
    return pooled_metrics(sum_by_patient(estimate, truth, index, weights.shape[1]), weights)["r2"]


def patient_macro_metrics(
    sums: PatientSums, weights: Float[np.ndarray, "rows patients"]
) -> dict[str, Replicates]:
    """MAE, ME, RMSE, R2 with every patient weighing the same; definitions in ``metrics.patient_macro``."""
    patients = weights.sum(axis=1)
    squared = sums.squared / sums.count
    variance = sums.truth_spread / sums.count
    moves = variance > 0
    return {
        "mae": weights @ (sums.absolute / sums.count) / patients,
        "me": weights @ (sums.signed / sums.count) / patients,
        "rmse": weights @ np.sqrt(squared) / patients,
        "r2": _one_minus_ratio(
            weights @ np.where(moves, squared, 0.0), weights @ np.where(moves, variance, 0.0)
        ),
    }


def percentile_interval(values: Replicates, level: float) -> tuple[float, float]:
    """Percentile interval of the replicates (row 0, the estimate, left out).

    NaN, NaN when fewer than half of the replicates are defined: an interval of the rest would look surer
    than it is.
    """
    replicates = values[1:]
    defined = replicates[np.isfinite(replicates)]
    if defined.size == 0 or 2 * defined.size < replicates.size:
        return float("nan"), float("nan")
    lower, upper = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(lower), float(upper)


def two_sided_p(differences: Replicates) -> float:
    """Bootstrap p-value of "no difference": twice the smaller tail (k + 1) / (B + 1) beyond 0, at most 1."""
    replicates = differences[1:]
    defined = replicates[np.isfinite(replicates)]
    if defined.size == 0 or 2 * defined.size < replicates.size:
        return float("nan")
    tail = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (defined.size + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the given order; NaN stays NaN and is not counted as a test."""
    given = np.asarray(p_values, dtype=float)
    adjusted = np.full(given.shape, np.nan)
    order = np.flatnonzero(np.isfinite(given))
    order = order[np.argsort(given[order], kind="stable")]
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (order.size - rank) * given[index]))
        adjusted[index] = running
    return [float(value) for value in adjusted]


class Simultaneous(NamedTuple):
    """One comparison among several: bounds that hold for all of them together, and Holm's adjusted p-value."""

    lower: float
    upper: float
    p: float


def simultaneous(values: Sequence[Replicates], level: float) -> list[Simultaneous]:
    """Give intervals of several differences that leave out 0 exactly where Holm's test rejects "no difference".

    The k-th smallest p-value of m is judged by a level of (1 - level) / (m - k + 1), and so is its interval; from
    the first that is not rejected on, all keep its level. Bounds are order statistics of the replicates, so that
    interval and test agree to the last replicate. What is not estimable (NaN) is no test and has NaN bounds; so has a
    comparison that has too few replicates for its level.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    p = [two_sided_p(difference) for difference in values]
    adjusted = holm(p)
    tests = sorted((i for i in range(len(p)) if math.isfinite(p[i])), key=lambda i: p[i])
    bounds = [(math.nan, math.nan)] * len(p)
    held: float | None = None
    for rank, i in enumerate(tests):
        share = (1 - level) / (len(tests) - rank) if held is None else held
        held = share if p[i] > share else None
        bounds[i] = _order_statistics(values[i], share)
    return [Simultaneous(*pair, q) for pair, q in zip(bounds, adjusted, strict=True)]


def _order_statistics(values: Replicates, share: float) -> tuple[float, float]:
    """Return the replicates beyond which half of `share` lies on either side; NaN where there are too few."""
    ordered = np.sort(values[1:][np.isfinite(values[1:])])
    place = math.floor(share / 2 * (ordered.size + 1) + 1e-9)
    return (float(ordered[place - 1]), float(ordered[-place])) if place else (math.nan, math.nan)


def index_patients(patient: Shaped[np.ndarray, " n"]) -> tuple[np.ndarray, int]:
    """Return the place of every row's patient among the sorted patients, and how many there are."""
    names, index = np.unique(patient, return_inverse=True)
    return index, len(names)


def _one_minus_ratio(squared: np.ndarray, spread: np.ndarray, scale: np.ndarray | None = None) -> np.ndarray:
    floor = 0.0 if scale is None else 1e-12 * np.maximum(scale, 0.0)
    defined = spread > floor
    return np.where(defined, 1.0 - squared / np.where(defined, spread, 1.0), np.nan)
