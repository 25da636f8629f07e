"""Slope and intercept of the truth on the estimate, with intervals by bootstrap over patients.

Slope 1 and intercept 0: an estimate means what it says. A slope below 1: estimates are too extreme; above 1: too close
to the mean. The calibration line of prediction models (Van Calster et al. 2019, doi:10.1186/s12916-019-1466-7), for a
continuous outcome; a replicate of the bootstrap takes all draws of a patient along.
"""

import math

import numpy as np
import pandas as pd
from jaxtyping import Float

from pipeline.cohort.scored_set import ScoredSet, scored_sets
from pipeline.foundation import bootstrap

CALIBRATION_LINE_COLUMNS = (
    "method", "lab", "protocol", "scoring", "seed", "n_labs", "n_patients", "slope", "slope_lower", "slope_upper",
    "intercept", "intercept_lower", "intercept_upper",
)  # fmt: skip
LEAST_PATIENTS = 5
"""A line through the draws of fewer patients is not told."""


def calibration_lines(
    predictions: pd.DataFrame,
    *,
    replicates: int = 500,
    seed: int = 0,
    level: float = 0.95,
    split: str = "test",
) -> pd.DataFrame:
    """Fit truth = intercept + slope x estimate by least squares, per method, lab, protocol, scoring and seed.

    Returns
    -------
    ``CALIBRATION_LINE_COLUMNS``, the intercept in the lab's unit; NaN where all estimates are the same or fewer than
    `LEAST_PATIENTS` patients were drawn.
    """
    rows = []
    for block in scored_sets(predictions, split):
        index, n_patients = bootstrap.index_patients(block.patient)
        weights = bootstrap.replicate_weights(n_patients, replicates, seed)[:, index]
        for method in block.estimates:
            found = {"method": method, **block.keys, "n_labs": len(block.draws), "n_patients": n_patients}
            rows.append(found | _line(block, method, weights, level, n_patients >= LEAST_PATIENTS))
    return pd.DataFrame(rows, columns=list(CALIBRATION_LINE_COLUMNS))


def _line(
    block: ScoredSet, method: str, weights: Float[np.ndarray, "rows n"], level: float, enough: bool
) -> dict[str, float]:
    x, y = block.estimates[method], block.truth
    if not enough or np.ptp(x) == 0:
        names = ("slope", "intercept")
        return {f"{name}{end}": math.nan for name in names for end in ("", "_lower", "_upper")}
    # About the first values, so that a large common part costs no digits.
    dx, dy = x - x[0], y - y[0]
    total = weights.sum(axis=1)
    mean_x, mean_y = weights @ dx / total, weights @ dy / total
    spread = weights @ dx**2 - total * mean_x**2
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(spread > 0, (weights @ (dx * dy) - total * mean_x * mean_y) / spread, np.nan)
    values = {"slope": slope, "intercept": y[0] + mean_y - slope * (x[0] + mean_x)}
    found: dict[str, float] = {}
    for name, replicates in values.items():
        lower, upper = bootstrap.percentile_interval(replicates, level)
        found |= {name: float(replicates[0]), f"{name}_lower": lower, f"{name}_upper": upper}
    return found
