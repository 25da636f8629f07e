"""The catalogue of records as a table on disk, with paths relative to the waveform folder."""

from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.parquet as pq

from pipeline.foundation.atomic import write_parquet
from pipeline.sources.base import Catalog, Record


def save_catalog(path: Path, catalog: Catalog, root: Path) -> None:
    """Write one row a record."""
    rows = [
        {
            "patient_id": record.patient_id,
            "name": record.name,
            "path": str(record.path.relative_to(root)),
            "files": [str(file.relative_to(root)) for file in record.files],
            "start_us": record.start_us,
            "end_us": record.end_us,
        }
        for record in catalog.records
    ]
    write_parquet(
        path, pd.DataFrame(rows, columns=["patient_id", "name", "path", "files", "start_us", "end_us"])
    )


def load_catalog(path: Path, root: Path, patients: Collection[str] | None = None) -> Catalog:
    """Read what `save_catalog` wrote, of some patients or all; exclusions stay in the stage's summary.

    A run asks batch by batch, each patient once: the file is read once while it stays the same, and paths are made for
    the patients in question alone (they take most of the time).
    """
    table = _table(path)
    if patients is not None:
        table = table.filter(compute.field("patient_id").isin(sorted(patients)))
    base = str(root)
    records = (
        Record(
            patient_id=row["patient_id"],
            name=row["name"],
            path=Path(base, row["path"]),
            files=tuple(Path(base, file) for file in row["files"]),
            start_us=int(row["start_us"]),
            end_us=int(row["end_us"]),
        )
        for row in table.to_pylist()
    )
    return Catalog(records=tuple(records))


def catalogued_patients(path: Path) -> list[str]:
    """Return the ids of the patients in a catalogue, in its order."""
    return _table(path)["patient_id"].unique().to_pylist()


def release_catalog() -> None:
    """Give back the memory of the catalogue that was read last."""
    _read.cache_clear()


def _table(path: Path) -> pa.Table:
    status = path.stat()
    return _read(path, (status.st_ino, status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=1)
def _read(path: Path, _state: tuple[int, int, int]) -> pa.Table:
    return pq.read_table(path)
