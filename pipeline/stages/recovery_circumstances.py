"""Under what circumstances each draw was estimated: how many results were known, how much was recorded."""

import numpy as np
import pandas as pd

from pipeline.cohort.aligned import AlignedCohort
from pipeline.evaluation.recovery_by import HOURS_RECORDED, KNOWN_DRAWS
from pipeline.foundation.schema import HOUR_US


def with_circumstances(predictions: pd.DataFrame, aligned: AlignedCohort) -> pd.DataFrame:
    """Add columns: `KNOWN_DRAWS`, results of that lab known at t0; `HOURS_RECORDED`, since the sequence began."""
    draws = predictions[["patient", "sequence", "lab", "t0", "sampled_at"]]
    alike = draws.drop_duplicates()
    origin = aligned.sequences.set_index("sequence_id")["origin_us"]
    known = np.zeros(len(alike), dtype=np.int64)
    t0_us = alike["t0"].to_numpy().astype("datetime64[us]").astype(np.int64)
    for (patient, lab), rows in alike.reset_index(drop=True).groupby(["patient", "lab"]).indices.items():
        own = aligned.series.get(str(patient), {}).get(str(lab))
        if own is not None:
            known[rows] = np.searchsorted(np.sort(own.available_us), t0_us[rows], side="right")
    sampled_us = alike["sampled_at"].to_numpy().astype("datetime64[us]").astype(np.int64)
    hours = (sampled_us - alike["sequence"].map(origin).to_numpy(dtype=np.int64)) / HOUR_US
    return predictions.merge(
        alike.assign(**{KNOWN_DRAWS: known, HOURS_RECORDED: hours}), how="left", on=list(draws.columns)
    )
