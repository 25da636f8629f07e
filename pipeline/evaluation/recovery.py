"""How much of what could be known from the pulse wave is found: the arithmetic.

On a synthetic cohort the truth is known, and with it the best estimate that anyone could make (the oracle,
from the latent physiology and the same history) and what history alone achieves (the twin: the same model on
another patient's waveform). Recovery = (R2 model - R2 twin) / (R2 oracle - R2 twin). Where labs know nothing
of the pulse (null A) the model must not beat its twin; where nothing can be known (null B) nobody may have
skill. Source: our decision (docs/recovery.md).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.cohort.scored_set import ScoredSet, scored_sets
from pipeline.evaluation.judge import EvaluationConfig
from pipeline.foundation import bootstrap

MODEL, TWIN, ORACLE = "mt_pcs", "mt_pcs_twin", "oracle"
OURS, OUR_TWIN = "mt_assim", "mt_assim_twin"
LEARNED = ("lstm", TWIN, MODEL, "lines", OUR_TWIN, OURS)
SUFFIXES = {MODEL: "", OURS: "_assim"}
"""Of the columns ``added`` and ``recovery``, by the model that they are of."""
LEAST_HEADROOM = 0.02
"""R2 that the oracle must have over the twin: a share of less than that is noise over noise."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One training of every method.

    Attributes
    ----------
    coupling : 0..1, how far labs follow what the pulse wave shows
    null : None, "a" (coupling 0) or "b" (draws independent in time, no patient offset)
    train_share : share of the training patients that are used; test patients are always the same
    cohort_share : size of the cohort, as a share of the experiment's
    """

    name: str
    coupling: float
    null: str | None = None
    train_share: float = 1.0
    cohort_share: float = 1.0


CONDITIONS = (
    Condition(name="coupling 1", coupling=1.0),
    Condition(name="coupling 0 (null A)", coupling=0.0, null="a"),
    Condition(name="coupling 0.5", coupling=0.5),
    Condition(name="coupling 1, half", coupling=1.0, train_share=0.5),
    Condition(name="coupling 1, quarter", coupling=1.0, train_share=0.25),
    Condition(name="null B", coupling=0.0, null="b", cohort_share=0.5),
)
"""The most telling first, so that an interrupted run has shown something."""


def recovery_rows(predictions: pd.DataFrame, config: EvaluationConfig) -> list[dict[str, Any]]:
    """Return one row a protocol and lab of the test patients.

    Parameters
    ----------
    predictions : ``schema.PREDICTION_COLUMNS``, of the twin, MT+PCS, the oracle and any other method

    Returns
    -------
    Rows with ``protocol, lab, n_labs, n_patients``; ``r2_<method>`` of every method, ``added`` (R2 of MT+PCS
    minus R2 of its twin) and ``recovery``, for assimilation ``added_assim`` and ``recovery_assim``, each with
    ``_lower`` and ``_upper``: percentile intervals over the same bootstrap replicates of the
    patients. A recovery is NaN where the oracle is less than `LEAST_HEADROOM` above the twin; both are where model and
    twin give the same estimates.
    """
    return [_row(block, config) for block in scored_sets(predictions, config.split)]


def _row(block: ScoredSet, config: EvaluationConfig) -> dict[str, Any]:
    index, n_patients = bootstrap.index_patients(block.patient)
    weights = bootstrap.replicate_weights(n_patients, config.bootstrap, config.seed)
    r2 = {
        method: bootstrap.pooled_metrics(
            bootstrap.sum_by_patient(estimate, block.truth, index, n_patients), weights
        )["r2"]
        for method, estimate in block.estimates.items()
    }
    numbers = {f"r2_{method}": values for method, values in r2.items()}
    for model, twin in ((MODEL, TWIN), (OURS, OUR_TWIN)):
        if {model, twin} <= r2.keys():
            # Two names for one estimate: nothing was compared.
            same = np.array_equal(block.estimates[model], block.estimates[twin])
            unknown = np.full_like(r2[model], np.nan)
            numbers[f"added{SUFFIXES[model]}"] = unknown if same else r2[model] - r2[twin]
            found = unknown if same else recovery(r2[model], r2[twin], r2[ORACLE])
            numbers[f"recovery{SUFFIXES[model]}"] = found
    row: dict[str, Any] = {"protocol": block.protocol, "lab": block.lab,
                           "n_labs": len(block.draws), "n_patients": n_patients}  # fmt: skip
    for name, values in numbers.items():
        known = n_patients > 1
        lower, upper = bootstrap.percentile_interval(values, config.level) if known else (math.nan, math.nan)
        row |= {name: float(values[0]), f"{name}_lower": lower, f"{name}_upper": upper}
    return row


def recovery(model: np.ndarray, twin: np.ndarray, oracle: np.ndarray) -> np.ndarray:
    """Return (R2 model - R2 twin) / (R2 oracle - R2 twin); NaN where the oracle has no headroom."""
    headroom = oracle - twin
    enough = headroom >= LEAST_HEADROOM
    return np.where(enough, (model - twin) / np.where(enough, headroom, 1.0), np.nan)
