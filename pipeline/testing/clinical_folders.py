"""Clinical tables of every kind that a source reads, small, with the faults that real ones have."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.testing.waveform_folders import START

MIMIC_TABLES = {
    "LABEVENTS": """row_id,subject_id,hadm_id,itemid,charttime,value,valuenum,valueuom,flag
1,20,,50971,2183-04-28 17:00:00,4.1,4.1,mEq/L,
2,020,7,50813,2183-04-28 18:00:00,<0.5,0.5,mmol/L,
3,20.0,7,50983.0,2183-04-28 19:00:00,LESS THAN 100 mEq/L,,mEq/L,abnormal
4,20,7,50931,2183-04-28 20:00:00,___,,mg/dL,
5,20,7,50912,2183-04-28 20:00:00,1.1,1.1,mg/dL,
6,20,7,50809,2183-04-28 20:00:00,100,100,mg/dL,
7,,7,50971,2183-04-28 20:00:00,4,4,mEq/L,
8,20,7,50971,yesterday,4,4,mEq/L,
""",
    "ADMISSIONS": """subject_id,hadm_id,admittime,dischtime,ethnicity
20,7,2183-04-28 10:00:00,2183-05-02 10:00:00,WHITE
21,8,2183-04-28 10:00:00,2183-05-02 10:00:00,
22,9,2183-04-28 10:00:00,,ASIAN
""",
    "PATIENTS": """subject_id,gender,dob
20,F,2107-04-28 10:00:00
21,M,1880-01-01 00:00:00
""",
    "ICUSTAYS": """subject_id,hadm_id,first_careunit,intime
20,7,SICU,2183-04-30 00:00:00
20,7,MICU,2183-04-28 11:00:00
""",
}
LONG_TABLE_COLUMNS = {
    "patient_id": "MRN", "code": "Test", "value": "Result", "unit": "Unit",
    "sampled_at": "Collected", "available_at": "Reported",
}  # fmt: skip
"""The column map of `LONG_TABLE`."""
LONG_TABLE = pd.DataFrame(
    {
        "MRN": ["A-1", "A-1", "p000020", "", "A-1"],
        "Test": ["KALIUM", "GLU", "2947-0", "KALIUM", "KALIUM"],
        "Result": ["4.1", "5,5", "<100", "4", "4"],
        "Unit": ["mmol/L", "", "mmol/L", "mmol/L", "mmol/L"],
        "Collected": ["2150-02-01 10:00:00"] * 4 + ["soon"],
        "Reported": ["2150-02-01 11:00:00", "", "2150-02-01 11:00:00", "", ""],
    }
)
"""One hospital's labs, unlike MIMIC's: a row without patient and one without time are among them."""
STAYS = pd.DataFrame(
    {
        "patient_id": ["A-1", "A-2"],
        "admission_id": ["7", "8"],
        "admitted_at": ["2150-02-01 10:00:00"] * 2,
        "discharged_at": ["2150-02-03 10:00:00", ""],
    }
)
"""The same hospital's stays; the second has no end."""


def write_mimic_tables(root: Path, *, upper: bool = False, **changes: str) -> Path:
    """Write `MIMIC_TABLES`, some of them changed, with a header of either case."""
    for name, text in (MIMIC_TABLES | changes).items():
        header, _, body = text.partition("\n")
        (root / f"{name}.csv").write_text((header.upper() if upper else header) + "\n" + body)
    return root


def write_table(folder: Path, frame: pd.DataFrame, kind: str, stem: str = "labs") -> Path:
    """Write a table as "csv", "csv.gz" or "parquet" and return its path."""
    path = folder / f"{stem}.{kind}"
    if kind == "parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False)
    return path


def write_meds_shard(
    root: Path, events: Sequence[tuple], name: str = "train/0.parquet", **changes: object
) -> None:
    """Write a shard of (subject, hours after `START` or None, code, number, text); `changes` replace columns."""
    path = root / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    subject, hours, code, number, text = zip(*events, strict=True)
    begin = pd.Timestamp(START)
    times = [None if h is None else begin + pd.Timedelta(hours=h) for h in hours]
    columns = {
        "subject_id": pa.array(subject, pa.int64()),
        "time": pa.array(times, pa.timestamp("us")),
        "code": pa.array(code, pa.string()),
        "numeric_value": pa.array(number, pa.float32()),
        "text_value": pa.array(text, pa.large_string()),
    }
    pq.write_table(pa.table({n: c for n, c in (columns | changes).items() if c is not None}), path)
