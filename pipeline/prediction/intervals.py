"""Prediction intervals by split conformal, calibrated over patients.

Draws of one patient are not exchangeable with another's, patients are. So the score |truth - estimate| is
pooled with every calibration patient weighing the same, however often they were drawn, and the next patient
stands at infinity: with K patients and F_k the share of patient k's scores up to s, the half-width is the
least score s with

    sum_k F_k(s) >= (K + 1) * level.

A draw of a new patient then lies inside with probability of at least ``level``, whatever the error's
distribution (hierarchical conformal prediction: Lee, Barber and Willett 2023, after Dunn, Wasserman and
Ramdas, arXiv 1809.07441). Nothing is sampled, so there is no seed. When K < level / (1 - level), 9 patients
at 90 %, no finite width keeps that promise and the interval is unbounded: (-inf, inf), never a made-up
width. The guarantee is marginal: over patients, not for one.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from pipeline.cohort.scored_sets import ScoredSet, check_predictions, scored_sets
from pipeline.foundation.bootstrap import index_patients
from pipeline.foundation.errors import ConfigError

WIDTH_COLUMNS = ("method", "protocol", "seed", "lab", "gap", "half_width", "n_labs", "n_patients")
COVERAGE_COLUMNS = (
    "method", "protocol", "scoring", "seed", "lab", "gap", "n_labs", "n_patients", "nominal", "coverage",
    "coverage_patient_macro", "mean_width", "unbounded_share",
)  # fmt: skip
GAP_EDGES_HOURS = (2.0, 4.0, 8.0, 12.0, 24.0)
"""Hours since the last lab at which the bins of the tables are cut."""


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Half-widths in clinical units per method, protocol, seed, lab and bin of hours since the last lab."""

    widths: pd.DataFrame
    """``WIDTH_COLUMNS``; ``half_width`` is inf where too few patients were at hand."""
    level: float
    """Probability that a draw of a new patient lies inside."""
    gap_edges_hours: tuple[float, ...] = ()
    """Hours since the last lab at which the bins are cut; empty: one bin."""

    def apply(self, predictions: pd.DataFrame) -> pd.DataFrame:
        """Return the predictions with ``lower`` and ``upper`` filled.

        Bounds are estimate -/+ half-width, the lower one not below 0 (no lab value is negative: nothing is
        lost). Rows that nothing was calibrated for are unbounded. Dense rows get the width of the measured
        draws.
        """
        keys = ["method", "protocol", "seed", "lab", "gap"]
        gap = gap_labels(predictions["hours_since_last_lab"].to_numpy(dtype=np.float64), self.gap_edges_hours)
        table = self.widths.set_index(keys)["half_width"]
        rows = pd.MultiIndex.from_arrays([*(predictions[key] for key in keys[:-1]), gap], names=keys)
        half_width = table.reindex(rows).fillna(math.inf).to_numpy(dtype=np.float64)
        estimate = predictions["estimate"].to_numpy(dtype=np.float64)
        lower = np.where(np.isfinite(half_width), np.maximum(estimate - half_width, 0.0), -math.inf)
        return predictions.assign(lower=lower, upper=estimate + half_width)

    def half_width(
        self, *, method: str, protocol: str, lab: str, seed: int = 0, hours_since_last_lab: float = 0.0
    ) -> float:
        """Half-width of one estimate in clinical units; inf when nothing was calibrated for it."""
        gap = gap_labels(np.array([hours_since_last_lab]), self.gap_edges_hours)[0]
        wanted = {"method": method, "protocol": protocol, "seed": seed, "lab": lab, "gap": gap}
        rows = self.widths.loc[(self.widths[list(wanted)] == pd.Series(wanted)).all(axis=1), "half_width"]
        return float(rows.iloc[0]) if len(rows) else math.inf

    def to_json(self) -> str:
        """JSON text; an unbounded half-width is null."""
        rows = self.widths.replace({"half_width": {math.inf: None}}).to_dict(orient="records")
        return json.dumps(
            {"level": self.level, "gap_edges_hours": list(self.gap_edges_hours), "widths": rows},
            allow_nan=False,
        )

    @classmethod
    def from_json(cls, text: str) -> "Intervals":
        """Read what ``to_json`` wrote.

        Raises
        ------
        ConfigError
            When the text is no such JSON.
        """
        try:
            content = json.loads(text)
            widths = pd.DataFrame(content["widths"], columns=list(WIDTH_COLUMNS))
            level, edges = float(content["level"]), tuple(float(edge) for edge in content["gap_edges_hours"])
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"The intervals cannot be read ({type(error).__name__}). They are the JSON that the predict "
                "stage writes beside the predictions: run it again."
            ) from error
        widths["half_width"] = widths["half_width"].astype(np.float64).fillna(math.inf)
        return cls(widths=widths, level=level, gap_edges_hours=edges)


