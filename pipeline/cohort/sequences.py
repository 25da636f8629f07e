"""Cut a patient's usable windows into sequences: one per admission and run of recording, at most 7 days."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pipeline.cohort.base import WindowStore
from pipeline.foundation.errors import StoreError
from pipeline.foundation.schema import HOUR_US, MAX_SEQUENCE_STEPS, SEQUENCE_COLUMNS, WINDOW_US


@dataclass(frozen=True, kw_only=True)
class SequenceConfig:
    """Where sequences begin and end; at most seven days (paper), cut as docs/evaluation.md says."""

    admission_slack_hours: float = 12.0
    """Hours before admission and after discharge in which a window still belongs to the stay."""
    max_gap_hours: float = 24.0
    """A gap of this many hours or more between usable windows ends a sequence."""
    max_steps: int = MAX_SEQUENCE_STEPS
    """Steps of 30 s in a sequence, masked ones included; what comes later is dropped and counted."""

    def __post_init__(self):
        if self.admission_slack_hours < 0:
            raise ValueError(f"admission_slack_hours must not be negative, not {self.admission_slack_hours}")
        if self.max_gap_hours <= 0:
            raise ValueError(f"max_gap_hours must be positive, not {self.max_gap_hours}")
        if self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, not {self.max_steps}")


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Sequences of a cohort.

    Attributes
    ----------
    frame : ``schema.SEQUENCE_COLUMNS``, in order of patient and origin; ``admission_id`` is empty where the
        source knows no admissions; ``n_steps`` counts grid steps from the first to the last usable window
    exclusions : windows and patients left out, by reason
    """

    frame: pd.DataFrame
    exclusions: Counter[str] = field(default_factory=Counter)


def cut_sequences(
    store: WindowStore,
    patient_ids: Iterable[str],
    admissions: pd.DataFrame,
    config: SequenceConfig = SequenceConfig(),
) -> Sequences:
    """Cut every patient's windows into sequences.

    A window belongs to the admission it lies in, else to the one that ended last before it, within the slack; only
    where there is none, to the next one within the slack: an admission that is yet to come moves no window of an
    earlier one. Origin is the first usable window. Sequence ids number the sequences in order and say nothing
    about the patient.
    """
    exclusions: Counter[str] = Counter()
    by_patient = {str(patient): stays for patient, stays in admissions.groupby("patient_id")}
    none = admissions.head(0)
    rows = []
    for patient in sorted(set(patient_ids)):
        try:
            start_us = np.asarray(store.read(patient).start_us)
        except StoreError:
            start_us = np.empty(0, np.int64)
        if not len(start_us):
            exclusions["patient without usable windows"] += 1
            continue
        stays = _in_order(by_patient.get(patient, none)) if len(admissions) else None
        cuts = sorted(_cut(start_us, stays, config, exclusions), key=lambda cut: cut[1])
        rows += [(patient, *cut) for cut in cuts]
    frame = pd.DataFrame(
        [(f"{index:08x}", *row) for index, row in enumerate(rows)], columns=list(SEQUENCE_COLUMNS)
    )
    text = dict.fromkeys(("sequence_id", "patient_id", "admission_id"), str)
    numbers = dict.fromkeys(("origin_us", "n_steps", "n_windows"), "int64")
    return Sequences(frame=frame.astype(text | numbers), exclusions=exclusions)


def _cut(
    start_us: np.ndarray, stays: pd.DataFrame | None, config: SequenceConfig, exclusions: Counter[str]
) -> Iterator[tuple[str, int, int, int]]:
    """Yield (admission id, origin, steps, windows) of one patient."""
    stay = np.zeros(len(start_us), int) if stays is None else _own_stay(start_us, stays, config)
    outside = int((stay < 0).sum())
    if outside:
        exclusions["window outside every admission"] += outside
    for index in np.unique(stay[stay >= 0]):
        admission = "" if stays is None else str(stays["admission_id"].iloc[index])
        windows = start_us[stay == index]
        gap = np.diff(windows) - WINDOW_US
        for run in np.split(windows, np.flatnonzero(gap >= config.max_gap_hours * HOUR_US) + 1):
            steps = (run - run[0]) // WINDOW_US
            kept = int(np.searchsorted(steps, config.max_steps))
            if kept < len(run):
                exclusions["window after the longest sequence"] += len(run) - kept
            yield admission, int(run[0]), int(steps[kept - 1]) + 1, kept


def _in_order(stays: pd.DataFrame) -> pd.DataFrame:
    """Sort earliest first, then longest, so that a stay inside another one never splits its windows."""
    return stays.sort_values(["admitted_us", "discharged_us"], ascending=[True, False], kind="stable")


def _own_stay(start_us: np.ndarray, stays: pd.DataFrame, config: SequenceConfig) -> np.ndarray:
    """Return for each window the row of its admission, or -1 where none is within the slack."""
    if not len(stays):
        return np.full(len(start_us), -1)
    admitted, discharged = (stays[name].to_numpy("int64") for name in ("admitted_us", "discharged_us"))
    before = admitted[None] - start_us[:, None]
    after = start_us[:, None] + WINDOW_US - discharged[None]
    slack_us = round(config.admission_slack_hours * HOUR_US)
    to_come = before > 0
    distance = np.where(to_come, before, np.maximum(after, 0))
    # What has begun comes first, however near the next admission is: it was not known then.
    rank = np.where(to_come, slack_us + distance, distance)
    chosen = np.where(distance <= slack_us, rank, np.iinfo(np.int64).max).argmin(axis=1)
    within = distance[np.arange(len(start_us)), chosen] <= slack_us
    return np.where(within, chosen, -1)
