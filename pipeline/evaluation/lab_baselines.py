"""What labs alone tell about the next lab: the baselines on a real lab table, before any waveform.

Each draw in the first days of an ICU stay is estimated from the same lab's earlier results, also those from
before the stay. Two numbers a lab are fitted on the same draws, which flatters, and once more without the
patient that is scored. A method that uses the waveform has to lie above the latter.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.cohort.aligned import series_by_patient
from pipeline.foundation.errors import LabError
from pipeline.foundation.schema import DAY_US, HOUR_US, LAB_NAMES
from pipeline.labs.carry_forward import fit_carry_forward, fit_decayed_locf, fit_shrunk_locf
from pipeline.labs.cleaning import LabConfig, clean_labs
from pipeline.labs.history import HistoryConfig, LabSeries, lab_history
from pipeline.sources.base import ClinicalTables
from pipeline.sources.csv_stream import find_table, stream_csv
from pipeline.sources.rows import column, normalise_patient_id, parse_times_us

BASELINE_METHODS = ("locf", "shrunk_locf", "decayed_locf", "patient_mean")
_FITS = {"shrunk_locf": fit_shrunk_locf, "decayed_locf": fit_decayed_locf}


@dataclass(frozen=True, kw_only=True)
class LabBaselineConfig:
    """Which draws are estimated from what; the defaults are those of docs/evaluation.md."""

    stay_days: float = 7.0
    """Days from ICU admission in which draws are scored."""
    max_age_hours: float = 72.0
    """Age of the previous draw up to which it is carried forward, hours; a draw without one is not scored."""
    mean_days: float = 30.0
    """Days before the draw that the patient's mean looks back."""

    def __post_init__(self):
        for name in ("stay_days", "max_age_hours", "mean_days"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")


def real_lab_baselines(
    tables: ClinicalTables,
    stays: pd.DataFrame,
    config: LabBaselineConfig = LabBaselineConfig(),
    labs: LabConfig = LabConfig(),  # noqa: B008 - frozen
) -> pd.DataFrame:
    """Score the carried-forward baselines on a real lab table.

    Parameters
    ----------
    tables : of a clinical source
    stays : columns patient_id, in_us, out_us (int64 microseconds); see ``read_icu_stays``
    labs : specimens, duplicates, result delay

    Returns
    -------
    One row a lab, method and fit (``none``, ``same_data``, ``cross_validated``: without the patient that is
    scored) with n_labs, n_patients, mae and r2 in clinical units.
    """
    examples = baseline_examples(clean_labs(tables, labs).frame, stays, config)
    rows = []
    for lab in LAB_NAMES:
        table = examples.loc[examples["lab"] == lab].reset_index(drop=True)
        if len(table):
            methods = fit_carry_forward(table)
            for method in BASELINE_METHODS:
                fit = "same_data" if method in _FITS else "none"
                rows.append(_row(table, method, fit, methods[method].estimate(table)))
            rows += [_row(table, m, "cross_validated", _without_own_patient(table, m)) for m in _FITS]
    columns = ["lab", "method", "fit", "n_labs", "n_patients", "mae", "r2"]
    return pd.DataFrame(rows, columns=columns)


def baseline_examples(draws: pd.DataFrame, stays: pd.DataFrame, config: LabBaselineConfig) -> pd.DataFrame:
    """Return the draws inside the stays with what was known of the same lab strictly before each.

    Columns as in ``schema.EXAMPLE_COLUMNS``, as far as the baselines need them; ``protocol`` is ``live``.
    """
    series = series_by_patient(draws)
    parts = []
    for patient, table in stays.groupby("patient_id"):
        begin, end = table["in_us"].to_numpy("int64"), table["out_us"].to_numpy("int64")
        end = np.minimum(end, begin + round(config.stay_days * DAY_US))
        for lab, results in series.get(str(patient), {}).items():
            drawn = results.final.sampled_us[:, None]
            inside = np.asarray(((drawn > begin) & (drawn <= end)).any(axis=1))
            parts.append(_known_before(str(patient), lab, results, inside, config))
    if not parts:
        raise LabError(
            "No lab result belongs to a patient with an ICU stay. The two tables must share their patients."
        )
    return pd.concat(parts, ignore_index=True)


def _known_before(
    patient: str, lab: str, results: LabSeries, inside: np.ndarray, config: LabBaselineConfig
) -> pd.DataFrame:
    drawn = results.final.sampled_us[inside]
    # One microsecond earlier turns "available at or before" into "available before".
    last = lab_history(results, drawn - 1, HistoryConfig(max_age_days=config.max_age_hours / 24))
    mean = lab_history(results, drawn - 1, HistoryConfig(max_age_days=config.mean_days))
    frame = pd.DataFrame(
        {
            "patient_id": patient,
            "protocol": "live",
            "lab": lab,
            "sampled_at_us": drawn,
            "truth": results.final.value[inside],
            "last_lab": last.last_value,
            "live_last_lab": last.last_value,
            "hours_since_last_lab": (drawn - last.last_sampled_us) / HOUR_US,
            "history_mean": mean.mean,
        }
    )
    return frame.loc[last.present]


def _without_own_patient(table: pd.DataFrame, method: str) -> np.ndarray:
    """Estimate each patient's draws from a fit on all the others."""
    estimates = np.full(len(table), np.nan)
    for rows in table.groupby("patient_id").indices.values():
        others = table.drop(index=rows)
        if len(others):
            estimates[rows] = _FITS[method](others).estimate(table.iloc[rows])
    return estimates


def _row(table: pd.DataFrame, method: str, fit: str, estimate: np.ndarray) -> tuple:
    truth = table["truth"].to_numpy()
    spread = np.square(truth - truth.mean()).sum()
    r2 = 1 - np.square(estimate - truth).sum() / spread if spread > 0 else np.nan
    n_patients = table["patient_id"].nunique()
    return table["lab"].iloc[0], method, fit, len(table), n_patients, np.abs(estimate - truth).mean(), r2


def read_icu_stays(folder: Path) -> pd.DataFrame:
    """Read ICUSTAYS of MIMIC-III: patient_id, in_us, out_us; stays without a time are left out.

    Raises
    ------
    LabError
        The folder has no such table, or it lacks a column.
    """
    path = find_table(Path(folder), "ICUSTAYS")
    if path is None:
        raise LabError(f"{folder} has no ICUSTAYS.csv or ICUSTAYS.csv.gz; copy the table there.")
    columns = {"patient_id": "subject_id", "in_us": "intime", "out_us": "outtime"}
    stays = pd.concat(list(stream_csv(path, columns, Counter())), ignore_index=True)
    stays["patient_id"] = stays["patient_id"].map(normalise_patient_id)
    for name in ("in_us", "out_us"):
        stays[name] = parse_times_us(column(stays, name), columns[name])
    return (
        stays.dropna().astype({"in_us": "int64", "out_us": "int64", "patient_id": str}).reset_index(drop=True)
    )
