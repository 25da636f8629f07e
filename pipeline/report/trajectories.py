"""Trajectories for the report: a few test patients as the bedside would show them, without identity or dates.

A patient's estimates are made, thinned to what a picture can show, and forgotten before the next one's.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.cohort.sequences import SequenceConfig
from pipeline.foundation.schema import HOUR_US, WINDOW_US
from pipeline.labs.cleaning import LabEvents
from pipeline.labs.versions import final_results
from pipeline.prediction.config import PredictionConfig
from pipeline.prediction.intervals import INTERVAL_STATE, Intervals
from pipeline.prediction.new_patients import Predictor
from pipeline.store.embeddings import EmbeddingStore

SHOWN_PATIENTS = 4
"""Those with the most scored draws."""
SHOWN_ESTIMATES = 700
"""Of one patient and lab, at equal steps: a picture is some 700 points wide, a week has 20,160 windows; more of them is
most of the report's bytes."""
HOURS_BEFORE = 12
"""Draws up to so many hours before t0 are shown too: they are the history that the model starts from."""


def bedside_trajectories(
    checkpoint: Path,
    store: EmbeddingStore,
    lab_events: pd.DataFrame,
    admissions: pd.DataFrame,
    scored_patients: Sequence[str],
    sequences: SequenceConfig,
    warm_up_windows: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predict some patients every 30 s and put them on hours since t0; of long recordings every n-th time is shown.

    Parameters
    ----------
    checkpoint : folder of a trained method with its ``intervals.json``
    scored_patients : patient of each scored draw; those named most often are shown
    warm_up_windows : windows of a sequence before t0

    Returns
    -------
    trajectories, draws : as ``ReportInputs`` wants them, patients under letters
    """
    most_scored = [
        patient for patient, _ in sorted(Counter(scored_patients).items(), key=lambda i: (-i[1], i[0]))
    ]
    predictor = Predictor.load(
        checkpoint,
        store,
        PredictionConfig(sequences=sequences),
        intervals=Intervals.load(checkpoint / "intervals.json"),
    )
    chosen = most_scored[:SHOWN_PATIENTS]
    labs = LabEvents(frame=lab_events.loc[lab_events["patient_id"].isin(chosen)])
    trajectories, draws = [], []
    for letter, rows in zip("ABCDEFGH", predictor.patients(chosen, labs, admissions), strict=False):
        patient = rows["patient"].iloc[0]
        longest = Counter(rows["sequence"]).most_common(1)[0][0]
        rows = rows.loc[rows["sequence"] == longest]
        end_us = rows["window_end"].to_numpy().astype("datetime64[us]").astype("int64")
        t0_us = int(end_us.min()) + (warm_up_windows - 1) * WINDOW_US
        label = f"Patient {letter}"
        hours = (end_us - t0_us) / HOUR_US
        columns = ["lab", "estimate", "lower", "upper", "protocol", INTERVAL_STATE]
        shown = rows.loc[:, columns].assign(sequence=label, hours_since_t0=hours)
        trajectories.append(shown.loc[_thinned(end_us)])
        draws.append(_draws_near(lab_events, str(patient), label, t0_us, int(end_us.max())))
    return pd.concat(trajectories, ignore_index=True), pd.concat(draws, ignore_index=True)


def _thinned(end_us: np.ndarray) -> np.ndarray:
    """Whether a row is of every n-th time, counted from the first."""
    times = np.unique(end_us)
    return np.isin(end_us, times[:: -(-len(times) // SHOWN_ESTIMATES)])


def _draws_near(lab_events: pd.DataFrame, patient: str, label: str, t0_us: int, end_us: int) -> pd.DataFrame:
    lab_events = final_results(lab_events.loc[lab_events["patient_id"] == patient])
    sampled_us = lab_events["sampled_at_us"].to_numpy()
    mine = (sampled_us >= t0_us - HOURS_BEFORE * HOUR_US) & (sampled_us <= end_us)
    return pd.DataFrame(
        {
            "sequence": label,
            "lab": lab_events["lab"].to_numpy()[mine],
            "hours_since_t0": (sampled_us[mine] - t0_us) / HOUR_US,
            "value": lab_events["value"].to_numpy()[mine],
        }
    )
