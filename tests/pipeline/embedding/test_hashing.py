"""When stage 1 reads a source: a new patient's files once, while they are decoded; a known one's only if they moved."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Float
from torch import Tensor

from pipeline.embedding import plan as planning
from pipeline.embedding.config import EncodingConfig
from pipeline.embedding.plan import plan_embedding
from pipeline.embedding.run import embed, embed_batch
from pipeline.sources import content_hashes
from pipeline.sources.array_folder import ArrayFolder
from pipeline.sources.base import Record
from pipeline.sources.content_hashes import CACHE_FILE, SourceHashes, content_hash
from pipeline.store.embeddings import EmbeddingStore

CONFIG = EncodingConfig(batch_patients=2)
LONG_AGO_NS = 10**18


class FourSamples:
    """An encoder: four samples of the prepared window; counts them."""

    name, width, sampling_rate_hz, samples_per_window, weights_hash = "four", 4, 40.0, 1200, "0" * 64

    def __init__(self) -> None:
        self.windows = 0

    def embed(self, windows: Float[Tensor, "n samples"]) -> Float[Tensor, "n width"]:
        self.windows += len(windows)
        return windows[:, ::300].contiguous()


def write(root: Path, patient: int, windows: int = 3, *, name: str = "bed", hour: int = 10) -> Path:
    path = root / f"{name}{patient}.npy"
    np.save(path, (np.arange(1200 * windows) * (7 + patient) % 101).astype(np.float32))
    start = f"2111-05-02T{hour:02d}:00:00"
    about = {"patient_id": f"A{patient}", "start": start, "sampling_rate_hz": 40}
    path.with_suffix(".json").write_text(json.dumps(about))
    for file in (path, path.with_suffix(".json")):
        os.utime(file, ns=(LONG_AGO_NS, LONG_AGO_NS))
    return path


@pytest.fixture
def source(tmp_path: Path) -> ArrayFolder:
    root = tmp_path / "waveforms"
    root.mkdir()
    for patient in range(4):
        write(root, patient)
    write(root, 1, name="second", hour=14)
    return ArrayFolder(root)


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    return EmbeddingStore.open(tmp_path / "store", create=True)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose content was hashed, in order."""
    names: list[str] = []
    original = content_hashes._file_hash

    def counted(path: Path) -> str:
        names.append(path.name)
        return original(path)

    monkeypatch.setattr(content_hashes, "_file_hash", counted)
    content_hashes._hash_of.cache_clear()
    return names


def planned(source: ArrayFolder, store: EmbeddingStore):
    return plan_embedding(source.catalog(), store, FourSamples(), CONFIG.window)


def test_planning_reads_nothing_of_a_new_patient(
    source: ArrayFolder, store: EmbeddingStore, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = source.catalog()

    def refuse(self: Path) -> os.stat_result:
        raise AssertionError(f"{self.name} was looked at")

    with monkeypatch.context() as patched:
        patched.setattr(content_hashes, "fingerprint", lambda records: refuse(records[0].path))
        plan = plan_embedding(catalog, store, FourSamples(), CONFIG.window)
    assert len(plan.stale) == 4
    assert hashed == []
    assert all(task.fingerprint is None and task.key.source_hash == "" for task in plan.stale)


def test_each_file_is_hashed_once_right_before_it_is_decoded(
    source: ArrayFolder, store: EmbeddingStore, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ArrayFolder.stretches

    def told(self: ArrayFolder, record: Record, exclusions):
        hashed.append(f"decode {record.path.name}")
        yield from original(self, record, exclusions)

    monkeypatch.setattr(ArrayFolder, "stretches", told)
    assert embed(source, store, FourSamples(), CONFIG).embedded == 4
    order = ["bed0", "bed1", "second1", "bed2", "bed3"]
    assert hashed == [text for bed in order for text in (f"{bed}.json", f"{bed}.npy", f"decode {bed}.npy")]
    found = {entry.source_hash for entry in store.manifest().values()}
    records = source.catalog().records
    assert found == {
        content_hash([record for record in records if record.patient_id == f"A{patient}"])
        for patient in range(4)
    }
    hashed.clear()
    assert embed(source, store, FourSamples(), CONFIG).unchanged == 4
    assert hashed == [], "remembered"


@pytest.mark.parametrize("workers", [0, 2])
def test_worker_processes_hash_too(source: ArrayFolder, store: EmbeddingStore, workers: int) -> None:
    embed(source, store, FourSamples(), EncodingConfig(decode_workers=workers))
    remembered = json.loads((store.root / CACHE_FILE).read_bytes())
    assert {pair[1] for pair in remembered.values()} == {e.source_hash for e in store.manifest().values()}
    assert len(remembered) == 4


def test_other_times_cost_hashing_before_any_encoding(
    source: ArrayFolder, store: EmbeddingStore, hashed: list[str]
) -> None:
    embed(source, store, FourSamples(), CONFIG)
    for path in source.root.iterdir():
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS + 10**9))
    hashed.clear()
    encoder = FourSamples()
    plan = planned(source, store)
    assert (plan.stale, plan.unchanged) == ((), 4)
    assert sorted(hashed) == sorted(path.name for path in source.root.iterdir())
    hashed.clear()
    assert embed(source, store, encoder, CONFIG).unchanged == 4
    assert (encoder.windows, hashed) == (0, [])


