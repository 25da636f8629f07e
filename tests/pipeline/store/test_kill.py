"""SIGKILL at any moment of stage 1: a reader sees the last commit whole, and the next run goes on from it."""

import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Float
from torch import Tensor

from pipeline.embedding.config import EncodingConfig
from pipeline.embedding.run import embed
from pipeline.foundation.errors import StoreError
from pipeline.foundation.schema import WINDOW_US
from pipeline.sources.base import Catalog, Record, Stretch
from pipeline.store.admin import gc_store, verify_store
from pipeline.store.embeddings import EmbeddingStore

N_PATIENTS = 8
N_WINDOWS = 30
CONFIG = EncodingConfig(batch_windows=32, batch_patients=2)
DISK_EVENTS = {"open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir"}


class Encoder:
    name, width, sampling_rate_hz, samples_per_window = "fake", 4, 40.0, 1200
    weights_hash = "0" * 64

    def embed(self, windows: Float[Tensor, "n samples"]) -> Float[Tensor, "n width"]:
        return windows[:, :4].contiguous()


@dataclass
class Source:
    """Patients whose samples follow from their number; every read leaves a line in `diary`."""

    root: Path
    name: str = "fake"
    licence: str = "made up"

    @property
    def diary(self) -> Path:
        return self.root / "diary.txt"

    def catalog(self) -> Catalog:
        records = []
        for number in range(N_PATIENTS):
            path = self.root / f"{number}.txt"
            path.touch()
            end_us = N_WINDOWS * WINDOW_US
            records.append(
                Record(
                    patient_id=f"{number}",
                    name=path.name,
                    path=path,
                    files=(path,),
                    start_us=0,
                    end_us=end_us,
                )
            )
        return Catalog(records=tuple(records))

    def stretches(self, record: Record, exclusions: Counter[str]) -> Iterator[Stretch]:
        with self.diary.open("a") as file:
            file.write(f"{record.patient_id}\n")
        rng = np.random.default_rng(int(record.patient_id))
        samples = rng.standard_normal(N_WINDOWS * 1200).astype(np.float32)
        yield Stretch(start_us=0, sampling_rate_hz=40.0, samples=samples, rails=(-10.0, 10.0))

    def reads(self) -> list[str]:
        return self.diary.read_text().split() if self.diary.exists() else []


def in_child(source: Source, root: Path, before: Callable[[], None]) -> int:
    """Run stage 1 in a forked process and return its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            before()
            embed(source, EmbeddingStore.open(root, create=True), Encoder(), CONFIG)
        finally:
            os._exit(0)
    return pid


def die_at(event_number: int) -> Callable[[], None]:
    """Return what makes a process kill itself right before its n-th operation on the disk."""

    def arm() -> None:
        left = event_number

        def count(event: str, _: object) -> None:
            nonlocal left
            if event in DISK_EVENTS:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)

    return arm


def committed(root: Path) -> set[str]:
    """Return the patients that a reader sees, after checking that each of them is whole."""
    try:
        store = EmbeddingStore.open(root)
    except StoreError:
        assert not (root / "manifest.json").exists()
        return set()
    assert verify_store(store).damaged == {}
    found = {f"{number}" for number in range(N_PATIENTS) if f"{number}" in store}
    for patient in found:
        assert len(store.read(patient)) == N_WINDOWS
    return found


def watch(pid: int, root: Path, seconds: float) -> bool:
    """Read the store over and over while the process lives; kill it when its time is up; True when killed."""
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.WIFSIGNALED(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            deadline = float("inf")
        committed(root)


def survive(tmp_path: Path, kills: list[tuple[int, float]]) -> int:
    """Kill one run after another, then let one finish; (disk operation, seconds) says when each dies.

    Returns how many were killed; the others had finished first.
    """
    (tmp_path / "waveforms").mkdir()
    source, root = Source(tmp_path / "waveforms"), tmp_path / "store"
    done: set[str] = set()
    n_killed = 0
    for event_number, seconds in kills:
        n_reads = len(source.reads())
        n_killed += watch(in_child(source, root, die_at(event_number)), root, seconds)
        assert not done & set(source.reads()[n_reads:]), "a committed patient was read again"
        now = committed(root)
        assert done <= now, "a commit was lost"
        done = now
    n_reads = len(source.reads())
    store = EmbeddingStore.open(root, create=True)
    summary = embed(source, store, Encoder(), CONFIG)
    assert summary.windows == N_PATIENTS * N_WINDOWS
    assert not done & set(source.reads()[n_reads:])
    assert len(committed(root)) == N_PATIENTS
    gc_store(store, older_than_hours=0.0)
    assert len(list(store.root.glob("*/*/entry.json"))) == N_PATIENTS
    assert {path.suffix for path in store.storage.staging.iterdir()} <= {".lock"}
    assert verify_store(store).ok
    return n_killed


def test_killed_at_disk_operations(tmp_path: Path) -> None:
    assert survive(tmp_path, [(number, 60.0) for number in (3, 9, 21, 42, 77, 120)]) == 6


def test_killed_at_random_times(tmp_path: Path) -> None:
    clock = random.Random(0)
    assert survive(tmp_path, [(10**9, clock.uniform(0.0, 0.3)) for _ in range(6)]) > 0


@pytest.mark.slow
def test_killed_fifty_times_at_random(tmp_path: Path) -> None:
    clock = random.Random(0)
    n_killed = 0
    while n_killed < 50:  # a store that is complete gives no more work to be killed at: then a new one
        folder = tmp_path / f"{n_killed}-{clock.random()}"
        folder.mkdir()
        n_killed += survive(folder, [(10**9, clock.uniform(0.0, 0.15)) for _ in range(10)])


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1, 60, 2))
def test_killed_at_every_kind_of_disk_operation(tmp_path: Path, first: int) -> None:
    assert survive(tmp_path, [(first, 60.0), (60 + 3 * first, 60.0), (first + 17, 60.0)]) > 0
