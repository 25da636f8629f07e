"""The BIDMC folder of CSV files, plain or packed with xz: PLETH beside what the monitor showed.

``bidmc_##_Signals.csv`` holds PLETH at 125 Hz, ``bidmc_##_Numerics.csv`` one row a second from the recording's start
to its end, and ``bidmc_##_Fix.txt`` names the patient. Digital codes are not stated, so the rails are unknown.

Source: BIDMC PPG and Respiration Dataset, PhysioNet, https://doi.org/10.13026/C2208R.
"""

import lzma
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.foundation.errors import RecordError
from pipeline.sources.base import UNKNOWN_RAILS, Catalog, Record, Stretch
from pipeline.sources.rows import normalise_patient_id
from pipeline.sources.wfdb.header import BadRecord, contained

BIDMC_LICENCE = "BIDMC PPG and Respiration Dataset v1.0.0 (PhysioNet): ODC-BY 1.0"
RATE_HZ = 125
NUMERICS = ("HR", "RESP")
"""Heart and respiration rate, both per minute."""


class Bidmc:
    """BIDMC as a waveform source.

    Parameters
    ----------
    root : folder; nothing outside it is read

    Raises
    ------
    RecordError : `root` is no folder
    """

    name, licence, sampling_rate_hz = "bidmc", BIDMC_LICENCE, float(RATE_HZ)

    def __init__(self, root: Path):
        self.root = Path(root).resolve()
        if not self.root.is_dir():
            raise RecordError(f"{root} is no folder; point at the BIDMC folder of CSV files")

    def catalog(self) -> Catalog:
        """Find every recording, as long as its numerics say; several may come from one patient."""
        exclusions: Counter[str] = Counter()
        records = []
        for path in sorted(self.root.rglob("bidmc_*_Signals.csv*")):
            try:
                records.append(self._record(path))
            except BadRecord as problem:
                exclusions[f"record: {problem.reason}"] += 1
        records.sort(key=lambda record: (record.patient_id, record.start_us, record.name))
        return Catalog(records=tuple(records), exclusions=exclusions)

    def stretches(self, record: Record, exclusions: Counter[str]) -> Iterator[Stretch]:
        """Yield the recording's PLETH whole; one that ends before its numerics is counted, not read."""
        try:
            samples = _table(contained(record.path, self.root), ["PLETH"])["PLETH"].to_numpy(np.float32)
            if len(samples) < (record.end_us - record.start_us) * RATE_HZ // 1_000_000 - 1:
                raise BadRecord("signals end before the numerics", f"{record.path} is cut off.")
        except BadRecord as problem:
            exclusions[f"record: {problem.reason}"] += 1
            return
        samples[~np.isfinite(samples)] = np.nan
        yield Stretch(
            start_us=0, sampling_rate_hz=self.sampling_rate_hz, rails=UNKNOWN_RAILS, samples=samples
        )

    def numerics(self, record: Record) -> pd.DataFrame:
        """Return what the monitor showed, columns `NUMERICS`, one row a second from the recording's start."""
        return _table(contained(_beside(record.path, "Numerics.csv"), self.root), list(NUMERICS))

    def _record(self, path: Path) -> Record:
        contained(path, self.root)
        fixed = contained(_beside(path, "Fix.txt"), self.root)
        try:
            patient = re.search(r"MIMIC II matched wdb ID: (\S+)", fixed.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise BadRecord("Fix.txt unreadable", f"{fixed}: {error}") from error
        if patient is None or (patient_id := normalise_patient_id(patient[1])) is None:
            raise BadRecord("Fix.txt names no patient", f"{fixed} has no line 'MIMIC II matched wdb ID: '")
        numerics = _table(contained(_beside(path, "Numerics.csv"), self.root), list(NUMERICS))
        last_sample = (len(numerics) - 1) * RATE_HZ  # as late as the last numerics
        if last_sample < 1:
            raise BadRecord("numerics without two seconds", f"{path}: no second of numerics after the first.")
        return Record(
            patient_id=patient_id, name=path.relative_to(self.root).as_posix(), path=path, files=(path,),
            start_us=0, end_us=(last_sample + 1) * 1_000_000 // RATE_HZ,
        )  # fmt: skip


def _table(path: Path, columns: list[str]) -> pd.DataFrame:
    """Read some columns of numbers."""
    try:
        return pd.read_csv(path, skipinitialspace=True, usecols=columns).astype("float64")
    except (OSError, ValueError, EOFError, lzma.LZMAError) as error:
        raise BadRecord(
            "table unreadable", f"{path}: {type(error).__name__}; expected {', '.join(columns)}."
        ) from error


def _beside(signals: Path, ending: str) -> Path:
    return signals.with_name(signals.name.split("Signals")[0] + ending)
