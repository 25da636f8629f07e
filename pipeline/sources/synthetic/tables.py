"""Clinical tables of the synthetic cohort, named and formatted as MIMIC-III, with defects to clean.

Planted: results as text, impossible values, exact and differing duplicates, outpatient rows without an
admission (more than a month before, beyond any history), and other analytes, ionised calcium and whole-blood
potassium among them.
"""

import gzip
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.foundation.atomic import write_bytes, write_text
from pipeline.foundation.schema import DAY_US, LABS_BY_NAME, MINUTE_US
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.physiology import Course, Stay, random_stream, to_value

TABLE_FILES = {
    "LABEVENTS": "LABEVENTS.csv.gz",
    "ADMISSIONS": "ADMISSIONS.csv",
    "ICUSTAYS": "ICUSTAYS.csv",
    "PATIENTS": "PATIENTS.csv",
}
_ETHNICITIES = ("WHITE", "BLACK/AFRICAN AMERICAN", "HISPANIC OR LATINO", "ASIAN", "UNKNOWN/NOT SPECIFIED")
_UNITS = ("MICU", "SICU", "CCU", "CSRU", "TSICU")
_ROWS_PER_PATIENT = 10_000
_DECOYS = (
    (50912, "creatinine", 1.1, 0.4, "mg/dL", 1.0),
    (51222, "hemoglobin", 10.5, 1.5, "g/dL", 1.0),
    (50808, "ionised calcium", 1.13, 0.08, "mmol/L", 0.3),
    (50822, "whole-blood potassium", 4.1, 0.6, "mEq/L", 0.3),
)


def _stamp(time_us: np.ndarray | int) -> np.ndarray:
    """Format microseconds of the wall clock as MIMIC-III does."""
    times = np.atleast_1d(np.asarray(time_us, dtype=np.int64)).astype("datetime64[us]")
    return np.char.replace(np.datetime_as_string(times, unit="s"), "T", " ").astype(object)


def _rows(itemid: int, at: np.ndarray, value: np.ndarray, decimals: int, unit: str) -> pd.DataFrame:
    text = np.array([f"{x:.{decimals}f}" for x in value], dtype=object)
    rows = {
        "ITEMID": itemid,
        "at": at,
        "VALUE": text,
        "VALUENUM": np.round(value, decimals),
        "VALUEUOM": unit,
    }
    return pd.DataFrame(rows)


def _defective(
    parameters: CohortParameters, stay: Stay, good: pd.DataFrame, rng: np.random.Generator
) -> pd.DataFrame:
    """Give rows that cleaning has to drop or merge; about one patient in three has each kind."""
    kinds = rng.random(4) < 1 / 3
    potassium = good[good["ITEMID"] == 50971]
    parts = []
    if kinds[0] and len(potassium):
        parts.append(potassium.iloc[[-1]].assign(VALUE="HEMOLYZED", VALUENUM=np.nan, at=stay.discharged_us))
    if kinds[1] and len(potassium):
        parts.append(potassium.iloc[[0]].assign(VALUE="999999", VALUENUM=999999.0, at=stay.admitted_us))
    if kinds[2] and len(good):
        parts.append(good.iloc[[int(rng.integers(len(good)))]])
    if kinds[3] and len(good):
        twin = good.iloc[[int(rng.integers(len(good)))]]
        shifted = np.round(twin["VALUENUM"] * 1.02, 1)
        parts.append(twin.assign(VALUENUM=shifted, VALUE=[f"{x:.1f}" for x in shifted]))
    for lab, process in parameters.labs.items() if rng.random() < 0.4 else ():
        at = stay.admitted_us - rng.integers(40, 300, size=2) * DAY_US
        spec = LABS_BY_NAME[lab]
        values = np.maximum(to_value(process, rng.standard_normal(2)), spec.low)
        parts.append(_rows(spec.itemid, at, values, process.decimals, spec.unit).assign(outpatient=True))
    return pd.concat(parts) if parts else good.iloc[:0]


