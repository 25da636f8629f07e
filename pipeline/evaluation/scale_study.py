"""Recovery by encoder and read-out, beside what each costs: the arithmetic.

All encoders are judged on the same draws of the same test patients, so that the difference of two is paired. One
training run each: intervals cover the choice of patients, not the luck of training.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.cohort.scored_set import ScoredSet, scored_sets
from pipeline.evaluation.judge import EvaluationConfig
from pipeline.evaluation.recovery import MODEL, recovery_rows
from pipeline.foundation import bootstrap
from pipeline.foundation.schema import WINDOW_SECONDS

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
