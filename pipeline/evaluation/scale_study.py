"""Recovery by encoder and read-out, beside what each costs: the arithmetic and the table.

All encoders are judged on the same draws of the same test patients, so that the difference of two is paired. One
training run each: intervals cover the choice of patients, not the luck of training.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.cohort.scored_set import ScoredSet, scored_sets
from pipeline.evaluation.judge import EvaluationConfig
from pipeline.evaluation.recovery import MODEL, recovery_rows
from pipeline.foundation import bootstrap
from pipeline.foundation.number_format import ABSENT, interval, number, signed
from pipeline.foundation.schema import LAB_NAMES, WINDOW_SECONDS

WEEK_WINDOWS = 7 * 86_400 // WINDOW_SECONDS
BYTES_PER_NUMBER = 2
"""Of the store: float16."""


@dataclass(frozen=True, kw_only=True)
class EncoderCost:
    """What one encoder costs on this machine.

    Attributes
    ----------
    width : numbers a window
    windows, seconds : embedded and timed, reading, cutting and writing included; 0 where that was not seen here
    cohort_windows : of the whole cohort
    """

    width: int
    windows: int
    seconds: float
    cohort_windows: int

    @property
    def windows_per_second(self) -> float:
        """Windows a second through stage 1; NaN where none were timed."""
        return self.windows / self.seconds if self.windows and self.seconds > 0 else math.nan

    @property
    def embedding_minutes(self) -> float:
        """Of the whole cohort at that speed."""
        return self.cohort_windows / self.windows_per_second / 60

    @property
    def week_bytes(self) -> int:
        """Bytes of a patient-week in the store."""
        return WEEK_WINDOWS * self.width * BYTES_PER_NUMBER


@dataclass(frozen=True, kw_only=True)
class StudiedEncoder:
    """One encoder's outcome: its predictions of test draws, what it cost, and how many patients it learnt from."""

    predictions: pd.DataFrame
    cost: EncoderCost
    train_patients: int


def scale_rows(found: Mapping[str, StudiedEncoder], config: EvaluationConfig) -> pd.DataFrame:
    """Return one row an encoder, protocol and lab: the columns of ``recovery_rows``, cost, and ``gain``.

    ``gain`` is R2 minus that of the first encoder, with ``_lower`` and ``_upper``; NaN where the draws differ.
    """
    first = next(iter(found))
    base = {_key(block): block for block in scored_sets(found[first].predictions, config.split)}
    rows = []
    for name, one in found.items():
        blocks = {_key(block): block for block in scored_sets(one.predictions, config.split)}
        for row in recovery_rows(one.predictions, config):
            key = (row["protocol"], row["lab"])
            gain = _gain(blocks[key], base.get(key), config) if name != first else (math.nan,) * 3
            rows.append(
                {"encoder": name, "width": one.cost.width, "windows_per_second": one.cost.windows_per_second,
                 "embedding_minutes": one.cost.embedding_minutes, "week_bytes": one.cost.week_bytes,
                 "train_patients": one.train_patients, **row,
                 **dict(zip(("gain", "gain_lower", "gain_upper"), gain, strict=True))}
            )  # fmt: skip
    return pd.DataFrame(rows)


def _key(block: ScoredSet) -> tuple[str, str]:
    return block.protocol, block.lab


def _gain(block: ScoredSet, base: ScoredSet | None, config: EvaluationConfig) -> tuple[float, float, float]:
    if (
        base is None
        or not np.array_equal(block.truth, base.truth)
        or not np.array_equal(block.patient, base.patient)
    ):
        return math.nan, math.nan, math.nan
    index, n_patients = bootstrap.index_patients(block.patient)
    weights = bootstrap.replicate_weights(n_patients, config.bootstrap, config.seed)
    r2 = [
        bootstrap.pooled_metrics(
            bootstrap.sum_by_patient(one.estimates[MODEL], one.truth, index, n_patients), weights
        )["r2"]
        for one in (block, base)
    ]
    difference = r2[0] - r2[1]
    lower, upper = bootstrap.percentile_interval(difference, config.level)
    return float(difference[0]), lower, upper