def lab_rows(
    parameters: CohortParameters, stay: Stay, course: Course, seed: int, patient: int
) -> pd.DataFrame:
    """Give one patient's LABEVENTS."""
    rng = random_stream(seed, patient, "tables")
    parts = []
    for lab, draws in course.draws.groupby("lab", sort=False):
        spec, process = LABS_BY_NAME[str(lab)], parameters.labs[str(lab)]
        at, measured = draws["sampled_at_us"].to_numpy(), draws["measured"].to_numpy()
        parts.append(_rows(spec.itemid, at, measured, process.decimals, spec.unit))
    good = pd.concat(parts) if parts else _rows(0, np.empty(0, np.int64), np.empty(0), 0, "")  # a short stay
    panel = np.unique(course.draws["sampled_at_us"].to_numpy())
    for itemid, _, mean, sd, unit, share in _DECOYS:
        at = panel[rng.random(panel.size) < share]
        parts.append(_rows(itemid, at, mean + sd * rng.standard_normal(at.size).clip(-2.5, 2.5), 2, unit))
    frame = pd.concat([*parts, _defective(parameters, stay, good, rng)]).sort_values(
        ["at", "ITEMID"], kind="stable"
    )
    outpatient = (
        frame["outpatient"].eq(True) if "outpatient" in frame else pd.Series(False, index=frame.index)
    )
    columns = {
        "ROW_ID": patient * _ROWS_PER_PATIENT + np.arange(len(frame)),
        "SUBJECT_ID": stay.subject_id,
        "HADM_ID": [None if out else stay.admission_id for out in outpatient],
        "ITEMID": frame["ITEMID"].to_numpy(),
        "CHARTTIME": _stamp(frame["at"].to_numpy()),
        "VALUE": frame["VALUE"].to_numpy(),
        "VALUENUM": frame["VALUENUM"].to_numpy(),
        "VALUEUOM": frame["VALUEUOM"].to_numpy(),
        "FLAG": "",
    }
    return pd.DataFrame(columns).astype({"HADM_ID": "Int64"})


def stay_rows(stay: Stay, seed: int, patient: int) -> dict[str, pd.DataFrame]:
    """Give one patient's rows of ADMISSIONS, ICUSTAYS and PATIENTS."""
    rng = random_stream(seed, patient, "demographics")
    age = float(np.clip(rng.normal(64, 15), 18, 95))
    shown = 300.0 if age > 89 else age  # MIMIC-III hides ages above 89 by a birth date 300 years before
    admitted, discharged = str(_stamp(stay.admitted_us)[0]), str(_stamp(stay.discharged_us)[0])
    born = str(_stamp(stay.admitted_us - int(shown * 365.2425) * DAY_US)[0])[:10] + " 00:00:00"
    unit, died = str(rng.choice(_UNITS)), rng.random() < 0.12
    into_us = max(stay.admitted_us, stay.recordings[0][0] - int(rng.integers(10, 120)) * MINUTE_US)
    out_us = min(stay.discharged_us, stay.recordings[-1][1] + int(rng.integers(10, 120)) * MINUTE_US)
    death = discharged if died else None
    who = {"ROW_ID": patient + 1, "SUBJECT_ID": stay.subject_id}
    admission = {
        **who, "HADM_ID": stay.admission_id, "ADMITTIME": admitted, "DISCHTIME": discharged,
        "DEATHTIME": death, "ADMISSION_TYPE": "EMERGENCY", "ADMISSION_LOCATION": "EMERGENCY ROOM ADMIT",
        "DISCHARGE_LOCATION": "DEAD/EXPIRED" if died else "HOME", "INSURANCE": "Medicare", "LANGUAGE": None,
        "RELIGION": None, "MARITAL_STATUS": None,
        "ETHNICITY": str(rng.choice(_ETHNICITIES, p=(0.7, 0.1, 0.05, 0.05, 0.1))), "EDREGTIME": None,
        "EDOUTTIME": None, "DIAGNOSIS": "SYNTHETIC", "HOSPITAL_EXPIRE_FLAG": int(died),
        "HAS_CHARTEVENTS_DATA": 0,
    }  # fmt: skip
    icu = {
        **who, "HADM_ID": stay.admission_id, "ICUSTAY_ID": stay.admission_id + 100_000,
        "DBSOURCE": "synthetic", "FIRST_CAREUNIT": unit, "LAST_CAREUNIT": unit, "FIRST_WARDID": 1,
        "LAST_WARDID": 1, "INTIME": str(_stamp(into_us)[0]), "OUTTIME": str(_stamp(out_us)[0]),
        "LOS": round((out_us - into_us) / DAY_US, 4),
    }  # fmt: skip
    person = {
        **who, "GENDER": "F" if rng.random() < 0.44 else "M", "DOB": born, "DOD": death, "DOD_HOSP": death,
        "DOD_SSN": None, "EXPIRE_FLAG": int(died),
    }  # fmt: skip
    rows = {"ADMISSIONS": admission, "ICUSTAYS": icu, "PATIENTS": person}
    return {name: pd.DataFrame([row]) for name, row in rows.items()}


def write_tables(folder: Path, tables: Mapping[str, pd.DataFrame], *, lower_case: bool) -> None:
    """Write the tables as CSV; equal tables give equal bytes."""
    for name, file in TABLE_FILES.items():
        frame = tables[name].rename(columns=str.lower) if lower_case else tables[name]
        text = frame.to_csv(index=False, lineterminator="\n")
        if file.endswith(".gz"):
            buffer = io.BytesIO()
            with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=4, mtime=0) as stream:
                stream.write(text.encode())
            write_bytes(folder / file, buffer.getvalue())
        else:
            write_text(folder / file, text)
