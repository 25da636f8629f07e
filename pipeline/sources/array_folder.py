"""Waveforms as plain arrays: NPY files with a JSON sidecar, and Parquet tables with one row per stretch.

``bed7.npy`` is one-dimensional and beside it ``bed7.json`` says
``{"patient_id": "A-17", "start": "2031-05-02T10:00:00", "sampling_rate_hz": 125}``, and may give ``low`` and
``high`` (the lowest and highest value that the converter can give) and ``missing`` (a value that means "no
sample").

``*.parquet`` has the columns ``patient_id``, ``start`` (timestamp without zone), ``sampling_rate_hz`` and
``samples`` (list of numbers; null = missing), and may have ``low`` and ``high``. Write row groups of at most
some hours.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.foundation.errors import LabError, RecordError
from pipeline.sources.base import Catalog, Record, Stretch
from pipeline.sources.parquet_waveforms import parquet_records, parquet_stretches
from pipeline.sources.rows import normalise_patient_id, parse_times_us
from pipeline.sources.wfdb.header import BadRecord, contained
from pipeline.sources.wfdb.records import CHUNK_SECONDS, MAX_RATE_HZ, MIN_RATE_HZ


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """What the JSON beside an NPY file says; fields as in the file, `start_us` in int64 microseconds."""

    patient_id: str
    start_us: int
    sampling_rate_hz: float
    low: float | None
    high: float | None
    missing: float | None


class ArrayFolder:
    """A folder of NPY or Parquet waveforms, searched with its subfolders.

    Parameters
    ----------
    root : folder; nothing outside it is read
    licence : licence and sharing limits of the data, carried into every artefact
    """

    name = "arrays"

    def __init__(self, root: Path, *, licence: str = "not stated; treat as confidential") -> None:
        self.root = Path(root).resolve()
        self.licence = licence
        if not self.root.is_dir():
            raise RecordError(f"{root} is no folder; point at a folder of NPY or Parquet waveforms.")

    def catalog(self) -> Catalog:
        """Find every array; what cannot be used is counted with its reason."""
        exclusions: Counter[str] = Counter()
        records: list[Record] = []
        for path in sorted([*self.root.rglob("*.npy"), *self.root.rglob("*.parquet")]):
            try:
                contained(path, self.root)
                if path.suffix == ".npy":
                    records.append(self._npy_record(path))
                else:
                    records.extend(parquet_records(path, self.root, exclusions))
            except BadRecord as problem:
                exclusions[f"record: {problem.reason}"] += 1
        records.sort(key=lambda record: (record.patient_id, record.start_us, record.name))
        return Catalog(records=tuple(records), exclusions=exclusions)

    def stretches(self, record: Record, exclusions: Counter[str]) -> Iterator[Stretch]:
        """Yield the samples in time order: an hour of an NPY file, or one row of a table, at a time."""
        try:
            contained(record.path, self.root)
            if record.path.suffix == ".npy":
                yield from _npy_stretches(record.path, self.root)
            else:
                yield from parquet_stretches(record)
        except BadRecord as problem:  # changed since the catalogue was made
            exclusions[f"record: {problem.reason}"] += 1

    def _npy_record(self, path: Path) -> Record:
        sidecar, samples = _sidecar(path, self.root), _open_npy(path)
        _rails(path, sidecar, samples.dtype)
        return Record(
            patient_id=sidecar.patient_id,
            name=path.relative_to(self.root).as_posix(),
            path=path,
            files=(path.with_suffix(".json"), path),
            start_us=sidecar.start_us,
            end_us=sidecar.start_us + round(len(samples) * 1_000_000 / sidecar.sampling_rate_hz),
        )


def _npy_stretches(path: Path, root: Path) -> Iterator[Stretch]:
    sidecar, samples = _sidecar(path, root), _open_npy(path)
    step = int(CHUNK_SECONDS * sidecar.sampling_rate_hz)
    for first in range(0, len(samples), step):
        yield Stretch(
            start_us=sidecar.start_us + round(first * 1_000_000 / sidecar.sampling_rate_hz),
            sampling_rate_hz=sidecar.sampling_rate_hz,
            samples=_as_float(samples[first : first + step], sidecar.missing),
            rails=_rails(path, sidecar, samples.dtype),
        )


def _as_float(values: np.ndarray, missing: float | None) -> np.ndarray:
    """float32 in which infinite values and the missing value are NaN."""
    samples = np.array(values, np.float32)
    samples[~np.isfinite(samples)] = np.nan
    if missing is not None:
        samples[values == missing] = np.nan
    return samples


def _rails(path: Path, sidecar: Sidecar, dtype: np.dtype) -> tuple[float, float]:
    """Rails as given; else the range of an integer type; floats have none. Refused unless low < high."""
    whole = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else None
    low = sidecar.low if sidecar.low is not None else (whole.min if whole else -np.inf)
    high = sidecar.high if sidecar.high is not None else (whole.max if whole else np.inf)
    rails = float(np.float32(low)), float(np.float32(high))
    if not rails[0] < rails[1]:
        raise BadRecord(
            "rails not low before high",
            f"{path.with_suffix('.json')}: low = {low}, high = {high}; low must be less than high, or leave out both.",
        )
    return rails


def _open_npy(path: Path) -> np.ndarray:
    try:
        samples = np.lib.format.open_memmap(path, mode="r")  # np.load would open an archive too; no pickles
    except (ValueError, OSError, EOFError) as error:
        raise BadRecord(
            "array unreadable", f"{path} is no complete NPY file of numbers ({error})."
        ) from error
    numeric = np.issubdtype(samples.dtype, np.floating) or np.issubdtype(samples.dtype, np.integer)
    if samples.ndim != 1 or not numeric or len(samples) == 0:
        raise BadRecord(
            "array of a wrong shape",
            f"{path} holds {samples.dtype} of shape {samples.shape}; expected one row of numbers.",
        )
    return samples


def _sidecar(path: Path, root: Path) -> Sidecar:
    beside = contained(path.with_suffix(".json"), root)
    if not beside.is_file():
        raise BadRecord("sidecar missing", f"{path} has no {beside.name} beside it.")
    try:
        content = json.loads(beside.read_text(encoding="utf-8"))
        start_us = parse_times_us(pd.Series([content["start"]], dtype="str"), "start").tolist()[0]
        numbers = {name: content.get(name) for name in ("low", "high", "missing")}
        sidecar = Sidecar(
            patient_id=normalise_patient_id(str(content["patient_id"])) or "",
            start_us=int(start_us),
            sampling_rate_hz=float(content["sampling_rate_hz"]),
            **{name: None if value is None else float(value) for name, value in numbers.items()},
        )
    except (OSError, KeyError, TypeError, ValueError, OverflowError, LabError) as error:
        raise BadRecord(
            "sidecar unreadable",
            f"{beside}: {type(error).__name__}; expected patient_id, start (no zone), sampling_rate_hz.",
        ) from error
    if not sidecar.patient_id:
        raise BadRecord("no patient", f"{beside} names no patient.")
    if not MIN_RATE_HZ <= sidecar.sampling_rate_hz <= MAX_RATE_HZ:
        raise BadRecord(
            "sampling rate out of range",
            f"{beside}: {sidecar.sampling_rate_hz} Hz; needs {MIN_RATE_HZ:g} to {MAX_RATE_HZ:g} Hz.",
        )
    return sidecar
