"""Glucose estimates by their clinical consequence (Clarke and Parkes zones, MARD), and allowable errors.

Borders and limits are data (``pipeline/data``) with the source they were read in; what was read in none is
``verified: false`` and stays out of headline tables. All glucose values are in mg/dL.
"""

import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from pipeline.cohort.scored_set import scored_sets

Values = Float[np.ndarray, " n"]
ZONES = ("A", "B", "C", "D", "E")
GRID_COLUMNS = (
    "grid", "verified", "method", "protocol", "scoring", "seed", "n_labs", "n_patients",
    *(f"zone_{zone.lower()}" for zone in ZONES), "mard_percent",
)  # fmt: skip
ALLOWABLE_COLUMNS = (
    "scheme", "source", "year", "verified", "method", "lab", "protocol", "scoring", "seed", "n_labs",
    "n_patients", "share_within",
)  # fmt: skip


def clarke_zones(reference: Values, estimate: Values) -> Shaped[np.ndarray, " n"]:
    """Zone A..E of every pair by Clarke's grid.

    A pair on the 20 % line is in A; on the lines of zone E it is in E; on every other line in the better
    zone.
    """
    low, high = reference < 70, reference > 240
    treated_wrongly = (reference <= 70) & (estimate >= 180) | (reference >= 180) & (estimate <= 70)
    fine = (np.abs(estimate - reference) <= 0.2 * reference) | low & (estimate < 70)
    above = (reference > 70) & (estimate > 180) & (estimate > reference + 110)
    below = (reference >= 130) & (reference <= 180) & (estimate < 1.4 * (reference - 130))
    missed = (low | high) & (estimate >= 70) & (estimate < 180)
    return np.select([treated_wrongly, fine, above | below, missed], ["E", "A", "C", "D"], default="B")


def parkes_zones(reference: Values, estimate: Values) -> Shaped[np.ndarray, " n"]:
    """Zone A..E of every pair by the Parkes (consensus) grid for type 1 diabetes.

    Borders go on along their last piece beyond the printed grid; a pair on a border is in the better zone.
    """
    grid = error_grids()["parkes_type1"]
    zones = np.full(reference.shape, "A")
    for zone in ZONES[1:]:
        beyond = estimate > _upper_border(reference, grid["upper"][zone])
        if zone in grid["lower"]:
            beyond |= _below(reference, estimate, grid["lower"][zone])
        zones[beyond] = zone
    return zones


def _upper_border(reference: Values, vertices: Sequence[Sequence[float | int]]) -> Values:
    x, y = np.array(vertices, dtype=float).T
    slope = (y[-1] - y[-2]) / (x[-1] - x[-2])
    return np.where(reference > x[-1], y[-1] + slope * (reference - x[-1]), np.interp(reference, x, y))


def _below(
    reference: Values, estimate: Values, vertices: Sequence[Sequence[float | int]]
) -> Shaped[np.ndarray, " n"]:
    """Whether a pair is right of the vertical first piece and below the rest of a lower border."""
    start = vertices[0][0]
    return (reference > start) & (estimate < _upper_border(reference, vertices[1:]))


def mard(reference: Values, estimate: Values) -> float:
    """Mean absolute relative difference in percent of the reference; NaN without pairs."""
    if reference.size == 0:
        return float("nan")
    return 100 * float((np.abs(estimate - reference) / reference).mean())


def grid_table(predictions: pd.DataFrame, split: str = "test") -> pd.DataFrame:
    """Share of glucose draws in every zone of both grids, and MARD, per method (``GRID_COLUMNS``)."""
    rows = []
    for block in scored_sets(predictions, split):
        if block.lab != "glucose":
            continue
        sizes = {"n_labs": len(block.draws), "n_patients": len(np.unique(block.patient))}
        where = {"protocol": block.protocol, "scoring": block.scoring, "seed": block.seed}
        for method, estimate in block.estimates.items():
            for name, assign in (("clarke", clarke_zones), ("parkes_type1", parkes_zones)):
                zones = assign(block.truth, estimate)
                shares = {f"zone_{zone.lower()}": float((zones == zone).mean()) for zone in ZONES}
                verified = error_grids()[name]["verified"]
                rows.append(
                    {"grid": name, "verified": verified, "method": method, **where, **sizes, **shares,
                     "mard_percent": mard(block.truth, estimate)}
                )  # fmt: skip
    return pd.DataFrame(rows, columns=list(GRID_COLUMNS))


def allowable_error_table(predictions: pd.DataFrame, split: str = "test") -> pd.DataFrame:
    """Share of draws within each allowable error, per method and lab (``ALLOWABLE_COLUMNS``).

    The limit is the larger of the absolute one and the relative one times the truth; a draw on it is
    within.
    """
    rows = []
    for block in scored_sets(predictions, split):
        sizes = {"n_labs": len(block.draws), "n_patients": len(np.unique(block.patient))}
        for limit in allowable_errors():
            if limit["lab"] != block.lab:
                continue
            allowed = np.maximum(limit["absolute"], limit["relative"] * block.truth)
            rule = {name: limit[name] for name in ("scheme", "source", "year", "verified")}
            for method, estimate in block.estimates.items():
                # A tolerance for decimal values: 4.3 - 4.0 is a little more than 0.3 in binary.
                within = np.abs(estimate - block.truth) <= allowed + 1e-9
                share = float(within.mean())
                rows.append({**rule, "method": method, **block.keys, **sizes, "share_within": share})
    return pd.DataFrame(rows, columns=list(ALLOWABLE_COLUMNS))


@cache
def error_grids() -> dict[str, Any]:
    """Return the grids as shipped: title, source, year, verified, and the Parkes borders."""
    return json.loads((resources.files("pipeline.evaluation") / "data" / "error_grids.json").read_text())


@cache
def allowable_errors() -> tuple[dict[str, Any], ...]:
    """Return the allowable errors as shipped: limits per scheme and lab with source, year and verified."""
    with (resources.files("pipeline.evaluation") / "data" / "allowable_error.csv").open() as file:
        rows = pd.read_csv(file, comment="#").to_dict(orient="records")
    return tuple({str(name): value for name, value in row.items()} for row in rows)
