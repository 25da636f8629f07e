"""Rows as they come from any table: identifiers, times, and what must be there."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import cast

import numpy as np
import pandas as pd

from pipeline.foundation.errors import LabError
from pipeline.foundation.schema import ADMISSION_COLUMNS

PADDING = " \t\r\n\x00\ufeff"
"""What may surround a cell without meaning anything: blanks, NULs, byte-order marks."""
_MIMIC_ID = re.compile(r"[pP]?0*(\d+)(?:\.0+)?")


def column(frame: pd.DataFrame, name: str) -> pd.Series:
    """One column (for the type checker: a name that stands once)."""
    return cast(pd.Series, frame[name])


def no_admissions() -> pd.DataFrame:
    """Return the admissions of a source that knows none: typed columns without a row."""
    types = {"admitted_us": "int64", "discharged_us": "int64", "age_years": "float64"}
    return pd.DataFrame({name: pd.Series(dtype=types.get(name, "str")) for name in ADMISSION_COLUMNS})


def normalise_patient_id(text: str) -> str | None:
    """Return one spelling of a patient's identifier: ``p000020``, ``020`` and ``20.0`` are all ``20``.

    Other identifiers stay as they are; None where there is none.
    """
    stripped = text.strip(PADDING)
    if stripped.casefold() in ("", "nan", "na", "none", "null", "<na>"):
        return None
    match = _MIMIC_ID.fullmatch(stripped)
    return match[1] if match else stripped


def parse_times_us(times: pd.Series, what: str) -> pd.Series:
    """Naive wall-clock times as Int64 microseconds, missing where a cell is no time.

    Parameters
    ----------
    times : ISO 8601 text, or a datetime column of any resolution
    what : column name for the message

    Raises
    ------
    LabError
        The times carry a time zone: which wall clock the waveforms use cannot be guessed.
    """
    try:
        stamps = times if pd.api.types.is_datetime64_any_dtype(times) else _parsed(times)
    except ValueError as error:  # pandas says so where zones are mixed
        raise _zone_error(what) from error
    if not isinstance(stamps.dtype, np.dtype):
        raise _zone_error(what)
    micro = stamps.astype("datetime64[us]")
    return micro.astype("int64").where(micro.notna()).astype("Int64")


def _parsed(times: pd.Series) -> pd.Series:
    text = times.astype("string").str.strip(PADDING)
    return pd.to_datetime(text, format="ISO8601", errors="coerce")


def _zone_error(what: str) -> LabError:
    return LabError(
        f"column {what} carries time zones; convert it to the naive wall clock of the waveform recordings, "
        "without an offset, and give a remaining difference as time_offset."
    )


def usable_rows(rows: pd.DataFrame, reasons: Mapping[str, str], exclusions: Counter[str]) -> pd.DataFrame:
    """Drop rows where a column that must be there is missing; count each once, by its first reason.

    Columns that end in ``_us`` become int64, except ``available_at_us``, which may be missing.
    """
    for name, reason in reasons.items():
        missing = column(rows, name).isna().to_numpy(bool)
        if missing.any():
            exclusions[reason] += int(missing.sum())
            rows = rows.loc[~missing]
    times = [name for name in reasons if name.endswith("_us")]
    return rows.astype(dict.fromkeys(times, "int64")).reset_index(drop=True)
