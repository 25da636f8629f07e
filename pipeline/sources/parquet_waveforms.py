"""Waveforms in Parquet: one row per stretch of one patient (columns in ``pipeline.sources.array_folder``)."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.foundation.errors import LabError
from pipeline.sources.base import Record, Stretch
from pipeline.sources.rows import column, normalise_patient_id, parse_times_us, usable_rows
from pipeline.sources.wfdb.header import BadRecord
from pipeline.sources.wfdb.records import MAX_RATE_HZ, MIN_RATE_HZ

_REQUIRED = ("patient_id", "start", "sampling_rate_hz", "samples")


def parquet_records(path: Path, root: Path, exclusions: Counter[str]) -> list[Record]:
    """One record for each patient in the file; rows without patient, start or a possible rate are counted."""
    rows = _index(path, exclusions)
    name = path.relative_to(root).as_posix()
    return [
        Record(
            patient_id=str(patient_id),
            name=f"{name}#{patient_id}",
            path=path,
            files=(path,),
            start_us=int(column(group, "start_us").to_numpy().min()),
            end_us=int(column(group, "end_us").to_numpy().max()),
        )
        for patient_id, group in rows.groupby("patient_id")
    ]


def parquet_stretches(record: Record) -> Iterator[Stretch]:
    """Yield the patient's rows in time order."""
    rows = _index(record.path, Counter(), measure=False)
    rows = rows.loc[rows["patient_id"] == record.patient_id].sort_values("start_us", kind="stable")
    with pq.ParquetFile(record.path) as file:
        cached, samples = -1, pa.chunked_array([], pa.null())
        for row in rows.itertuples():
            if row.group != cached:
                samples, cached = _samples(record.path, file, row.group), row.group
            values = samples[row.row].values
            if values is None or len(values) == 0:
                continue  # counted when the catalogue was made
            yield Stretch(
                start_us=int(row.start_us),
                sampling_rate_hz=float(row.sampling_rate_hz),
                samples=_as_float(values),
                rails=(float(row.low), float(row.high)),
            )


def _samples(path: Path, file: pq.ParquetFile, group: int) -> pa.ChunkedArray:
    try:
        return file.read_row_group(group, columns=["samples"]).column(0)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> BadRecord:
    return BadRecord("table unreadable", f"{path}: {(str(error).splitlines() or [''])[0][:160]}")


def _as_float(values: pa.Array) -> np.ndarray:
    # Safe casting refuses whole numbers of more than 24 bits; rounding them is what float32 means.
    samples = np.array(values.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False), np.float32)
    samples[~np.isfinite(samples)] = np.nan
    return samples


def _index(path: Path, exclusions: Counter[str], *, measure: bool = True) -> pd.DataFrame:
    """Everything of the table but the samples: place, patient, times (ends if `measure`), rate, rails."""
    try:
        with pq.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow)
            groups = [_group_index(file, group, measure) for group in range(file.num_row_groups)]
    except (pa.ArrowException, OSError, ValueError, TypeError, LabError) as error:
        raise _unreadable(path, error) from error
    rows = pd.concat(groups, ignore_index=True)
    reasons = {"patient_id": "row: no patient", "start_us": "row: no start", "n": "row: no samples"}
    rows = usable_rows(rows, reasons, exclusions)
    rules = {
        "sampling rate out of range": lambda rows: rows["sampling_rate_hz"].between(MIN_RATE_HZ, MAX_RATE_HZ),
        "rails not low before high": lambda rows: rows["low"] < rows["high"],
    }
    for reason, rule in rules.items():
        possible = rule(rows)
        if not possible.all():
            exclusions[f"row: {reason}"] += int((~possible).sum())
        rows = rows.loc[possible]
    durations = (rows["n"].astype(float) * 1_000_000 / rows["sampling_rate_hz"]).round().astype("int64")
    return rows.assign(end_us=rows["start_us"] + durations)


def _check_columns(path: Path, schema: pa.Schema) -> None:
    absent = [name for name in _REQUIRED if name not in schema.names]
    if absent:
        raise BadRecord("table lacks columns", f"{path} has no column {', '.join(absent)}.")
    kind = schema.field("samples").type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not (
        pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
    ):
        raise BadRecord("table of a wrong type", f"{path}: samples are {kind}; expected a list of numbers.")


def _group_index(file: pq.ParquetFile, group: int, measure: bool) -> pd.DataFrame:
    names = [
        name for name in (*_REQUIRED, "low", "high") if name in file.schema_arrow.names and name != "samples"
    ]
    frame = file.read_row_group(group, columns=names).to_pandas()
    return pd.DataFrame(
        {
            "group": group,
            "row": np.arange(len(frame)),
            "n": _lengths(file, group) if measure else 0,
            "patient_id": frame["patient_id"].map(_identifier).astype("str"),
            "start_us": parse_times_us(column(frame, "start"), "start"),
            "sampling_rate_hz": frame["sampling_rate_hz"].astype(float),
            "low": _rail(frame, "low", -np.inf),
            "high": _rail(frame, "high", np.inf),
        }
    )


def _rail(frame: pd.DataFrame, name: str, unknown: float) -> pd.Series | float:
    """Return the rail of each row as float32 has it, `unknown` where none is given."""
    if name not in frame:
        return unknown
    return column(frame, name).astype(np.float32).astype(float).fillna(unknown)


def _lengths(file: pq.ParquetFile, group: int) -> pd.Series:
    """Count the samples in each row, missing where the row has none."""
    lists = file.read_row_group(group, columns=["samples"]).column(0)
    return pd.Series([len(cell.values) or pd.NA if cell.is_valid else pd.NA for cell in lists], dtype="Int64")


def _identifier(value: object) -> str | None:
    return normalise_patient_id(str(value))
