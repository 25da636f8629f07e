"""Prediction intervals by split conformal, calibrated over patients.

Draws of one patient are not exchangeable with another's, patients are. So the score |truth - estimate| is
pooled with every calibration patient weighing the same, however often they were drawn, and the next patient
stands at infinity: with K patients and F_k the share of patient k's scores up to s, the half-width is the
least score s with

    sum_k F_k(s) >= (K + 1) * level.

A draw of a new patient then lies inside with probability of at least ``level``, whatever the error's
distribution (hierarchical conformal prediction: Lee, Barber and Willett 2023, after Dunn, Wasserman and
Ramdas, arXiv 1809.07441). Nothing is sampled, so there is no seed. When K < level / (1 - level), 9 patients
at 90 %, no finite width keeps that promise: there is no interval. Its bounds are NaN, never infinite and never
made up, and ``interval_state`` says why. The guarantee is marginal: over patients, not for one.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from pipeline.cohort.scored_sets import ScoredSet, check_predictions, scored_sets
from pipeline.foundation.bootstrap import index_patients
from pipeline.foundation.errors import ConfigError

WIDTH_COLUMNS = ("method", "protocol", "seed", "lab", "gap", "half_width", "n_labs", "n_patients")
COVERAGE_COLUMNS = (
    "method", "protocol", "scoring", "seed", "lab", "gap", "n_labs", "n_patients", "nominal", "coverage",
    "coverage_patient_macro", "mean_width", "missing_share", "missing_reason",
)  # fmt: skip
INTERVAL_STATE = "interval_state"
"""Column beside ``lower`` and ``upper``: ``GIVEN``, or why there is no interval."""
GIVEN = "ok"
NO_ESTIMATE = "no estimate"
NO_EARLIER_RESULT = "no earlier result of this lab"
"""Every draw that calibrates has one; nothing is known of estimates without."""
NO_INTERVALS = "no calibrated intervals beside the checkpoint"
NOT_CALIBRATED = "not calibrated for this method, protocol and seed"
NOT_RECORDED = "reason not recorded"
"""In a predictions file that an earlier version wrote."""
_TOLERANCE = 1e-9
"""Below any share of a draw: sums of 1/n must not miss their rank by a rounding error."""
GAP_EDGES_HOURS = (2.0, 4.0, 8.0, 12.0, 24.0)
"""Hours since the last lab at which the bins of the tables are cut."""


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Half-widths in clinical units per method, protocol, seed, lab and bin of hours since the last lab."""

    widths: pd.DataFrame
    """``WIDTH_COLUMNS``; ``half_width`` is NaN where too few patients were at hand."""
    level: float
    """Probability that a draw of a new patient lies inside."""
    gap_edges_hours: tuple[float, ...] = ()
    """Hours since the last lab at which the bins are cut; empty: one bin."""

    def apply(self, predictions: pd.DataFrame) -> pd.DataFrame:
        """Return the predictions with ``lower``, ``upper`` and ``interval_state`` filled.

        Bounds are estimate -/+ half-width, the lower one not below 0 (no lab value is negative: nothing is
        lost). Where there is no interval both are NaN and the state says why. Dense rows get the width of the
        measured draws.
        """
        half_width, state = self._looked_up(predictions)
        estimate = predictions["estimate"].to_numpy(dtype=np.float64)
        state = np.where(predictions["last_lab"].isna(), NO_EARLIER_RESULT, state)
        state = np.where(np.isnan(estimate), NO_ESTIMATE, state)
        half_width = np.where(state == GIVEN, half_width, math.nan)
        lower = np.maximum(estimate - half_width, 0.0)
        return predictions.assign(**{"lower": lower, "upper": estimate + half_width, INTERVAL_STATE: state})

    def _looked_up(self, predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Return each row's half-width (NaN without one) and state."""
        keys = ["method", "protocol", "seed", "lab", "gap"]
        gap = gap_labels(predictions["hours_since_last_lab"].to_numpy(dtype=np.float64), self.gap_edges_hours)
        rows = pd.MultiIndex.from_arrays([*(predictions[key] for key in keys[:-1]), gap], names=keys)
        table = self.widths.assign(state=self._states).set_index(keys)
        calibrated = pd.MultiIndex.from_frame(self.widths.loc[:, keys[:3]])
        known = rows.droplevel(["lab", "gap"]).isin(calibrated) | (not len(self.widths))
        absent = np.where(known, _too_few(0, self.level), NOT_CALIBRATED)
        found = table["state"].reindex(rows)
        state = np.where(found.isna(), absent, found.to_numpy(dtype=object)).astype(object)
        return table["half_width"].reindex(rows).to_numpy(dtype=np.float64), state

    @property
    def _states(self) -> list[str]:
        """State of each row of ``widths``."""
        counted = zip(self.widths["half_width"], self.widths["n_patients"], strict=True)
        return [_too_few(int(n), self.level) if math.isnan(width) else GIVEN for width, n in counted]

    def half_width(
        self, *, method: str, protocol: str, lab: str, seed: int = 0, hours_since_last_lab: float = 0.0
    ) -> float:
        """Half-width of one estimate in clinical units; NaN when nothing was calibrated for it."""
        gap = gap_labels(np.array([hours_since_last_lab]), self.gap_edges_hours)[0]
        wanted = {"method": method, "protocol": protocol, "seed": seed, "lab": lab, "gap": gap}
        rows = self.widths.loc[(self.widths[list(wanted)] == pd.Series(wanted)).all(axis=1), "half_width"]
        return float(rows.iloc[0]) if len(rows) else math.nan

    def to_json(self) -> str:
        """JSON text; a missing half-width is null, as it always was, and its ``state`` says why."""
        rows = self.widths.assign(state=self._states).to_dict(orient="records")
        rows = [row | ({"half_width": None} if math.isnan(row["half_width"]) else {}) for row in rows]
        return json.dumps(
            {"level": self.level, "gap_edges_hours": list(self.gap_edges_hours), "widths": rows},
            allow_nan=False,
        )

    @classmethod
    def load(cls, path: Path) -> "Intervals":
        """Read the file ``intervals.json`` of a checkpoint.

        Raises
        ------
        ConfigError
            The file does not hold what ``to_json`` wrote.
        """
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except (UnicodeDecodeError, ConfigError) as error:
            told = str(error) if isinstance(error, ConfigError) else _unreadable("it is not text in UTF-8")
            raise ConfigError(f"{path}: {told}") from error

    @classmethod
    def from_json(cls, text: str) -> "Intervals":
        """Read what ``to_json`` wrote, in this version or an earlier one.

        Raises
        ------
        ConfigError
            The text is no such JSON, or a number in it cannot be: a level outside 0..1, a half-width that is
            infinite, negative, missing although enough patients calibrated it, or there twice.
        """
        try:
            content = json.loads(text, parse_constant=_refuse_constant)
            widths = pd.DataFrame(content["widths"], columns=list(WIDTH_COLUMNS))
            widths = widths.astype({"half_width": np.float64, "n_patients": np.int64, "n_labs": np.int64})
            level, edges = float(content["level"]), tuple(float(edge) for edge in content["gap_edges_hours"])
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(_unreadable(f"{type(error).__name__}: {error}")) from error
        _check_widths(widths, level)
        return cls(widths=widths, level=level, gap_edges_hours=edges)


def least_patients(level: float) -> int:
    """Fewest calibration patients that allow an interval: the least K with K >= (K + 1) level.

    Examples
    --------
    >>> least_patients(0.9)
    9
    """
    return math.ceil((level - _TOLERANCE) / (1 - level))


def _too_few(n_patients: int, level: float) -> str:
    return f"too few calibration patients: {n_patients} of at least {least_patients(level)}"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number that JSON knows; a missing half-width is null")


def _unreadable(why: str) -> str:
    return (
        f"The intervals cannot be read ({why}). They are the JSON that the score stage writes beside each "
        "checkpoint: run it again."
    )


def _check_widths(widths: pd.DataFrame, level: float) -> None:
    if not 0 < level < 1:
        raise ConfigError(_unreadable(f"level = {level} must lie between 0 and 1"))
    width = widths["half_width"]
    wrong = {
        "is infinite or negative": np.isinf(width) | (width < 0),
        "is null although enough patients calibrated it": width.isna()
        & (widths["n_patients"] >= least_patients(level)),
        "is there twice": widths.duplicated(["method", "protocol", "seed", "lab", "gap"]),
    }
    for what, rows in wrong.items():
        if rows.any():
            row = widths.loc[rows].iloc[0]
            named = ", ".join(str(row[key]) for key in ("method", "protocol", "lab", "gap"))
            raise ConfigError(_unreadable(f"half_width = {row['half_width']} of {named} {what}"))


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
        When given, one half-width per bin of hours since the last lab; a bin with too few patients has
        none.

    Returns
    -------
    Intervals; without any calibration patient there is no half-width at all.

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
    """Least score s with sum_k F_k(s) >= (K + 1) level over the K patients; NaN when there is none.

    Examples
    --------
    Nine patients with one score each at 90 %: the rank is ceil(10 * 0.9) = 9, the largest score.
    """
    names, index, counts = np.unique(patient, return_inverse=True, return_counts=True)
    order = np.argsort(scores, kind="stable")
    mass = np.cumsum(1.0 / counts[index[order]])
    place = int(np.searchsorted(mass, (len(names) + 1) * level - _TOLERANCE))
    return float(scores[order][place]) if place < scores.size else math.nan


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
        reason=rows.get(INTERVAL_STATE, NOT_RECORDED),
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
