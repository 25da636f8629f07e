"""Error metrics of laboratory estimates in the lab's own clinical unit, spelt out: what fast sums are held to.

One definition each, on plain arrays: the error is always *estimate minus truth*. ``pipeline.foundation.bootstrap``
computes the same numbers from sums per patient; the tests hold the two together.
"""

import math

import numpy as np
from jaxtyping import Float, Shaped

Values = Float[np.ndarray, " n"]
Patients = Shaped[np.ndarray, " n"]


def mean_absolute_error(estimate: Values, truth: Values) -> float:
    """Mean of |estimate - truth|; NaN without draws."""
    return _mean(np.abs(estimate - truth))


def mean_error(estimate: Values, truth: Values) -> float:
    """Mean of estimate - truth (positive: the method reads high); NaN without draws."""
    return _mean(estimate - truth)


def root_mean_squared_error(estimate: Values, truth: Values) -> float:
    """Root of the mean squared error; NaN without draws."""
    return math.sqrt(_mean((estimate - truth) ** 2))


def r_squared(estimate: Values, truth: Values) -> float:
    """1 - SSE / SST with SST about the mean of the scored truths.

    NaN when it is undefined: fewer than two draws, or truths that are all equal. Negative when the constant
    "mean of the test set" would have done better.
    """
    if truth.size < 2 or np.ptp(truth) == 0:
        return math.nan
    total = float(((truth - truth.mean()) ** 2).sum())
    return 1.0 - float(((estimate - truth) ** 2).sum()) / total


DEFINITIONS = {
    "mae": mean_absolute_error,
    "me": mean_error,
    "rmse": root_mean_squared_error,
    "r2": r_squared,
}
"""Metrics of one method alone, by their names in ``schema.METRICS``; a skill is of two methods."""


def skill(mae: float, baseline_mae: float) -> float:
    """1 - MAE / MAE of the baseline: 0 no better than it, 1 perfect; NaN when the baseline makes no error."""
    if not baseline_mae > 0:
        return math.nan
    return 1.0 - mae / baseline_mae


def patient_macro(estimate: Values, truth: Values, patient: Patients) -> dict[str, float]:
    """MAE, ME, RMSE and R2 with every patient weighing the same, however often they were drawn.

    Returns
    -------
    ``mae``, ``me``, ``rmse``: mean over patients of each patient's own value. ``r2``: 1 - (mean over
    patients of the mean squared error) / (mean over patients of the variance about the patient's *own*
    mean), over patients with at least two different truths. It asks whether a method follows the changes
    within a patient; knowing each patient's level alone scores 0 at best. The mean of the patients' own R2
    is not used: two near-equal draws make one patient's R2 arbitrarily negative. Source: our decision.
    """
    groups = [np.flatnonzero(patient == name) for name in np.unique(patient)]
    parts = [(estimate[rows], truth[rows]) for rows in groups]
    moving = [(e, t) for e, t in parts if t.size > 1 and np.ptp(t) > 0]
    squared = sum(float(((e - t) ** 2).mean()) for e, t in moving)
    variance = sum(float(t.var()) for _, t in moving)
    return {
        "mae": _mean(np.array([mean_absolute_error(e, t) for e, t in parts])),
        "me": _mean(np.array([mean_error(e, t) for e, t in parts])),
        "rmse": _mean(np.array([root_mean_squared_error(e, t) for e, t in parts])),
        "r2": 1.0 - squared / variance if variance > 0 else math.nan,
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan
