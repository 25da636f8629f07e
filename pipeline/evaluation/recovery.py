"""How much of what could be known from the pulse wave is found: the arithmetic.

On a synthetic cohort the truth is known, and with it the best estimate that anyone could make: the oracle's, from the
latent physiology and the same history, and the ideal reader's, who sees the true pulse shape and no latent. What
history alone achieves says the twin: the same model on another patient's waveform. Recovery = (R2 model - R2 twin) /
(R2 best - R2 twin); of assimilation over its twin or the ideal filter on results alone, whichever is better, so that a
poor twin makes no recovery. Where labs know nothing of the pulse (null A) a model must not beat its twin; where nothing
can be known (null B) nobody may have skill. Source: our decision (docs/recovery.md).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.cohort.scored_set import ScoredSet, scored_sets
from pipeline.evaluation.judge import EvaluationConfig
from pipeline.foundation import bootstrap
from pipeline.foundation.errors import ConfigError

MODEL, TWIN, ORACLE = "mt_pcs", "mt_pcs_twin", "oracle"
OURS, OUR_TWIN, OUR_LINES = "mt_assim", "mt_assim_twin", "mt_assim_lines"
ZERO_H0 = "mt"
"""MT+PCS but for its initial state, which is zero; trained where it is asked for."""
IDEAL, ON_EMBEDDING, RESULTS_ALONE = "ideal_reader", "ideal_on_embedding", "ideal_results"
"""Who knows the cohort's law and sees the true pulse shape, the shape as the embedding tells it, or results alone."""
LEARNED = ("lstm", TWIN, MODEL, "lines", OUR_TWIN, OUR_LINES, OURS)
SUFFIXES = {MODEL: "", OURS: "_assim"}
"""Of the columns ``added``, ``recovery``, ``recovery_ideal`` and ``loss_...``, by the model that they are of."""
TWIN_OF = {MODEL: TWIN, OURS: OUR_TWIN}
PART_ADDED = {"added_network": (OURS, OUR_LINES), "added_h0": (MODEL, ZERO_H0)}
"""What a part of a method adds: the method, and the same without the part."""
WITHOUT_TWIN = {"lines": "_lines", "lstm": "_lstm"}
"""Of the column ``loss_method``: what a method without a twin loses by itself and in its history together."""
LEAST_HEADROOM = 0.02
"""R2 that the best must have over the twin: a share of less than that is noise over noise."""
Numbers = dict[str, bootstrap.Replicates]


def recovery_rows(predictions: pd.DataFrame, config: EvaluationConfig) -> list[dict[str, Any]]:
    """Return one row a protocol and lab of the test patients.

    Parameters
    ----------
    predictions : ``schema.PREDICTION_COLUMNS``, of the twin, MT+PCS, the oracle and any other method, each of one or
        more training runs (seeds); all on the same draws

    Returns
    -------
    Rows with ``protocol, lab, n_labs, n_patients``; ``r2_<method>`` of every method, the mean over its training runs;
    ``added`` (R2 of MT+PCS minus R2 of its twin), ``recovery`` (against the oracle), ``recovery_ideal`` (against the
    ideal reader), and the parts of what is missing to the oracle (`_losses`); of assimilation the same with
    ``_assim``, and ``added_network``: its R2 minus that of the same filters read by lines alone. ``added_h0``: R2 of
    MT+PCS minus that of MT, whose initial state is zero, where both are there. Each has ``_lower`` and ``_upper``:
    percentile intervals over the same bootstrap replicates of the patients, and over training runs where there are
    several. ``added``, ``added_...`` and every ``r2_`` also have ``_simultaneous_lower``, ``_simultaneous_upper`` and
    ``_p_holm``: over all labs and protocols together. A recovery is NaN where the best is less than `LEAST_HEADROOM`
    above what history alone achieves; both are where model and twin give the same estimates, which ``same`` and
    ``same_assim`` tell.

    Raises
    ------
    ConfigError : training runs, or methods, were scored on different draws
    """
    cells: dict[tuple[str, str], list[ScoredSet]] = {}
    for block in scored_sets(predictions, config.split):
        cells.setdefault((block.protocol, block.lab), []).append(block)
    rows, numbers = [], []
    for blocks in cells.values():
        row, own = _cell(blocks, config)
        rows.append(row)
        numbers.append(own)
    _add_simultaneous(rows, numbers, config)
    return rows


