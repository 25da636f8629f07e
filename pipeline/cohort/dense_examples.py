"""Interpolated points as scored examples: the paper's possible protocol, always labelled ``dense``."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from pipeline.cohort.aligned import AlignedCohort
from pipeline.foundation.schema import EXAMPLE_COLUMNS, HOUR_US, LAB_NAMES
from pipeline.labs.history import LabSeries, lab_history, last_available_before


def dense_examples(aligned: AlignedCohort, patients: Iterable[str]) -> pd.DataFrame:
    """Return the measured examples of `patients` and every interpolated target that has a history.

    An interpolated point is scored at the end of its own window; its truth is the value on the line between
    two draws, and thus knows the later one: that is why dense scoring is never the headline.

    Returns
    -------
    Table of ``schema.EXAMPLE_COLUMNS``.
    """
    chosen = list(patients)
    parts = [aligned.examples.loc[aligned.examples["patient_id"].isin(chosen)]]
    for row in np.flatnonzero(aligned.pieces["patient_id"].isin(chosen)):
        targets = aligned.piece_targets(int(row))
        interpolated = (targets.weight > 0) & ~targets.measured
        for column, lab in enumerate(LAB_NAMES):
            steps = np.flatnonzero(interpolated[:, column])
            if len(steps) and aligned.history_present[row, column]:
                parts.append(_points(aligned, int(row), lab, steps, targets.value[steps, column]))
    rows = pd.concat(parts, ignore_index=True)
    # A draw right at a window's end stands for itself: the measured rows come first.
    return rows.drop_duplicates(subset=["piece_id", "lab", "sampled_at_us"]).reset_index(drop=True)


def _points(aligned: AlignedCohort, row: int, lab: str, steps: np.ndarray, truth: np.ndarray) -> pd.DataFrame:
    piece = aligned.pieces.iloc[row]
    series: LabSeries = aligned.series[str(piece["patient_id"])][lab]
    t0_us = int(piece["t0_us"])
    end_us = aligned.grid(str(piece["sequence_id"])).end_us[int(piece["first_step"]) + steps]
    history = lab_history(series, np.array([t0_us], dtype=np.int64), aligned.config.history)
    columns = {
        "piece_id": piece["piece_id"],
        "sequence_id": piece["sequence_id"],
        "patient_id": piece["patient_id"],
        "protocol": piece["protocol"],
        "lab": lab,
        "sampled_at_us": end_us,
        "t0_us": t0_us,
        "step": steps,
        "prediction_window_end_us": end_us,
        "truth": truth,
        "last_lab": history.last_value[0],
        "hours_since_last_lab": (end_us - history.last_sampled_us[0]) / HOUR_US,
        "history_mean": history.mean[0],
        "live_last_lab": last_available_before(series, end_us),
        "spectral_concentration": np.nan,
    }
    return pd.DataFrame(columns, columns=list(EXAMPLE_COLUMNS))
