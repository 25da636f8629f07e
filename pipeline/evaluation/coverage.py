"""How often a draw lies inside its interval: on every draw, and by hours since the last lab."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from pipeline.foundation.bootstrap import index_patients
from pipeline.prediction.intervals import INTERVAL_STATE, fit_intervals

COVERAGE_COLUMNS = (
    "method", "protocol", "scoring", "seed", "lab", "gap", "n_labs", "n_patients", "nominal", "coverage",
    "coverage_patient_macro", "mean_width", "missing_share", "missing_reason",
)  # fmt: skip
REASON_NOT_RECORDED = "reason not recorded"
"""In a predictions file that an earlier version wrote."""
GAP_EDGES_HOURS = (2.0, 4.0, 8.0, 12.0, 24.0)
"""Hours since the last lab at which the bins of the tables are cut."""


def coverage(
    predictions: pd.DataFrame,
    level: float,
    *,
    split: str = "test",
    gap_edges_hours: Sequence[float] = GAP_EDGES_HOURS,
) -> pd.DataFrame:
    """Share of scored draws inside their interval, per lab and per bin of hours since the last lab.

    Returns
    -------
    ``COVERAGE_COLUMNS``; gap "all" is every draw. ``coverage`` counts draws, ``coverage_patient_macro``
    averages over patients (what the calibration promises), ``mean_width`` is in clinical units: each over the
    draws that have an interval, NaN if none has. ``missing_share`` of the draws have none;
    ``missing_reason`` says why, "" where all have one.
    """
    rows = predictions.loc[predictions["split"] == split]
    hours = rows["hours_since_last_lab"].to_numpy(dtype=np.float64)
    given = np.isfinite(rows[["lower", "upper"]].to_numpy(dtype=np.float64)).all(axis=1)
    rows = rows.assign(
        given=given,
        inside=given & (rows["truth"] >= rows["lower"]) & (rows["truth"] <= rows["upper"]),
        width=np.where(given, rows["upper"] - rows["lower"], math.nan),
        reason=rows.get(INTERVAL_STATE, REASON_NOT_RECORDED),
        gap=gap_labels(hours, gap_edges_hours),
    )
    rows = pd.concat([rows.assign(gap="all"), rows] if len(gap_edges_hours) else [rows])
    keys = ["method", "protocol", "scoring", "seed", "lab", "gap"]
    cells = [
        {**dict(zip(keys, key, strict=True)), **_coverage_cell(part), "nominal": level}
        for key, part in rows.groupby(keys, sort=False, observed=True)
        if isinstance(key, tuple)
    ]
    return pd.DataFrame(cells, columns=list(COVERAGE_COLUMNS))


def _coverage_cell(part: pd.DataFrame) -> dict[str, float | int | str]:
    given = part.loc[part["given"]]
    inside = given["inside"].to_numpy(dtype=np.float64)
    index, _ = index_patients(given["patient"].to_numpy())
    by_patient = np.bincount(index, inside) / np.bincount(index)
    return {
        "n_labs": len(part),
        "n_patients": len(set(part["patient"])),
        "coverage": float(inside.mean()) if len(given) else math.nan,
        "coverage_patient_macro": float(by_patient.mean()) if len(given) else math.nan,
        "mean_width": float(given["width"].mean()),
        "missing_share": 1.0 - len(given) / len(part),
        "missing_reason": "; ".join(sorted(set(part.loc[~part["given"], "reason"]))),
    }


def reliability(
    predictions: pd.DataFrame, levels: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
) -> pd.DataFrame:
    """Coverage on the test patients at several levels, each calibrated anew (``COVERAGE_COLUMNS``)."""
    return pd.concat(
        [
            coverage(fit_intervals(predictions, level).apply(predictions), level, gap_edges_hours=())
            for level in levels
        ],
        ignore_index=True,
    )


def gap_names(edges: Sequence[float]) -> list[str]:
    """Names of the bins cut at ``edges`` hours: "0-2 h", "2-4 h", ..., "> 24 h"; "all" without edges."""
    if not len(edges):
        return ["all"]
    starts = [0.0, *edges[:-1]]
    return [f"{low:g}-{high:g} h" for low, high in zip(starts, edges, strict=True)] + [f"> {edges[-1]:g} h"]


def gap_labels(hours: Float[np.ndarray, " n"], edges: Sequence[float]) -> Shaped[np.ndarray, " n"]:
    """Name of the bin of every number of hours; a value on an edge belongs to the bin that ends there."""
    return np.array(gap_names(edges), dtype=object)[np.searchsorted(np.asarray(edges, dtype=float), hours)]
