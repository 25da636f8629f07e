"""Every store of windows gives the same of a patient, whoever keeps it: a folder, memory, a copy that was changed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.cohort.base import PatientWindows, WindowStore
from pipeline.evaluation.leak_check import _ChangedStore
from pipeline.foundation.errors import StoreError
from pipeline.foundation.schema import QUALITY_COLUMNS, WINDOW_US
from pipeline.store.embeddings import EmbeddingStore
from pipeline.store.manifest import EmbeddingKey
from pipeline.testing.cohort import MemoryStore, MemoryWindows
from pipeline.testing.conformance import forgotten

WIDTH, N = 4, 9
START_US = 4_466_000_000_000_000 // WINDOW_US * WINDOW_US + WINDOW_US * np.arange(N, dtype=np.int64) * 2
EMBEDDINGS = np.arange(N * WIDTH).reshape(N, WIDTH).astype(np.float16)
QUALITY = np.full((N, len(QUALITY_COLUMNS)), 0.5, np.float32)


def in_a_folder(folder: Path) -> EmbeddingStore:
    key = EmbeddingKey(
        source_hash="source", encoder_name="fake", weights_hash="ab" * 32, preprocessing_version="windows-1-0"
    )
    store = EmbeddingStore.open(folder / "store", create=True)
    with store.stage("p1", key, width=WIDTH) as writer:
        writer.append(START_US, EMBEDDINGS.astype(np.float32), QUALITY)
        store.commit([writer.finish({})])
    return store


def in_memory(folder: Path) -> MemoryStore:
    return MemoryStore(
        windows={"p1": MemoryWindows(start_us=START_US, embeddings=EMBEDDINGS, quality=QUALITY)}
    )


STORES: dict[type, Callable[[Path], WindowStore]] = {
    EmbeddingStore: in_a_folder,
    MemoryStore: in_memory,
    _ChangedStore: lambda folder: _ChangedStore(in_memory(folder), after_us=int(START_US[-1]) + 1),
}


def test_none_is_forgotten(tmp_path: Path) -> None:
    assert forgotten(WindowStore, STORES) == []
    windows = [type(kept(tmp_path / kind.__name__).read("p1")) for kind, kept in STORES.items()]
    assert forgotten(PatientWindows, windows) == []


@pytest.mark.parametrize("kind", STORES)
def test_a_patients_windows_come_back(kind: type, tmp_path: Path) -> None:
    store = STORES[kind](tmp_path)
    assert isinstance(store, WindowStore)
    read = store.read("p1")
    assert isinstance(read, PatientWindows)
    assert (read.width, read.start_us.dtype, np.asarray(read.embeddings[:]).dtype) == (
        WIDTH,
        np.int64,
        np.float16,
    )
    for ours, truth in (
        (read.start_us, START_US),
        (read.quality, QUALITY),
        (read.embeddings[2:5], EMBEDDINGS[2:5]),
    ):
        np.testing.assert_array_equal(ours, truth)


@pytest.mark.parametrize("kind", STORES)
def test_a_patient_who_is_not_there_is_an_error(kind: type, tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        STORES[kind](tmp_path).read("p2")
