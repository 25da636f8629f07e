"""A method's R2 on emulated embeddings minus that on rendered ones: the arithmetic.

Both are judged on the same draws of the same patients, under several divisions of one cohort and for several draws of
the emulator; what is compared are the means. A patient is held out in several divisions: in a replicate of the
bootstrap a patient who is drawn twice counts twice in all of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.cohort.scored_set import ScoredSet, scored_sets
from pipeline.evaluation.judge import EvaluationConfig
from pipeline.foundation import bootstrap
from pipeline.foundation.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DivisionPredictions:
    """Predictions (``schema.PREDICTION_COLUMNS``) of one division's test draws: rendered, and one a draw emulated."""

    rendered: pd.DataFrame
    emulated: tuple[pd.DataFrame, ...]


def emulation_rows(
    divisions: Sequence[DivisionPredictions], method: str, config: EvaluationConfig
) -> pd.DataFrame:
    """Return one row a protocol and lab.

    Returns
    -------
    ``protocol, lab``; ``n_labs`` (over all divisions) and ``n_patients`` (of them all, each once); ``rendered`` and
    ``emulated``, mean R2; ``difference`` with ``_lower`` and ``_upper``; ``spread``, SD of the difference over the
    emulator's draws (NaN of one).

    Raises
    ------
    ConfigError : the two were not judged on the same draws
    """
    rendered = [_blocks(division.rendered, config) for division in divisions]
    emulated = [[_blocks(frame, config) for frame in division.emulated] for division in divisions]
    keys = [key for key in rendered[0] if all(key in blocks for blocks in rendered)]
    rows = [
        _row(key, [blocks[key] for blocks in rendered], [[one[key] for one in draws] for draws in emulated],
             method, config)
        for key in keys
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _blocks(predictions: pd.DataFrame, config: EvaluationConfig) -> dict[tuple[str, str], ScoredSet]:
    return {(block.protocol, block.lab): block for block in scored_sets(predictions, config.split)}


def _row(
    key: tuple[str, str],
    rendered: Sequence[ScoredSet],
    emulated: Sequence[Sequence[ScoredSet]],
    method: str,
    config: EvaluationConfig,
) -> dict[str, Any]:
    patients = np.unique(np.concatenate([block.patient for block in rendered]))
    weights = bootstrap.replicate_weights(len(patients), config.bootstrap, config.seed)
    before, after = [], []
    for block, draws in zip(rendered, emulated, strict=True):
        if not all(_same_draws(block, one) for one in draws):
            raise ConfigError(f"{key}: emulated and rendered embeddings were not judged on the same draws")
        before.append(_r2(block, method, patients, weights))
        after.append([_r2(one, method, patients, weights) for one in draws])
    ours = np.mean(before, axis=0)
    by_draw = np.mean(after, axis=0)  # (draws, replicates)
    difference = by_draw.mean(axis=0) - ours
    lower, upper = bootstrap.percentile_interval(difference, config.level)
    return {
        "protocol": key[0], "lab": key[1], "n_labs": sum(len(block.truth) for block in rendered),
        "n_patients": len(patients), "rendered": float(ours[0]), "emulated": float(by_draw[:, 0].mean()),
        "difference": float(difference[0]), "difference_lower": lower, "difference_upper": upper,
        "spread": float(by_draw[:, 0].std(ddof=1)) if len(by_draw) > 1 else math.nan,
    }  # fmt: skip


def _same_draws(one: ScoredSet, other: ScoredSet) -> bool:
    return np.array_equal(one.truth, other.truth) and np.array_equal(one.patient, other.patient)


def _r2(block: ScoredSet, method: str, patients: np.ndarray, weights: np.ndarray) -> bootstrap.Replicates:
    """Return R2 of one division's draws, by replicate; NaN where none of its patients was drawn."""
    index, _ = bootstrap.index_patients(block.patient)
    own = weights[:, np.searchsorted(patients, np.unique(block.patient))]
    with np.errstate(invalid="ignore", divide="ignore"):
        return bootstrap.pooled_r2(block.estimates[method], block.truth, index, own)