def fit_intervals(
    predictions: pd.DataFrame, level: float = 0.9, gap_edges_hours: Sequence[float] = ()
) -> Intervals:
    """Calibrate the half-widths on the measured draws of the patients of split ``calibration``.

    Parameters
    ----------
    predictions
        Table with ``schema.PREDICTION_COLUMNS``; other splits and dense rows are ignored.
    level
        Probability that a draw of a new patient lies inside, 0..1.
    gap_edges_hours
        When given, one half-width per bin of hours since the last lab; a bin with too few patients is
        unbounded.

    Returns
    -------
    Intervals; without any calibration patient, every interval is unbounded.

    Source: our decision.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    edges = tuple(float(edge) for edge in gap_edges_hours)
    check_predictions(predictions)
    rows = predictions.loc[(predictions["split"] == "calibration") & (predictions["scoring"] == "measured")]
    blocks = scored_sets(rows, "calibration") if len(rows) else []
    widths = [
        row for block in blocks for name in gap_names(edges) for row in _fit_bin(block, name, edges, level)
    ]
    table = pd.DataFrame(widths, columns=list(WIDTH_COLUMNS))
    return Intervals(widths=table, level=level, gap_edges_hours=edges)


def _fit_bin(
    block: ScoredSet, gap: str, edges: tuple[float, ...], level: float
) -> list[dict[str, str | float]]:
    hours = block.draws["hours_since_last_lab"].to_numpy(dtype=np.float64)
    chosen = gap_labels(hours, edges) == gap
    patient, truth = block.patient[chosen], block.truth[chosen]
    counts = {"n_labs": int(chosen.sum()), "n_patients": len(np.unique(patient))}
    names = {"protocol": block.protocol, "seed": block.seed, "lab": block.lab, "gap": gap}
    return [
        {
            "method": method,
            **names,
            "half_width": conformal_half_width(np.abs(estimate[chosen] - truth), patient, level),
            **counts,
        }
        for method, estimate in block.estimates.items()
    ]


def conformal_half_width(
    scores: Float[np.ndarray, " n"], patient: Shaped[np.ndarray, " n"], level: float
) -> float:
    """Least score s with sum_k F_k(s) >= (K + 1) level over the K patients; inf when there is none.

    Examples
    --------
    Nine patients with one score each at 90 %: the rank is ceil(10 * 0.9) = 9, the largest score.
    """
    names, index, counts = np.unique(patient, return_inverse=True, return_counts=True)
    order = np.argsort(scores, kind="stable")
    mass = np.cumsum(1.0 / counts[index[order]])
    # A tolerance below any share of a draw: sums of 1/n must not miss their rank by a rounding error.
    place = int(np.searchsorted(mass, (len(names) + 1) * level - 1e-9))
    return float(scores[order][place]) if place < scores.size else math.inf


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
    averages over patients (what the calibration promises); ``mean_width`` in clinical units over the
    bounded intervals (NaN if none).
    """
    rows = predictions.loc[predictions["split"] == split]
    hours = rows["hours_since_last_lab"].to_numpy(dtype=np.float64)
    inside = (rows["truth"] >= rows["lower"]) & (rows["truth"] <= rows["upper"])
    rows = rows.assign(
        inside=inside, width=rows["upper"] - rows["lower"], gap=gap_labels(hours, gap_edges_hours)
    )
    rows = pd.concat([rows.assign(gap="all"), rows] if len(gap_edges_hours) else [rows])
    keys = ["method", "protocol", "scoring", "seed", "lab", "gap"]
    cells = [
        {**dict(zip(keys, key, strict=True)), **_coverage_cell(part), "nominal": level}
        for key, part in rows.groupby(keys, sort=False, observed=True)
        if isinstance(key, tuple)
    ]
    return pd.DataFrame(cells, columns=list(COVERAGE_COLUMNS))


def _coverage_cell(part: pd.DataFrame) -> dict[str, float | int]:
    width, inside = part["width"].to_numpy(dtype=np.float64), part["inside"].to_numpy(dtype=np.float64)
    index, n_patients = index_patients(part["patient"].to_numpy())
    bounded = np.isfinite(width)
    return {
        "n_labs": len(part),
        "n_patients": n_patients,
        "coverage": float(inside.mean()),
        "coverage_patient_macro": float((np.bincount(index, inside) / np.bincount(index)).mean()),
        "mean_width": float(width[bounded].mean()) if bounded.any() else math.nan,
        "unbounded_share": float(1.0 - bounded.mean()),
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