def scale_text(table: pd.DataFrame, about: str) -> str:
    """Return the study as text: cost first, then R2 and recovery by protocol and lab.

    Parameters
    ----------
    about : cohort, seed and recipe, in words
    """
    wide = max(len("shrunk LOCF"), *(len(name) for name in table["encoder"])) + 1
    lines = [about, "", *_costs(table, wide), ""]
    for protocol, rows in table.groupby("protocol", sort=False):
        lines += [*_protocol(str(protocol), rows, wide), ""]
    lines += [
        "Recovery: share of what the oracle, which knows the latents, is above the same method on another patient's",
        "waveform; no pulse shows all that the oracle knows. Gain: R2 minus the first encoder's, on the same draws.",
        "Same estimates: neither line takes the waveform, which did not clearly lower the error of patients left out.",
        "One training run each: the intervals, 95 % over test patients, do not cover the luck of training.",
    ]
    return "\n".join(lines) + "\n"


def _costs(table: pd.DataFrame, wide: int) -> list[str]:
    lines = [f"{'':<{wide}}{'width':>6}{'windows/s':>11}{'minutes':>9}{'MB a patient-week':>19}"]
    for name, rows in table.groupby("encoder", sort=False):
        row: dict[Any, Any] = rows.iloc[0].to_dict()
        speed, minutes = number(row["windows_per_second"], 0), number(row["embedding_minutes"], 1)
        lines.append(
            f"{name:<{wide}}{row['width']:>6}{speed:>11}{minutes:>9}{row['week_bytes'] / 1e6:>19.1f}"
        )
    return [
        *lines,
        "windows/s, minutes: reading, cutting, encoding and storing the cohort, on this machine as busy as it was",
    ]


def _protocol(protocol: str, rows: pd.DataFrame, wide: int) -> list[str]:
    labs = [lab for lab in LAB_NAMES if lab in set(rows["lab"])]
    by_lab = {lab: rows.loc[rows["lab"] == lab] for lab in labs}
    some: dict[str, dict[Any, Any]] = {lab: part.iloc[0].to_dict() for lab, part in by_lab.items()}
    counts = ", ".join(f"{lab} {row['n_labs']}/{row['n_patients']}" for lab, row in some.items())
    lines = [
        f"protocol {protocol}, {rows['train_patients'].iloc[0]} training patients; test draws/patients: {counts}"
    ]
    lines.append(f"{'R2 (recovery)':<{wide}}" + "".join(f"{lab:>17}" for lab in labs))
    for column, label in (("r2_shrunk_locf", "shrunk LOCF"), ("r2_oracle", "oracle")):
        lines.append(f"{label:<{wide}}" + "".join(f"{number(some[lab][column]):>9}{'':>8}" for lab in labs))
    for kind, cells in (("", _r2_cells), ("R2, 95 %", _interval_cells), ("gain", _gain_cells)):
        if kind:
            lines.append(kind)
        for name in dict.fromkeys(rows["encoder"]):
            ours = [part.loc[part["encoder"] == name].iloc[0].to_dict() for part in by_lab.values()]
            lines.append(f"{name:<{wide}}" + "".join(f"{cell:>17}" for cell in map(cells, ours)))
    return lines


def _r2_cells(row: Mapping[Any, Any]) -> str:
    return f"{number(row[f'r2_{MODEL}'])} ({number(row['recovery'])})"


def _interval_cells(row: Mapping[Any, Any]) -> str:
    return interval(row[f"r2_{MODEL}_lower"], row[f"r2_{MODEL}_upper"], 2)


def _gain_cells(row: Mapping[Any, Any]) -> str:
    if math.isnan(row["gain"]):
        return ABSENT
    if row["gain"] == row["gain_lower"] == row["gain_upper"] == 0:
        return "same estimates"
    return f"{signed(row['gain'])} {interval(row['gain_lower'], row['gain_upper'], 2)}".replace(", ", ",")
