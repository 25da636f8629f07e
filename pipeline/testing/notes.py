"""Which files under a folder do not say what made them, and what their data's licence allows."""

import json
import re
from pathlib import Path
from typing import Any

from pipeline.foundation.artefact_notes import HEADER_KEY, SHARING, UNKNOWN_LICENCE, parquet_note
from pipeline.foundation.tensor_files import weights_texts


def tensors_note(path: Path) -> dict[str, Any]:
    """Return the note of a safetensors file; empty where it has none."""
    try:
        return json.loads(weights_texts(path).get(HEADER_KEY, "{}"))
    except ValueError:
        return {}


READERS = {".parquet": parquet_note, ".safetensors": tensors_note}


def noted_files(root: Path) -> list[Path]:
    """Return every Parquet file and checkpoint below `root`."""
    return sorted(path for path in root.rglob("*") if path.suffix in READERS)


def lacking(root: Path) -> dict[str, list[str]]:
    """Return, by file, what its note lacks: stage, both hashes, licences of the data, sharing limits."""
    found = {}
    for path in noted_files(root):
        note = READERS[path.suffix](path)
        licences = note.get("licences", [])
        fine = {
            "stage": note.get("stage", "none") != "none",
            "config_hash": re.fullmatch(r"[0-9a-f]{64}", note.get("config_hash", "")) is not None,
            "inputs_hash": re.fullmatch(r"[0-9a-f]{64}", note.get("inputs_hash", "")) is not None,
            "licences": bool(licences) and UNKNOWN_LICENCE not in licences,
            "sharing": note.get("sharing") == SHARING,
        }
        if not all(fine.values()):
            found[str(path.relative_to(root))] = [name for name, good in fine.items() if not good]
    return found
