"""Bland-Altman agreement with repeated draws per patient.

Bias +/- 1.96 SD over all draws is wrong when a patient gives several: the differences of one patient
resemble each other. A one-way random-effects model d_ij = bias + patient_i + rest_ij splits the variance
instead:

    within  = MS_within
    between = max(0, (MS_between - MS_within) / n0),  n0 = (N - sum n_i^2 / N) / (K - 1)
    limits  = bias -/+ 1.96 sqrt(between + within)

for N draws of K patients, n_i of patient i (Bland and Altman 2007, unequal numbers of draws). All of it
follows from sums per patient, so its bootstrap over patients is a matrix product.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from pipeline.cohort.scored_set import ScoredSet, scored_sets
from pipeline.foundation import bootstrap

AGREEMENT_COLUMNS = (
    "method", "lab", "protocol", "scoring", "seed", "n_labs", "n_patients", "bias", "bias_lower",
    "bias_upper", "sd_within", "sd_between", "limit_low", "limit_low_lower", "limit_low_upper", "limit_high",
    "limit_high_lower", "limit_high_upper", "slope",
)  # fmt: skip
_QUANTITIES = ("bias", "limit_low", "limit_high")


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Bias and limits of agreement in the lab's unit, one value per replicate (index 0: the estimate)."""

    bias: np.ndarray
    sd_within: np.ndarray
    sd_between: np.ndarray
    limit_low: np.ndarray
    limit_high: np.ndarray


def repeated_bland_altman(
    difference: Float[np.ndarray, " n"],
    patient: Shaped[np.ndarray, " n"],
    weights: Float[np.ndarray, "rows patients"] | None = None,
) -> Agreement:
    """Bias and limits of agreement of estimate - truth by one-way random effects.

    Parameters
    ----------
    difference
        Estimate minus truth of every draw, in the lab's unit.
    patient
        Whose draw it is.
    weights
        Replicates of the bootstrap over patients (``bootstrap.replicate_weights``); the estimate alone
        when None.

    Returns
    -------
    Agreement. One draw per patient leaves the two variances NaN and gives the plain limits; one patient
    alone gives NaN limits.
    """
    index, n_patients = bootstrap.index_patients(patient)
    weights = np.ones((1, n_patients)) if weights is None else weights
    count = np.bincount(index, minlength=n_patients).astype(np.float64)
    total = np.bincount(index, difference, minlength=n_patients)
    squared = np.bincount(index, difference**2, minlength=n_patients)
    draws, patients = weights @ count, weights.sum(axis=1)
    bias = weights @ total / draws
    sum_between = weights @ (total**2 / count) - draws * bias**2
    sum_within = weights @ (squared - total**2 / count)
    with np.errstate(divide="ignore", invalid="ignore"):
        repeated = draws > patients
        within = np.where(repeated, np.maximum(sum_within, 0.0) / (draws - patients), 0.0)
        typical_count = (draws - weights @ count**2 / draws) / (patients - 1)
        between = (sum_between / (patients - 1) - within) / np.where(repeated, typical_count, 1.0)
    between = np.maximum(between, 0.0)
    reach = 1.96 * np.sqrt(within + between)
    return Agreement(
        bias=bias,
        sd_within=np.where(repeated, np.sqrt(within), np.nan),
        sd_between=np.where(repeated, np.sqrt(between), np.nan),
        limit_low=bias - reach,
        limit_high=bias + reach,
    )


def agreement_table(
    predictions: pd.DataFrame,
    *,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    split: str = "test",
) -> pd.DataFrame:
    """Bland-Altman per method, lab, protocol, scoring and seed, with intervals by patient bootstrap.

    Returns ``AGREEMENT_COLUMNS``; ``slope`` is the least-squares slope of the difference on the mean of
    estimate and truth: below 0, high values are read too low (proportional bias, as every cautious
    estimate has).
    """
    rows = [
        _agreement_row(block, method, replicates, seed, level)
        for block in scored_sets(predictions, split)
        for method in block.estimates
    ]
    return pd.DataFrame(rows, columns=list(AGREEMENT_COLUMNS))


def _agreement_row(
    block: ScoredSet, method: str, replicates: int, seed: int, level: float
) -> dict[str, object]:
    difference = block.estimates[method] - block.truth
    n_patients = len(np.unique(block.patient))
    weights = bootstrap.replicate_weights(n_patients, replicates, seed)
    found = repeated_bland_altman(difference, block.patient, weights)
    row: dict[str, object] = {
        "method": method,
        **block.keys,
        "n_labs": len(block.draws),
        "n_patients": n_patients,
        "sd_within": float(found.sd_within[0]),
        "sd_between": float(found.sd_between[0]),
        "slope": _slope((block.estimates[method] + block.truth) / 2, difference),
    }
    for name in _QUANTITIES:
        values = getattr(found, name)
        bounds = bootstrap.percentile_interval(values, level) if n_patients > 1 else (np.nan, np.nan)
        row |= {name: float(values[0]), f"{name}_lower": bounds[0], f"{name}_upper": bounds[1]}
    return row


def _slope(mean: np.ndarray, difference: np.ndarray) -> float:
    centred = mean - mean.mean()
    spread = float((centred**2).sum())
    return float((centred * difference).sum()) / spread if spread > 0 else float("nan")
