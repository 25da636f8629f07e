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
made up, and ``interval_state`` says why. A method that knows how far off each estimate may be is scored by
|f(truth) - f(estimate)| / spread, f the logarithm or nothing, and the half-width counts spreads: as valid, and
narrow where the method knows more. The guarantee is marginal: over patients, not for one.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from pipeline.cohort.scored_set import ScoredSet, check_predictions, scored_sets
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.schema import SPREAD_COLUMNS

WIDTH_KEYS = ("method", "protocol", "seed", "lab")
WIDTH_COLUMNS = (*WIDTH_KEYS, "half_width", "n_labs", "n_patients", "unit")
CLINICAL, SPREADS = "clinical", "spreads"
"""What a half-width counts: clinical units, or the method's own standard deviations (``schema.SPREAD_COLUMNS``)."""
_ONE_BIN = {"gap": "all"}
"""In the file, with the empty key ``gap_edges_hours``: earlier versions could calibrate by hours since the last lab,
and read them."""
INTERVAL_STATE = "interval_state"
"""Column beside ``lower`` and ``upper``: ``GIVEN``, or why there is no interval."""
GIVEN = "ok"
NO_ESTIMATE = "no estimate"
NO_EARLIER_RESULT = "no earlier result of this lab"
"""Every draw that calibrates has one; nothing is known of estimates without."""
NO_INTERVALS = "no calibrated intervals beside the checkpoint"
UNBOUNDED = "the method's own account of its error is too wide for bounds"
NOT_CALIBRATED = "not calibrated for this method, protocol and seed"
_TOLERANCE = 1e-9
"""Below any share of a draw: sums of 1/n must not miss their rank by a rounding error."""


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Half-widths per method, protocol, seed and lab."""

    widths: pd.DataFrame
    """``WIDTH_COLUMNS``; ``half_width`` is NaN where too few patients were at hand."""
    level: float
    """Probability that a draw of a new patient lies inside."""

    def apply(self, predictions: pd.DataFrame) -> pd.DataFrame:
        """Return the predictions with ``lower``, ``upper`` and ``interval_state`` filled.

        Bounds are estimate -/+ half-width, the lower one not below 0 (no lab value is negative: nothing is
        lost); a half-width in spreads is that many of each row's own. Where there is no interval both are NaN and
        the state says why. Dense rows get the width of the measured draws.

        Raises
        ------
        ConfigError
            The method was calibrated by its own spread, and the predictions do not tell it.
        """
        half_width, unit, state = self._looked_up(predictions)
        estimate = predictions["estimate"].to_numpy(dtype=np.float64)
        state = np.where(predictions["last_lab"].isna(), NO_EARLIER_RESULT, state)
        state = np.where(np.isnan(estimate), NO_ESTIMATE, state)
        half_width = np.where(state == GIVEN, half_width, math.nan)
        lower, upper = estimate - half_width, estimate + half_width
        own = unit == SPREADS
        if own.any():
            lower[own], upper[own] = _by_spread(predictions.loc[own], estimate[own], half_width[own])
        unbounded = (state == GIVEN) & ~(np.isfinite(lower) & np.isfinite(upper))
        lower[unbounded], upper[unbounded] = math.nan, math.nan
        state = np.where(unbounded, UNBOUNDED, state)
        return predictions.assign(**{"lower": np.maximum(lower, 0.0), "upper": upper, INTERVAL_STATE: state})

    def _looked_up(self, predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return each row's half-width (NaN without one), its unit and state."""
        keys = list(WIDTH_KEYS)
        rows = pd.MultiIndex.from_frame(predictions.loc[:, keys])
        table = self.widths.assign(state=self._states).set_index(keys)
        calibrated = pd.MultiIndex.from_frame(self.widths.loc[:, keys[:3]])
        known = rows.droplevel("lab").isin(calibrated) | (not len(self.widths))
        absent = np.where(known, _too_few(0, self.level), NOT_CALIBRATED)
        found = table["state"].reindex(rows)
        state = np.where(found.isna(), absent, found.to_numpy(dtype=object)).astype(object)
        found = table.reindex(rows)
        return found["half_width"].to_numpy(dtype=np.float64), found["unit"].to_numpy(dtype=object), state

    @property
    def _states(self) -> list[str]:
        """State of each row of ``widths``."""
        counted = zip(self.widths["half_width"], self.widths["n_patients"], strict=True)
        return [_too_few(int(n), self.level) if math.isnan(width) else GIVEN for width, n in counted]

    def to_json(self) -> str:
        """JSON text; a missing half-width is null, as it always was, and its ``state`` says why."""
        rows = self.widths.assign(state=self._states, **_ONE_BIN).to_dict(orient="records")
        rows = [row | ({"half_width": None} if math.isnan(row["half_width"]) else {}) for row in rows]
        return json.dumps({"level": self.level, "gap_edges_hours": [], "widths": rows}, allow_nan=False)

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
            widths = widths.assign(unit=widths["unit"].fillna(CLINICAL))  # an earlier version knew no other
            widths = widths.astype({"half_width": np.float64, "n_patients": np.int64, "n_labs": np.int64})
            level, edges = float(content["level"]), list(content["gap_edges_hours"])
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(_unreadable(f"{type(error).__name__}: {error}")) from error
        if edges:
            raise ConfigError(_unreadable(f"gap_edges_hours = {edges}; widths by bins of hours are not used"))
        _check_widths(widths, level)
        return cls(widths=widths, level=level)


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
        "is there twice": widths.duplicated(list(WIDTH_KEYS)),
        f"counts neither {CLINICAL} units nor {SPREADS}": ~widths["unit"].isin([CLINICAL, SPREADS]),
    }
    for what, rows in wrong.items():
        if rows.any():
            row = widths.loc[rows].iloc[0]
            named = ", ".join(str(row[key]) for key in ("method", "protocol", "lab"))
            raise ConfigError(_unreadable(f"half_width = {row['half_width']} of {named} {what}"))