def _cell(blocks: Sequence[ScoredSet], config: EvaluationConfig) -> tuple[dict[str, Any], Numbers]:
    """Return the row of one protocol and lab, and its numbers, one value a replicate."""
    first = blocks[0]
    for block in blocks[1:]:
        if not block.draws.equals(first.draws):
            raise ConfigError(
                f"The training runs of {first.lab} ({first.protocol}) were scored on different draws: predict them "
                "from the same aligned cohort."
            )
    index, n_patients = bootstrap.index_patients(first.patient)
    weights = bootstrap.replicate_weights(n_patients, config.bootstrap, config.seed)
    runs: dict[str, list[np.ndarray]] = {}
    for block in blocks:
        for method, estimate in block.estimates.items():
            runs.setdefault(method, []).append(estimate)
    r2 = {method: _r2(estimates, first.truth, index, weights, config) for method, estimates in runs.items()}
    numbers, same = {f"r2_{method}": values for method, values in r2.items()}, {}
    for model, twin in TWIN_OF.items():
        if {model, twin} <= r2.keys():
            same[f"same{SUFFIXES[model]}"] = _same(runs[model], runs[twin])
            numbers |= _of_model(model, r2, same=same[f"same{SUFFIXES[model]}"])
    for name, (whole, without) in PART_ADDED.items():
        if {whole, without} <= r2.keys():
            alike = _same(runs[whole], runs[without])
            numbers[name] = np.full_like(r2[whole], np.nan) if alike else r2[whole] - r2[without]
    numbers |= _losses(r2)
    row: dict[str, Any] = {"protocol": first.protocol, "lab": first.lab,
                           "n_labs": len(first.draws), "n_patients": n_patients, **same}  # fmt: skip
    for name, values in numbers.items():
        known = n_patients > 1
        lower, upper = bootstrap.percentile_interval(values, config.level) if known else (math.nan, math.nan)
        row |= {name: float(values[0]), f"{name}_lower": lower, f"{name}_upper": upper}
    return row, numbers


def _r2(
    runs: Sequence[np.ndarray],
    truth: np.ndarray,
    index: np.ndarray,
    weights: np.ndarray,
    config: EvaluationConfig,
) -> bootstrap.Replicates:
    """Return R2, the mean over training runs, one value a replicate."""
    each = [bootstrap.pooled_r2(run, truth, index, weights) for run in runs]
    return bootstrap.mean_over_seeds(np.stack(each), config.seed)


def _same(model: Sequence[np.ndarray], twin: Sequence[np.ndarray]) -> bool:
    """Tell whether every run of both gives one estimate: two names for it, and nothing was compared."""
    return all(np.array_equal(run, model[0]) for run in (*model, *twin))


def _of_model(model: str, r2: Mapping[str, np.ndarray], *, same: bool) -> Numbers:
    suffix, twin = SUFFIXES[model], TWIN_OF[model]
    unknown = np.full_like(r2[model], np.nan)
    found = {f"added{suffix}": unknown if same else r2[model] - r2[twin]}
    for name, best in (("recovery", ORACLE), ("recovery_ideal", IDEAL)):
        if best in r2:
            found[f"{name}{suffix}"] = unknown if same else recovery(r2[model], _history(model, r2), r2[best])
    return found


def _history(model: str, r2: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return what history alone achieves: of assimilation its twin or the ideal filter on results, the better one.

    Which of them is decided once, by R2 over all patients, not anew in every replicate.
    """
    twin = r2[TWIN_OF[model]]
    if model != OURS or RESULTS_ALONE not in r2:
        return twin
    return max(twin, r2[RESULTS_ALONE], key=lambda values: float(values[0]))


def _losses(r2: Mapping[str, np.ndarray]) -> Numbers:
    """Return the parts of what each method lacks of the oracle, in R2; per method they add up to all that it lacks.

    ``loss_unseen``: oracle minus ideal reader, what no pulse shows. ``loss_encoder``: ideal reader minus the same
    filter on what the embedding tells of the shape. ``loss_history``: what a model's twin, which has history alone,
    lacks of the ideal filter on results alone. ``loss_method``: the rest, what the method does not get out of the
    embedding; of a method without a twin, its history's loss too.
    """
    if not {ORACLE, IDEAL, ON_EMBEDDING, RESULTS_ALONE} <= r2.keys():
        return {}
    found = {"loss_unseen": r2[ORACLE] - r2[IDEAL], "loss_encoder": r2[IDEAL] - r2[ON_EMBEDDING]}
    for model, suffix in (*SUFFIXES.items(), *WITHOUT_TWIN.items()):
        if model in r2:
            rest, twin = r2[ON_EMBEDDING] - r2[model], TWIN_OF.get(model)
            if twin is not None and twin in r2:
                found[f"loss_history{suffix}"] = r2[RESULTS_ALONE] - r2[twin]
                rest = rest - found[f"loss_history{suffix}"]
            if twin is None or twin in r2:
                found[f"loss_method{suffix}"] = rest
    return found


def _add_simultaneous(rows: list[dict[str, Any]], numbers: list[Numbers], config: EvaluationConfig) -> None:
    """Add to the rows of all labs and protocols the intervals that hold together; one patient shows nothing."""
    names = dict.fromkeys(name for own in numbers for name in own if name.startswith(("added", "r2_")))
    for name in names:
        having = [i for i, own in enumerate(numbers) if name in own]
        several = [rows[i]["n_patients"] > 1 for i in having]
        values = [
            numbers[i][name] if known else np.full_like(numbers[i][name], np.nan)
            for i, known in zip(having, several, strict=True)
        ]
        for i, found in zip(having, bootstrap.simultaneous(values, config.level), strict=True):
            rows[i] |= {
                f"{name}_simultaneous_lower": found.lower, f"{name}_simultaneous_upper": found.upper,
                f"{name}_p_holm": found.p,
            }  # fmt: skip


def recovery(model: np.ndarray, twin: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Return (R2 model - R2 twin) / (R2 best - R2 twin); NaN where the best has no headroom."""
    headroom = best - twin
    enough = headroom >= LEAST_HEADROOM
    return np.where(enough, (model - twin) / np.where(enough, headroom, 1.0), np.nan)
