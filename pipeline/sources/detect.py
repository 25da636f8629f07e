"""Find out which adapter reads a folder that the user points at."""

import re
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.sources.array_folder import ArrayFolder
from pipeline.sources.base import ClinicalSource, WaveformSource
from pipeline.sources.meds import MedsTables
from pipeline.sources.mimic3 import Mimic3Tables, Mimic3Waveforms
from pipeline.sources.wfdb_folder import WfdbFolder

_MATCHED_SUBSET_FOLDER = re.compile(r"p\d{2}|p\d{6}")


def open_waveforms(root: Path) -> WaveformSource:
    """Return the waveform source for `root`: MIMIC-III Matched Subset layout, any WFDB folder, or NPY/Parquet.

    Raises
    ------
    ConfigError
        Nothing in the folder is a waveform that an adapter knows.
    """
    children = {child.name for child in root.iterdir() if child.is_dir()}
    if any(_MATCHED_SUBSET_FOLDER.fullmatch(name) for name in children):
        return Mimic3Waveforms(root)
    if next(root.rglob("*.hea"), None) is not None:
        return WfdbFolder(root)
    if any(next(root.rglob(pattern), None) is not None for pattern in ("*.npy", "*.parquet")):
        return ArrayFolder(root)
    raise ConfigError(
        f"{root} holds no waveform record that can be read: expected the MIMIC-III Matched Subset layout "
        "(p00/p000020/...), WFDB headers (*.hea), or arrays (*.npy, *.parquet)."
    )


def open_clinical(root: Path) -> ClinicalSource:
    """Return the clinical source for `root`: MIMIC-III tables or MEDS.

    Raises
    ------
    ConfigError
        Neither kind of table is there. One long table of another shape goes through ``LabTable`` and its column map.
    """
    names = {child.name.lower() for child in root.iterdir()} if root.is_dir() else set()
    if any(name.startswith("labevents.csv") for name in names):
        return Mimic3Tables(root)
    if "data" in names and "metadata" in names:
        return MedsTables(root)
    raise ConfigError(
        f"{root} holds no lab table that can be read: expected LABEVENTS.csv[.gz] with ADMISSIONS, ICUSTAYS and "
        "PATIENTS (MIMIC-III), or a MEDS dataset (data/, metadata/)."
    )
