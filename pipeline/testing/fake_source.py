"""A waveform source of plain files, for tests of stage 1; processes that decode it load no torch."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.foundation.schema import WINDOW_US
from pipeline.sources.base import Catalog, Record, Stretch

RATE_HZ = 40.0
ORIGIN_US = 4_466_000_000_000_000 // WINDOW_US * WINDOW_US


def nothing(path: Path) -> None:
    """Do nothing; unlike a lambda, it can travel to a decoding process."""


@dataclass
class FakeSource:
    """``<patient>/<start_us>.npy`` with samples at 40 Hz."""

    root: Path
    on_read: Callable[[Path], None] = nothing
    name: str = "fake"
    licence: str = "made up for tests"
    reads: list[str] = field(default_factory=list)

    def catalog(self) -> Catalog:
        """Find every file."""
        paths = sorted(self.root.glob("*/*.npy"))
        return Catalog(records=tuple(self._record(path) for path in paths))

    def _record(self, path: Path) -> Record:
        start_us = int(path.stem)
        n = (path.stat().st_size - 128) // 4
        return Record(
            patient_id=path.parent.name,
            name=f"{path.parent.name}/{path.stem}",
            path=path,
            files=(path,),
            start_us=start_us,
            end_us=start_us + n * 25_000,
        )

    def stretches(self, record: Record, exclusions: Counter[str]) -> Iterator[Stretch]:
        """Yield a file as one stretch."""
        self.reads.append(record.patient_id)
        samples = np.load(record.path)
        self.on_read(record.path)
        yield Stretch(
            start_us=record.start_us, sampling_rate_hz=RATE_HZ, samples=samples, rails=(-10.0, 10.0)
        )


def add_record(
    root: Path, patient: str, windows: float | int, *, seed: int = 0, after_hours: float | int = 0
) -> Path:
    """Write one recording of noise, so many windows long."""
    samples = np.random.default_rng(seed).standard_normal(int(windows * 1200)).astype(np.float32)
    path = root / patient / f"{ORIGIN_US + int(after_hours * 120) * WINDOW_US}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, samples)
    return path