def test_a_new_encoder_reads_each_file_once(
    source: ArrayFolder, store: EmbeddingStore, hashed: list[str]
) -> None:
    embed(source, store, FourSamples(), CONFIG)
    for path in source.root.iterdir():
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS + 10**9))
    hashed.clear()
    encoder = FourSamples()
    encoder.name = "other"
    plan = plan_embedding(source.catalog(), store, encoder, CONFIG.window)
    assert (len(plan.stale), hashed) == (4, []), "embedded anew whatever the content is"
    assert "embedded before 4 by four (00000000, " in str(plan)
    assert embed(source, store, encoder, CONFIG).embedded == 4
    assert sorted(hashed) == sorted(path.name for path in source.root.iterdir())


def test_a_killed_plan_keeps_its_hashes(
    source: ArrayFolder, store: EmbeddingStore, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(source, store, FourSamples(), CONFIG)
    for path in source.root.iterdir():
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS + 10**9))
    monkeypatch.setattr(planning, "MAX_HASHERS", 1)
    hashed.clear()
    original = SourceHashes.remember

    def stopped(self: SourceHashes, patient: str, state) -> None:
        original(self, patient, state)
        if patient == store.patient_key("A1"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(SourceHashes, "remember", stopped)
        with pytest.raises(KeyboardInterrupt):
            planned(source, store)
    hashed.clear()
    assert planned(source, store).unchanged == 4
    assert not {"bed0.npy", "bed1.npy", "second1.npy"} & set(hashed), "done before the interruption"
    assert "bed3.npy" in hashed


def test_a_killed_embedding_keeps_its_hashes(
    source: ArrayFolder, store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stops(FourSamples):
        def embed(self, windows: Float[Tensor, "n samples"]) -> Float[Tensor, "n width"]:
            if self.windows >= 6:
                raise KeyboardInterrupt
            return super().embed(windows)

    with pytest.raises(KeyboardInterrupt):
        embed(source, store, Stops(), EncodingConfig(batch_windows=3))
    remembered = json.loads((store.root / CACHE_FILE).read_bytes())
    assert store.patient_key("A0") in remembered
    encoder = FourSamples()
    summary = embed(source, store, encoder, CONFIG)
    assert (summary.embedded + summary.adopted, summary.windows) == (4, 15)
    assert encoder.windows == 15 - 3 * summary.adopted, "what was finished is not embedded twice"


def test_a_patient_that_another_run_finishes_meanwhile_is_adopted(
    source: ArrayFolder, store: EmbeddingStore
) -> None:
    plan = planned(source, store)
    embed_batch(plan.stale[:2], source, store, FourSamples(), CONFIG)
    (store.root / CACHE_FILE).unlink()
    encoder = FourSamples()
    result = embed_batch(plan.stale, source, store, encoder, CONFIG)
    assert (result.adopted, len(result.entries), encoder.windows) == (2, 4, 6)
