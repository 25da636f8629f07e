"""Who is in each split: age, sex, unit, hours of waveform, and the labs that were drawn."""

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from pipeline.cohort.splits import Splits
from pipeline.evaluation.subgroups import UNKNOWN_GROUP, ethnicity_groups
from pipeline.foundation.schema import LAB_NAMES, LABS_BY_NAME, SPLITS, WINDOW_SECONDS

CHARACTERISTIC_COLUMNS = ("characteristic", "split", "kind", "n", "value", "lower", "upper")
LEAST_PATIENTS = 10
"""A share, and the median of a patient's own number, that rests on fewer patients of a split is not told."""


def characteristics(
    admissions: pd.DataFrame, sequences: pd.DataFrame, examples: pd.DataFrame, splits: Splits
) -> pd.DataFrame:
    """Describe the patients who have a sequence, split by split (``CHARACTERISTIC_COLUMNS``).

    Parameters
    ----------
    admissions : ``schema.ADMISSION_COLUMNS``; of several of one patient, the first counts
    sequences : ``schema.SEQUENCE_COLUMNS``
    examples : ``schema.EXAMPLE_COLUMNS``, of either protocol

    Returns
    -------
    One row a characteristic and split. ``kind``: "count" (``value`` of them), "median" (with quartiles ``lower`` and
    ``upper``, of ``n`` values), "share" (``value`` in 0..1 of ``n`` patients). What is hidden is NaN.
    """
    present = set(sequences["patient_id"])
    rows = []
    for split in SPLITS:
        mine = sorted(present & set(splits.patients(split)))
        parts = (table.loc[table["patient_id"].isin(mine)] for table in (admissions, sequences, examples))
        for name, kind, n, numbers in _of_split(len(mine), *parts):
            values = dict(zip(("value", "lower", "upper"), numbers, strict=True))
            rows.append({"characteristic": name, "split": split, "kind": kind, "n": n, **values})
    return pd.DataFrame(rows, columns=list(CHARACTERISTIC_COLUMNS))


_Row = tuple[str, str, int, tuple[float, float, float]]


def _of_split(
    n_patients: int, admissions: pd.DataFrame, sequences: pd.DataFrame, examples: pd.DataFrame
) -> Iterator[_Row]:
    patients = admissions.drop_duplicates("patient_id")
    yield _count("patients", n_patients)
    yield _median("age, years", patients["age_years"].to_numpy(dtype=float), n_patients)
    yield from _shares("sex", patients["sex"].to_numpy(), n_patients)
    patient, _ = pd.factorize(sequences["patient_id"])
    windows = np.bincount(patient, sequences["n_windows"].to_numpy(dtype=float))
    yield _median("hours of usable PPG a patient", windows * WINDOW_SECONDS / 3600, n_patients)
    draws = examples.drop_duplicates(["patient_id", "lab", "sampled_at_us"])
    yield _count("scored draws", len(draws))
    for lab in LAB_NAMES:
        values = draws.loc[draws["lab"] == lab]
        name = f"{lab}, {LABS_BY_NAME[lab].unit}"
        yield _median(name, values["truth"].to_numpy(dtype=float), values["patient_id"].nunique())
    yield from _shares("care unit", patients["care_unit"].to_numpy(), n_patients)
    yield from _shares(
        "ethnicity as recorded", ethnicity_groups(patients["ethnicity"].to_numpy()), n_patients
    )


def _count(name: str, n: int) -> _Row:
    return name, "count", n, (float(n), np.nan, np.nan)


def _median(name: str, values: np.ndarray, n_patients: int) -> _Row:
    known = values[np.isfinite(values)]
    if n_patients < LEAST_PATIENTS or not known.size:
        return name, "median", len(known), (np.nan, np.nan, np.nan)
    lower, middle, upper = np.percentile(known, [25, 50, 75])
    return name, "median", len(known), (float(middle), float(lower), float(upper))


def _shares(name: str, recorded: np.ndarray, n_patients: int) -> Iterator[_Row]:
    words = [UNKNOWN_GROUP if pd.isna(value) else str(value) for value in recorded]
    counts = Counter(words)
    told = _told(counts)
    for group in sorted(counts):
        share = counts[group] / n_patients if group in told else np.nan
        yield f"{name}: {group}", "share", n_patients, (share, np.nan, np.nan)


def _told(counts: Mapping[str, int]) -> set[str]:
    """Return the groups whose share may be told: large enough, and so that the rest does not give a small one away."""
    told = {group for group, n in counts.items() if n >= LEAST_PATIENTS}
    while told and 0 < sum(n for group, n in counts.items() if group not in told) < LEAST_PATIENTS:
        told.remove(min(told, key=lambda group: (counts[group], group)))
    return told
