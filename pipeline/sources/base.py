"""What every data source offers: a catalogue of records, their samples stretch by stretch, and clinical tables."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd

UNKNOWN_RAILS = (-np.inf, np.inf)
"""Rails of a source that says nothing of its digital codes."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One recording of one patient on the wall clock.

    Attributes
    ----------
    patient_id : normalised identifier (MIMIC: digits without leading zeros); never logged
    name : record name relative to the source's root, for the catalogue only; never logged
    path : header (WFDB) or data file
    files : every file whose content the embeddings depend on
    start_us, end_us : first sample, and the end of the last sample, int64 microseconds wall clock
    """

    patient_id: str
    name: str
    path: Path
    files: tuple[Path, ...]
    start_us: int
    end_us: int


def in_time_order(records: Iterable[Record]) -> list[Record]:
    """Return records in the one order in which they are hashed and cut into windows."""
    return sorted(records, key=lambda record: (record.start_us, record.name))


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Contiguous PLETH samples at one rate.

    Attributes
    ----------
    start_us : time of the first sample, int64 microseconds
    sampling_rate_hz : samples a second, as the header has it (never rounded)
    samples : (n,) float32 in physical units, NaN = missing
    rails : physical values of the lowest and highest digital code of this segment's format and resolution
    """

    start_us: int
    sampling_rate_hz: float
    samples: np.ndarray
    rails: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """Records found, and how many things were skipped for which reason.

    In order of patient and start; where one file holds them all, in that file's own order.
    """

    records: tuple[Record, ...]
    exclusions: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, kw_only=True)
class ClinicalTables:
    """Raw labs and admissions, as read, before any cleaning.

    Attributes
    ----------
    labs : columns patient_id (str), code (str: item id, LOINC or a lab's name), value (str or float as in the
        source), unit (str or missing), sampled_at_us (int64), available_at_us (Int64, missing where unknown)
    admissions : columns of ``schema.ADMISSION_COLUMNS``: times int64, age_years float (NaN unknown), the others
        str ("unknown" where sex, ethnicity or care unit is not known); empty where the source has no admissions
    licence : licence and sharing limits of the source, carried into every artefact
    labs_from : file that the labs were read from, or folder of such files, for messages; None: from no disk
    """

    labs: pd.DataFrame
    admissions: pd.DataFrame
    licence: str
    exclusions: Counter[str] = field(default_factory=Counter)
    labs_from: Path | None = None


@runtime_checkable  # so that tests can check annotations
class WaveformSource(Protocol):
    """A folder of waveforms."""

    name: str
    licence: str
    root: Path

    def catalog(self) -> Catalog:
        """Find every record; a record that cannot be used is counted with its reason, never fatal."""
        ...

    def stretches(self, record: Record, exclusions: Counter[str]) -> Iterator[Stretch]:
        """Yield the PLETH of `record` in time order, memory flat; unreadable segments are counted."""
        ...


@runtime_checkable
class ClinicalSource(Protocol):
    """A folder of clinical tables."""

    name: str
    licence: str

    def tables(self) -> ClinicalTables:
        """Read labs and admissions."""
        ...


@runtime_checkable
class Memory(Protocol):
    """Where hashes are remembered between runs; a store's `Storage` is one."""

    def read(self, name: str) -> bytes | None:
        """Return a file's content, None when it is not there."""
        ...

    def update(self, name: str, change: Callable[[bytes | None], bytes]) -> None:
        """Replace a file by `change` of its content, as if no other process ran at the same time."""
        ...
