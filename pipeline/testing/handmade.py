"""Windows, labs and stays by hand, for tests whose right answer is worked out on paper; see ``testing``."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from pipeline.foundation.schema import (
    ADMISSION_COLUMNS,
    HOUR_US,
    LAB_EVENT_COLUMNS,
    MINUTE_US,
    QUALITY_COLUMNS,
    WINDOW_US,
)
from pipeline.labs.cleaning import LabEvents
from pipeline.testing.cohort import MemoryStore, MemoryWindows

BASE_US = 5_000_000_010_000_000
"""A multiple of 30 s in the year 2128, where the dates of de-identified databases lie."""


def memory_windows(
    steps: Iterable, *, width: int = 4, base_us: int = BASE_US, seed: int = 0
) -> MemoryWindows:
    """Return windows on some steps of the grid from `base_us`; a window's bits depend on its time alone."""
    start_us = base_us + np.asarray(list(steps), dtype=np.int64) * WINDOW_US
    columns = width + len(QUALITY_COLUMNS)
    rows = [np.random.default_rng([seed, int(t)]).normal(size=columns) for t in start_us]
    table = np.array(rows).reshape(len(start_us), columns)
    return MemoryWindows(
        start_us=start_us,
        quality=table[:, width:].astype(np.float32),
        embeddings=table[:, :width].astype(np.float16),
    )


def memory_store(steps: Mapping[str, Iterable], *, width: int = 4) -> MemoryStore:
    """Return a store with windows on the given steps of each patient; everyone has other embeddings."""
    return MemoryStore(
        windows={
            patient: memory_windows(chosen, width=width, seed=seed)
            for seed, (patient, chosen) in enumerate(steps.items())
        }
    )


def lab_events(rows: Iterable[tuple] = (), base_us: int = BASE_US) -> LabEvents:
    """Return events from (patient, lab, value, draw, result), the times in minutes after `base_us`."""
    table = [
        (
            patient,
            lab,
            float(value),
            base_us + round(drawn * MINUTE_US),
            base_us + round(known * MINUTE_US),
            lab,
        )
        for patient, lab, value, drawn, known in rows
    ]
    frame = pd.DataFrame(table, columns=list(LAB_EVENT_COLUMNS))
    frame = frame.astype({"value": "float64", "sampled_at_us": "int64", "available_at_us": "int64"})
    return LabEvents(frame=frame.sort_values(["patient_id", "lab", "sampled_at_us"], ignore_index=True))


def admissions(rows: Iterable[tuple] = (), base_us: int = BASE_US) -> pd.DataFrame:
    """Return stays from (patient, admission, begin, end), the times in hours after `base_us`."""
    table = [
        (
            patient,
            stay,
            base_us + round(begin * HOUR_US),
            base_us + round(end * HOUR_US),
            60.0,
            "F",
            "",
            "MICU",
        )
        for patient, stay, begin, end in rows
    ]
    return pd.DataFrame(table, columns=list(ADMISSION_COLUMNS))
