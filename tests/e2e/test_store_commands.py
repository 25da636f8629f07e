"""The store's commands as they are typed, on a copy of the store of a whole job."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline.__main__ import main
from pipeline.store.embeddings import EmbeddingStore


@pytest.fixture
def artifacts(tiny, tmp_path: Path) -> Path:
    shutil.copytree(tiny.workspace.root, tmp_path / "tiny")
    return tmp_path


def typed(artifacts: Path, *words: str) -> int:
    return main(["store", *words, "--experiment", "tiny", "--artifacts", str(artifacts)])


def test_it_is_listed_verified_and_cleaned(artifacts: Path, tiny, capsys: pytest.CaptureFixture[str]) -> None:
    patients = len(EmbeddingStore.open(tiny.workspace.store).manifest())
    assert typed(artifacts, "ls") == 0
    assert f"patients  {patients}  " in capsys.readouterr().out
    assert typed(artifacts, "verify") == 0
    assert f"{patients} patients read, 0 damaged" in capsys.readouterr().out
    assert typed(artifacts, "gc", "--dry-run") == 0
    assert typed(artifacts, "gc", "--older-than-hours", "24") == 0
    assert len(EmbeddingStore.open(artifacts / "tiny" / "embeddings").manifest()) == patients


def test_a_patient_typed_in_is_forgotten_and_not_repeated(
    artifacts: Path, tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = EmbeddingStore.open(artifacts / "tiny" / "embeddings")
    before = store.manifest()
    chosen = next(path.name for path in sorted((tiny.workspace.cohort / "waveforms").glob("p*/p*")))
    patient = str(int(chosen.removeprefix("p")))
    assert patient in store
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{patient}\n"))
    assert typed(artifacts, "forget") == 0
    shown = capsys.readouterr()
    assert patient not in shown.out + shown.err
    left = EmbeddingStore.open(artifacts / "tiny" / "embeddings")
    assert patient not in left
    assert len(left.manifest()) == len(before) - 1


def test_damage_is_taken_out_and_the_next_embed_run_makes_it_anew(
    artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = EmbeddingStore.open(artifacts / "tiny" / "embeddings")
    patient, entry = next(iter(store.manifest().items()))
    array = zarr.open_group(store.root / entry.path)["embeddings"]
    assert isinstance(array, zarr.Array)
    array[7, 2] = np.nan
    assert typed(artifacts, "verify") == 1
    told = capsys.readouterr()
    assert patient in told.out
    assert "store verify --repair" in told.err
    assert typed(artifacts, "verify", "--repair") == 0
    assert "1 patient taken out: run the embed stage again" in capsys.readouterr().out
    assert patient not in store.manifest()
    assert main(["embed", "--experiment", "tiny", "--artifacts", str(artifacts)]) == 0
    assert typed(artifacts, "verify") == 0
    again = store.manifest()[patient]
    assert (again.path, again.data_hash) == (entry.path, entry.data_hash), "the same bytes as before"
