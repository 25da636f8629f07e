"""The PLETH of the PhysioNet Challenge's records in one ``.npz``: ``pleth`` (all samples), ``length``, ``record``.

The file says nothing of patients, so each record stands for a patient of its own, and nothing of digital codes, so the
rails are unknown.
"""

import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from pipeline.foundation.errors import RecordError
from pipeline.sources.base import UNKNOWN_RAILS, Catalog, Record, Stretch
from pipeline.sources.rows import normalise_patient_id

CHALLENGE_LICENCE = "PhysioNet/CinC Challenge 2015 v1.0.0, public training set: ODC-BY 1.0"


class Challenge2015:
    """The archive as a waveform source, read whole when it is opened.

    Raises
    ------
    RecordError : no such file, or the arrays are missing or contradict each other
    """

    name, licence = "challenge2015", CHALLENGE_LICENCE

    def __init__(self, path: Path, *, sampling_rate_hz: float = 40.0):
        self.path, self.sampling_rate_hz = Path(path), sampling_rate_hz
        self.root = self.path.parent.resolve()
        try:
            with np.load(path, allow_pickle=False) as arrays:
                self._samples, lengths, names = arrays["pleth"], arrays["length"], arrays["record"]
            self._ends = np.cumsum(lengths, dtype=np.int64)
        except (OSError, LookupError, TypeError, ValueError, EOFError, BadZipFile, zlib.error) as problem:
            raise RecordError(
                f"{path} is no archive of PLETH: expected an .npz with pleth, length and record ({problem})"
            ) from None
        if len(names) != len(lengths) or int(lengths.sum()) != len(self._samples) or (lengths < 1).any():
            raise RecordError(
                f"{path}: length adds up to another number of samples than pleth has, or names lack"
            )
        self._place = {str(name): i for i, name in enumerate(names)}
        if len(self._place) != len(names):
            raise RecordError(f"{path}: record holds a name twice; each must be another")

    def catalog(self) -> Catalog:
        """Return every record, at time 0, in the archive's own order: epochs of pretraining are drawn by place."""
        lengths = np.diff(self._ends, prepend=0) * 1_000_000 / self.sampling_rate_hz
        return Catalog(
            records=tuple(
                Record(
                    patient_id=normalise_patient_id(name) or name, name=name, path=self.path, files=(self.path,),
                    start_us=0, end_us=int(lengths[i]),
                )
                for name, i in self._place.items()
            )
        )  # fmt: skip

    def stretches(self, record: Record, exclusions: Counter[str]) -> Iterator[Stretch]:
        """Yield the whole record."""
        end = int(self._ends[self._place[record.name]])
        first = end - round((record.end_us - record.start_us) * self.sampling_rate_hz / 1e6)
        yield Stretch(
            start_us=0, sampling_rate_hz=self.sampling_rate_hz, rails=UNKNOWN_RAILS,
            samples=self._samples[first:end].astype(np.float32),
        )  # fmt: skip
