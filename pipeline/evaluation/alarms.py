"""How well estimates rank the draws that lie beyond a clinical threshold."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from sklearn.metrics import average_precision_score, roc_auc_score

from pipeline.cohort.scored_set import ScoredSet, scored_sets
from pipeline.foundation import bootstrap
from pipeline.foundation.number_format import UNITS

ALARM_COLUMNS = (
    "alarm", "method", "lab", "protocol", "scoring", "seed", "n_labs", "n_patients", "n_events", "prevalence",
    "auroc", "auroc_lower", "auroc_upper", "auprc", "skipped",
)  # fmt: skip
MINIMUM_EVENTS = 10


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A threshold in the lab's unit; ``above`` tells on which side of it the alarm is."""

    lab: str
    threshold: float
    above: bool

    @property
    def name(self) -> str:
        """For example "potassium > 5.5 mmol/L"."""
        return f"{self.lab} {'>' if self.above else '<'} {self.threshold:g} {UNITS[self.lab]}"

    def events(self, values: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Which values lie beyond the threshold."""
        return values > self.threshold if self.above else values < self.threshold


ALARMS = (
    Alarm(lab="potassium", threshold=5.5, above=True),
    Alarm(lab="potassium", threshold=3.5, above=False),
    Alarm(lab="calcium", threshold=8.0, above=False),
    Alarm(lab="sodium", threshold=130.0, above=False),
    Alarm(lab="sodium", threshold=150.0, above=True),
    Alarm(lab="glucose", threshold=70.0, above=False),
    Alarm(lab="glucose", threshold=180.0, above=True),
    Alarm(lab="lactate", threshold=2.0, above=True),
    Alarm(lab="lactate", threshold=4.0, above=True),
)


def alarm_table(
    predictions: pd.DataFrame,
    *,
    replicates: int = 200,
    seed: int = 0,
    level: float = 0.95,
    split: str = "test",
) -> pd.DataFrame:
    """AUROC and AUPRC of every method for every alarm of ``ALARMS`` (``ALARM_COLUMNS``).

    The estimate itself is the score. AUPRC is the average precision; its chance level is ``prevalence``.
    With fewer than 10 events, or fewer than 10 draws without one, the row is ``skipped``: its counts and
    scores are NaN. The interval of AUROC comes from the bootstrap over patients.
    """
    rows = [
        row
        for block in scored_sets(predictions, split)
        for alarm in ALARMS
        if alarm.lab == block.lab
        for row in _alarm_rows(block, alarm, replicates, seed, level)
    ]
    return pd.DataFrame(rows, columns=list(ALARM_COLUMNS))


def _alarm_rows(
    block: ScoredSet, alarm: Alarm, replicates: int, seed: int, level: float
) -> list[dict[str, object]]:
    events = alarm.events(block.truth)
    n_events = int(events.sum())
    index, n_patients = bootstrap.index_patients(block.patient)
    names = {"alarm": alarm.name, **block.keys, "n_labs": events.size, "n_patients": n_patients}
    if min(n_events, events.size - n_events) < MINIMUM_EVENTS:
        return [{**names, "method": method, "skipped": True} for method in block.estimates]
    weights = bootstrap.replicate_weights(n_patients, replicates, seed)[:, index]
    rows: list[dict[str, object]] = []
    for method, estimate in block.estimates.items():
        score = estimate if alarm.above else -estimate
        lower, upper = bootstrap.percentile_interval(weighted_auroc(events, score, weights), level)
        rows.append(
            {**names, "method": method, "n_events": n_events, "prevalence": n_events / events.size,
             "auroc": float(roc_auc_score(events, score)), "auroc_lower": lower, "auroc_upper": upper,
             "auprc": float(average_precision_score(events, score)), "skipped": False}
        )  # fmt: skip
    return rows


def weighted_auroc(
    events: Bool[np.ndarray, " n"], score: Float[np.ndarray, " n"], weights: Float[np.ndarray, "rows n"]
) -> Float[np.ndarray, " rows"]:
    """AUROC with every draw counted ``weights`` times, one value per row; NaN when all draws are alike.

    The share of pairs (event, no event) that the score puts in order, a tie counting half.
    """
    order = np.argsort(score, kind="stable")
    _, starts = np.unique(score[order], return_index=True)
    with_event = np.add.reduceat(weights[:, order] * events[order], starts, axis=1)
    without = np.add.reduceat(weights[:, order] * ~events[order], starts, axis=1)
    below = np.cumsum(without, axis=1) - without / 2
    pairs = with_event.sum(axis=1) * without.sum(axis=1)
    return np.where(pairs > 0, (with_event * below).sum(axis=1) / np.where(pairs > 0, pairs, 1.0), np.nan)
