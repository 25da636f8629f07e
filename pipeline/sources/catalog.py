"""The catalogue of records as a table on disk, with paths relative to the waveform folder."""

from pathlib import Path

import pandas as pd
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


def load_catalog(path: Path, root: Path) -> Catalog:
    """Read what `save_catalog` wrote; exclusions stay in the stage's summary."""
    records = (
        Record(
            patient_id=row["patient_id"],
            name=row["name"],
            path=root / row["path"],
            files=tuple(root / file for file in row["files"]),
            start_us=int(row["start_us"]),
            end_us=int(row["end_us"]),
        )
        for row in pq.read_table(path).to_pylist()
    )
    return Catalog(records=tuple(records))
