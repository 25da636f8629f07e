from pathlib import Path

import pytest

from pipeline.store.embeddings import EmbeddingStore
from pipeline.testing.fake_source import FakeSource, add_record


@pytest.fixture
def source(tmp_path: Path) -> FakeSource:
    root = tmp_path / "waveforms"
    for number, windows in enumerate((40, 7, 100.5, 23)):
        add_record(root, f"patient-{number}", windows, seed=number)
    add_record(root, "patient-1", 9, seed=9, after_hours=2)
    return FakeSource(root)


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    return EmbeddingStore.open(tmp_path / "store", create=True)
