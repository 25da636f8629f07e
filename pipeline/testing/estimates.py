"""A small table of estimates as `predict` writes it, made by hand."""

from typing import Any

import numpy as np
import pandas as pd

from pipeline.foundation.number_format import UNITS
from pipeline.foundation.schema import LAB_NAMES
from pipeline.prediction.estimates_file import ESTIMATES_COLUMNS
from pipeline.prediction.intervals import GIVEN

BEGIN: Any = pd.Timestamp("2150-03-01 08:00:00")
USUAL = {"potassium": 4.1, "calcium": 8.6, "sodium": 138.0, "glucose": 120.0, "lactate": 1.4}


def estimates_table(patient: str, sequence: str, *, rows: int, begin: pd.Timestamp = BEGIN) -> pd.DataFrame:
    """Return a row every 30 s and lab: estimates within their intervals, the last result two hours before the first."""
    ends = begin + pd.to_timedelta(30 * np.arange(1, rows + 1), unit="s")
    lab = np.tile(np.array(LAB_NAMES, dtype=object), rows)
    usual = np.array([USUAL[name] for name in lab])
    waves = usual * (1 + 0.03 * np.sin(np.repeat(np.arange(rows), len(LAB_NAMES)) / 40))
    table = pd.DataFrame(
        {
            "patient": patient, "sequence": sequence, "window_end": np.repeat(ends, len(LAB_NAMES)), "lab": lab,
            "estimate": waves, "lower": 0.95 * waves, "upper": 1.05 * waves, "last_lab": usual,
            "hours_since_last_lab": 2 + np.repeat(np.arange(rows), len(LAB_NAMES)) / 120, "signal_quality": 0.9,
            "state": "ok", "unit": [UNITS[name] for name in lab], "protocol": "anchored", "interval_state": GIVEN,
            "measured": np.nan, "measured_at": pd.NaT, "results_reported": 0, "known_patient": False,
        }
    )  # fmt: skip
    table = table.astype(
        {"measured_at": "datetime64[us]", "window_end": "datetime64[us]", "known_patient": "boolean"}
    )
    return table.loc[:, list(ESTIMATES_COLUMNS)]
