"""The note of a file, as whoever was handed the file would read it."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.foundation.artefact_notes import HEADER_KEY


def parquet_note(path: Path) -> dict[str, Any]:
    """Return the note of a Parquet file; empty where it has none."""
    metadata = pq.read_schema(path).metadata or {}
    return json.loads(metadata.get(HEADER_KEY.encode(), b"{}"))
