"""Find out which adapter reads a folder that the user points at, and with which conventions.

A folder in a known layout needs nothing. One with conventions of its own brings them in ``uniphy_source.json``, in
the folder itself (or the user points at such a file anywhere and names the folder or table in its ``path``)::

    {"patient_from": "record", "assume_start": "2150-01-01T00:00", "licence": "..."}          waveforms (WFDB)
    {"path": "labs.csv", "column_map": {"patient_id": "mrn", ...}, "units": {...},            one long lab table
     "code_map": {...}, "time_offset_hours": -4, "admissions": "stays.csv", "licence": "..."}

Source: our decision (data of any hospital).
"""

import datetime
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.foundation.errors import ConfigError
from pipeline.sources.array_folder import ArrayFolder
from pipeline.sources.base import ClinicalSource, WaveformSource
from pipeline.sources.lab_table import LabTable
from pipeline.sources.meds import MedsTables
from pipeline.sources.mimic3 import Mimic3Tables, Mimic3Waveforms
from pipeline.sources.wfdb.folder import WfdbFolder, parse_assume_start

DESCRIPTION = "uniphy_source.json"
WAVEFORM_FIELDS = {"path", "patient_from", "channel", "assume_start", "licence"}
LAB_FIELDS = {"path", "column_map", "units", "code_map", "time_offset_hours", "admissions", "licence"}

_MATCHED_SUBSET_FOLDER = re.compile(r"p\d{2}|p\d{6}")


def open_waveforms(where: Path) -> WaveformSource:
    """Return the waveform source at `where`: MIMIC-III Matched Subset layout, any WFDB folder, or NPY/Parquet.

    Raises
    ------
    ConfigError
        Nothing there is a waveform that an adapter knows, or the description names an unknown field.
    """
    options = _description(where, WAVEFORM_FIELDS)
    root = _target(where, options)
    if not root.is_dir():
        raise ConfigError(f"{root} is no folder: name the folder that holds the waveform records.")
    children = {child.name for child in root.iterdir() if child.is_dir()}
    licence = {name: options[name] for name in ("licence",) if name in options}
    if any(_MATCHED_SUBSET_FOLDER.fullmatch(name) for name in children):
        return Mimic3Waveforms(root, **licence)
    if next(root.rglob("*.hea"), None) is not None:
        if "assume_start" in options:
            options["assume_start"] = parse_assume_start(options["assume_start"])
        return _configured(where, lambda: WfdbFolder(root, **options))
    if any(next(root.rglob(pattern), None) is not None for pattern in ("*.npy", "*.parquet")):
        return ArrayFolder(root, **licence)
    raise ConfigError(
        f"{root} holds no waveform record that can be read: expected the MIMIC-III Matched Subset layout "
        "(p00/p000020/...), WFDB headers (*.hea), or arrays (*.npy, *.parquet)."
    )


def open_clinical(where: Path) -> ClinicalSource:
    """Return the clinical source at `where`: MIMIC-III tables, MEDS, or one long table with its description.

    Raises
    ------
    ConfigError
        None of them is there, or the description names an unknown field.
    """
    options = _description(where, LAB_FIELDS)
    root = _target(where, options)
    if root.is_file():
        return _lab_table(where, root, options)
    names = {child.name.lower() for child in root.iterdir()}
    licence = {name: options[name] for name in ("licence",) if name in options}
    if any(name.startswith("labevents.csv") for name in names):
        return Mimic3Tables(root, **licence)
    if {"data", "metadata"} <= names:
        return MedsTables(root, **licence)
    raise ConfigError(
        f"{root} holds no lab table that can be read: expected LABEVENTS.csv[.gz] with ADMISSIONS, ICUSTAYS and "
        f"PATIENTS (MIMIC-III), a MEDS dataset (data/, metadata/), or {DESCRIPTION} that names a long table."
    )


def _lab_table(where: Path, table: Path, options: dict[str, Any]) -> LabTable:
    hours = options.pop("time_offset_hours", 0)
    if not isinstance(hours, int | float):
        raise ConfigError(
            f"{where}: time_offset_hours = {hours!r} must be a number of hours, such as -4 or 5.5."
        )
    options["time_offset"] = datetime.timedelta(hours=hours)
    if "admissions" in options:
        options["admissions"] = table.parent / options["admissions"]
    return _configured(where, lambda: LabTable(table, **options))


def _description(where: Path, fields: set[str]) -> dict[str, Any]:
    """Return the description in, or at, `where`; empty where there is none."""
    path = where / DESCRIPTION if where.is_dir() else where
    if path.suffix != ".json" or not path.exists():
        return {}
    try:
        options = json.loads(path.read_text())
    except (OSError, ValueError) as problem:
        raise ConfigError(
            f"{path} is no JSON ({problem}); write an object with {', '.join(sorted(fields))}."
        ) from None
    if not isinstance(options, Mapping) or set(options) - fields:
        raise ConfigError(
            f"{path} may only hold {', '.join(sorted(fields))}; it holds {', '.join(map(str, options))}."
        )
    return dict(options)


def _target(where: Path, options: dict[str, Any]) -> Path:
    """Take ``path`` out of the options and return the folder or table that is meant."""
    base = where if where.is_dir() else where.parent
    named = options.pop("path", None)
    target = where if named is None and where.suffix != ".json" else base / (named or ".")
    if not target.exists():
        raise ConfigError(f"{where} names {target}, which does not exist; mend its path.")
    return target


def _configured(where: Path, build: Callable[[], Any]) -> Any:
    try:
        return build()
    except ValueError as problem:
        raise ConfigError(f"{where}: {problem}") from None