def fit_intervals(predictions: pd.DataFrame, level: float = 0.9) -> Intervals:
    """Calibrate the half-widths on the measured draws of the patients of split ``calibration``.

    Parameters
    ----------
    predictions
        Table with ``schema.PREDICTION_COLUMNS``; other splits and dense rows are ignored.
    level
        Probability that a draw of a new patient lies inside, 0..1.

    Returns
    -------
    Intervals; without any calibration patient there is no half-width at all.

    Source: our decision.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    check_predictions(predictions)
    rows = predictions.loc[(predictions["split"] == "calibration") & (predictions["scoring"] == "measured")]
    blocks = scored_sets(rows, "calibration") if len(rows) else []
    widths = [row for block in blocks for row in _fit(block, level)]
    return Intervals(widths=pd.DataFrame(widths, columns=list(WIDTH_COLUMNS)), level=level)


def _fit(block: ScoredSet, level: float) -> list[dict[str, str | float]]:
    counts = {"n_labs": len(block.truth), "n_patients": len(np.unique(block.patient))}
    names = {"protocol": block.protocol, "seed": block.seed, "lab": block.lab}
    return [
        {
            "method": method, **names, "half_width": conformal_half_width(_scores(block, method), block.patient, level),
            **counts, "unit": SPREADS if method in block.spreads else CLINICAL,
        }
        for method in block.estimates
    ]  # fmt: skip


def _scores(block: ScoredSet, method: str) -> np.ndarray:
    """Return how far each draw lies from its estimate, in the unit of the method's half-width."""
    if method not in block.spreads:
        return np.abs(block.estimates[method] - block.truth)
    spread, log_scale = block.spreads[method]
    truth, estimate = (_on_scale(values, log_scale) for values in (block.truth, block.estimates[method]))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.abs(truth - estimate) / spread


def _on_scale(values: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
    return np.where(log_scale, np.log(np.where(log_scale, values, 1.0)), values)


def _by_spread(
    predictions: pd.DataFrame, estimate: np.ndarray, half_width: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds so many of each row's own spreads away."""
    if not set(SPREAD_COLUMNS) <= set(predictions.columns):
        raise ConfigError(
            f"Intervals that count spreads need the columns {list(SPREAD_COLUMNS)} of the predictions; they lack them: "
            "run the score stage again."
        )
    spread, log_scale = (predictions[name] for name in SPREAD_COLUMNS)
    log, reach = log_scale.to_numpy(dtype=bool), half_width * spread.to_numpy(dtype=np.float64)
    with np.errstate(over="ignore"):  # the caller finds such bounds
        ratio = np.exp(np.where(log, reach, 0.0))
        return np.where(log, estimate / ratio, estimate - reach), np.where(
            log, estimate * ratio, estimate + reach
        )


def conformal_half_width(
    scores: Float[np.ndarray, " n"], patient: Shaped[np.ndarray, " n"], level: float
) -> float:
    """Least score s with sum_k F_k(s) >= (K + 1) level over the K patients; NaN when none is finite.

    Examples
    --------
    Nine patients with one score each at 90 %: the rank is ceil(10 * 0.9) = 9, the largest score.
    """
    names, index, counts = np.unique(patient, return_inverse=True, return_counts=True)
    order = np.argsort(scores, kind="stable")
    mass = np.cumsum(1.0 / counts[index[order]])
    place = int(np.searchsorted(mass, (len(names) + 1) * level - _TOLERANCE))
    found = float(scores[order][place]) if place < scores.size else math.nan
    return found if math.isfinite(found) else math.nan  # of a draw where the method claims to know all
