"""The leak check: change everything after a moment, and compare every estimate before it, bit by bit.

It is made for every kind of estimate that the checkpoint learnt: ``start`` and ``anchored`` run through other code.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.cohort.base import PatientWindows, WindowStore
from pipeline.cohort.sequences import SequenceConfig
from pipeline.labs.cleaning import LabEvents
from pipeline.prediction.config import PredictionConfig
from pipeline.prediction.new_patients import predict
from pipeline.prediction.protocols import protocols_of

CHECKED_PATIENTS = 3


@dataclass(frozen=True)
class _ChangedWindows:
    """A patient's windows with other embeddings after `after_us`."""

    start_us: np.ndarray
    quality: np.ndarray
    embeddings: np.ndarray
    width: int


@dataclass(frozen=True)
class _ChangedStore:
    """A store in which everything after `after_us` is different."""

    store: WindowStore
    after_us: int

    def read(self, patient_id: str) -> PatientWindows:
        windows = self.store.read(patient_id)
        embeddings = np.array(windows.embeddings[:])
        later = windows.start_us >= self.after_us
        embeddings[later] = -embeddings[later] + 1
        return _ChangedWindows(windows.start_us, windows.quality, embeddings, windows.width)

    def __getattr__(self, name: str) -> object:
        return getattr(self.store, name)


def changed_rows(
    checkpoint: Path,
    store: WindowStore,
    lab_events: pd.DataFrame,
    admissions: pd.DataFrame,
    patients: Sequence[str],
    sequences: SequenceConfig,
) -> tuple[int, int, int]:
    """Return how many estimates lie before the change, how many of them changed, and how many changed after it.

    For each of some patients, t is the middle of the recording; embeddings and lab values after t are replaced.
    Estimates of each protocol that the checkpoint learnt are compared. Where none after t changed either, the model
    heeds none of its inputs and the comparison has shown nothing.
    """
    compared = changed = changed_after = 0
    checked = [p for p in patients if _length(store, p) > 0][:CHECKED_PATIENTS]
    for protocol, patient in itertools.product(protocols_of(checkpoint), checked):
        start_us = store.read(patient).start_us
        t_us = int(start_us[len(start_us) // 2])
        events = lab_events.loc[lab_events["patient_id"] == patient]
        later = events["available_at_us"] > t_us
        altered = events.assign(value=events["value"].where(~later, events["value"] * 1.1 + 0.1))
        rows = [
            predict(
                checkpoint,
                used_store,
                LabEvents(frame=frame),
                PredictionConfig(sequences=sequences, protocol=protocol),
                patients=[patient],
                admissions=admissions,
            )
            for used_store, frame in ((store, events), (_ChangedStore(store, t_us), altered))
        ]
        before, after = ([_estimates(table, t_us, later=later) for table in rows] for later in (False, True))
        compared += len(before[0])
        changed += sum(a != b for a, b in zip(*before, strict=True))
        changed_after += sum(a != b for a, b in zip(*after, strict=True))
    return compared, changed, changed_after


def _length(store: WindowStore, patient: str) -> int:
    return len(store.read(patient).start_us)


def _estimates(table: pd.DataFrame, t_us: int, *, later: bool) -> list[bytes]:
    """Return the bytes of every estimate up to t, or of those after it."""
    end_us = table["window_end"].to_numpy().astype("datetime64[us]").astype("int64")
    return [value.tobytes() for value in table["estimate"].to_numpy(np.float64)[(end_us > t_us) == later]]
