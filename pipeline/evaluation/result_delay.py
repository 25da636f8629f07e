"""The same models when results come later: what a delay between draw and result costs each method.

MIMIC-III tells when blood was drawn, not when its result was known. Headline figures take both for one
moment, which favours every method that uses earlier labs. Here nothing is known before `delay` minutes after
its draw; models are scored as they were trained, baselines are fitted anew.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.alignment import align
from pipeline.cohort.base import WindowStore
from pipeline.cohort.sequences import Sequences
from pipeline.cohort.splits import Splits
from pipeline.evaluation.delay_methods import ADDED
from pipeline.evaluation.judge import EvaluationConfig, compare, evaluate, select
from pipeline.foundation.schema import BASELINES, MINUTE_US, PROTOCOLS
from pipeline.labs.carry_forward import fit_carry_forward
from pipeline.labs.cleaning import LabEvents
from pipeline.prediction.scoring import score, score_estimator

DELAYS_MINUTES = (0, 30, 60)
DELAY_COLUMNS = (
    "delay_minutes", "protocol", "lab", "method", "n_labs", "n_patients", "r2", "r2_lower", "r2_upper", "mae",
    "mae_lower", "mae_upper",
)  # fmt: skip


def delayed_events(lab_events: pd.DataFrame, minutes: int) -> pd.DataFrame:
    """Return the lab events with no result known sooner than `minutes` after its draw."""
    earliest = lab_events["sampled_at_us"] + minutes * MINUTE_US
    return lab_events.assign(available_at_us=np.maximum(lab_events["available_at_us"], earliest))


def delay_table(
    aligned: AlignedCohort,
    lab_events: pd.DataFrame,
    store: WindowStore,
    splits: Splits,
    checkpoints: Mapping[str, Sequence[Path]],
    config: EvaluationConfig | None = None,
    delays_minutes: Sequence[int] = DELAYS_MINUTES,
) -> pd.DataFrame:
    """Align the cohort under each delay, score the given methods and LOCF, and judge them.

    Parameters
    ----------
    aligned : the cohort as it was aligned for training
    checkpoints : folders of each trained method, one a seed

    Returns
    -------
    ``DELAY_COLUMNS``, measured draws pooled, the mean over seeds; rows of method ``ADDED`` hold the difference of
    MT+PCS and its twin. A delay moves draws into and out of the scored set: compare methods within a delay.
    """
    config = config or EvaluationConfig()
    parts = []
    for minutes in delays_minutes:
        events = LabEvents(frame=delayed_events(lab_events, minutes))
        cohort = align(Sequences(frame=aligned.sequences), events, store, aligned.config)
        scored = pd.concat(_scored(cohort, store, splits, checkpoints, config.split), ignore_index=True)
        parts += [rows.assign(delay_minutes=minutes) for rows in _judged(scored, config)]
    table = pd.concat(parts, ignore_index=True)
    return table.loc[:, list(DELAY_COLUMNS)]


def _scored(
    cohort: AlignedCohort,
    store: WindowStore,
    splits: Splits,
    checkpoints: Mapping[str, Sequence[Path]],
    split: str,
) -> Iterator[pd.DataFrame]:
    of_training = cohort.examples["patient_id"].isin(splits.patients("train"))
    fitted = fit_carry_forward(cohort.examples.loc[of_training])
    for name in BASELINES:
        yield score_estimator(name, fitted[name].estimate, cohort, splits, splits_to_score=(split,))
    for folder in (folder for folders in checkpoints.values() for folder in folders):
        yield score(folder, cohort, store, splits, splits_to_score=(split,))


def _judged(scored: pd.DataFrame, config: EvaluationConfig) -> Iterator[pd.DataFrame]:
    metrics = evaluate(scored, config)
    both = {"mt_pcs", "mt_pcs_twin"} <= set(scored["method"])
    differences = compare(scored, "mt_pcs", "mt_pcs_twin", config) if both else None
    for protocol in PROTOCOLS:
        yield select(metrics, protocol=protocol)
        if differences is not None:
            yield _added(select(differences, protocol=protocol))


def _added(differences: pd.DataFrame) -> pd.DataFrame:
    """Put differences in R2 and MAE beside each other, as the metrics of a method stand."""
    key = ["protocol", "lab", "n_labs", "n_patients"]
    parts = []
    for metric in ("r2", "mae"):
        names = {"difference": metric, "lower": f"{metric}_lower", "upper": f"{metric}_upper"}
        rows = differences.loc[differences["metric"] == metric].rename(columns=names)
        parts.append(rows[[*key, *names.values()]])
    return parts[0].merge(parts[1], on=key).assign(method=ADDED)
