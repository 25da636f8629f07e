"""Under what circumstances each draw was estimated: how many results were known, how much was recorded."""

import numpy as np
import pandas as pd

from pipeline.cohort.aligned import AlignedCohort
from pipeline.evaluation.recovery_by import HOURS_RECORDED, KNOWN_DRAWS
from pipeline.foundation.schema import HOUR_US


def with_circumstances(predictions: pd.DataFrame, aligned: AlignedCohort) -> pd.DataFrame:
    """Add columns: `KNOWN_DRAWS`, results of that lab known at t0; `HOURS_RECORDED`, since the sequence began."""
    keys = ["patient", "sequence", "lab", "t0", "sampled_at"]
    alike = predictions.loc[:, keys].drop_duplicates().reset_index(drop=True)
    t0_us, sampled_us = (
        alike[name].to_numpy().astype("datetime64[us]").astype(np.int64) for name in ("t0", "sampled_at")
    )
    known = np.zeros(len(alike), dtype=np.int64)
    whose = alike["patient"].astype(str) + " " + alike["lab"].astype(str)
    for name, rows in alike.groupby(whose).indices.items():
        patient, lab = str(name).rsplit(" ", 1)
        own = aligned.series.get(patient, {}).get(lab)
        if own is not None:
            known[rows] = np.searchsorted(np.sort(own.available_us), t0_us[rows], side="right")
    origins = dict(zip(aligned.sequences["sequence_id"], aligned.sequences["origin_us"], strict=True))
    origin_us = np.array([origins[sequence] for sequence in alike["sequence"]], dtype=np.int64)
    there = {KNOWN_DRAWS: known, HOURS_RECORDED: (sampled_us - origin_us) / HOUR_US}
    return predictions.merge(alike.assign(**there), how="left", on=keys)
