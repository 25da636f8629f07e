"""The same store on S3-compatible object storage, against a local server."""

import json
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest

from models.encoders.ppg_gpt import PPGGPT
from pipeline.embedding.config import EncodingConfig
from pipeline.embedding.run import embed
from pipeline.foundation.errors import StoreError
from pipeline.foundation.schema import QUALITY_COLUMNS, WINDOW_US
from pipeline.sources.array_folder import ArrayFolder
from pipeline.store import object_storage
from pipeline.store.admin import forget_patient, gc_store, list_store, verify_store
from pipeline.store.embeddings import EmbeddingStore
from pipeline.store.manifest import EmbeddingKey, ManifestEntry
from pipeline.store.object_storage import ObjectFolder
from pipeline.store.zarr_version import CHUNK_WINDOWS

pytestmark = pytest.mark.slow
WIDTH = 6


@pytest.fixture
def store(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmbeddingStore:
    monkeypatch.setattr(object_storage, "TOKEN_SECONDS", 0.0)
    return EmbeddingStore.open(f"{bucket}/{tmp_path.name}", create=True)


def write(store: EmbeddingStore, patient: str, n: int, source: str = "a") -> ManifestEntry:
    start_us, embeddings, quality = content(n)
    key = EmbeddingKey(
        source_hash=source, encoder_name="fake", weights_hash="ab" * 32, preprocessing_version="1"
    )
    with store.stage(patient, key, width=WIDTH) as writer:
        for first in range(0, n, 700):
            rows = slice(first, first + 700)
            writer.append(start_us[rows], embeddings[rows], quality[rows])
        return writer.finish()


def content(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    start_us = np.arange(n, dtype=np.int64) * WINDOW_US
    quality = rng.random((n, len(QUALITY_COLUMNS))).astype(np.float32)
    return start_us, rng.standard_normal((n, WIDTH)).astype(np.float32), quality


@pytest.mark.parametrize("n", [0, 5, 2 * CHUNK_WINDOWS + 9])
def test_round_trip(store: EmbeddingStore, n: int) -> None:
    with pytest.raises(StoreError, match="not in the embedding store"):
        store.read("p1")
    store.commit([write(store, "p1", n)])
    start_us, embeddings, quality = content(n)
    read = EmbeddingStore.open(str(store.storage)).read("p1")
    np.testing.assert_array_equal(read.start_us, start_us)
    np.testing.assert_array_equal(read.quality, quality)
    expected = embeddings.astype(np.float16)
    np.testing.assert_array_equal(read.embeddings[:], expected)
    if n > 5:
        for rows in (
            slice(10, 3000),
            slice(None, None, -7),
            np.array([4000, -1, 3]),
            start_us % 60_000_000 == 0,
            -2,
        ):
            np.testing.assert_array_equal(read.embeddings[rows], expected[rows])
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(read)).embeddings[5:9], expected[5:9])
        with pytest.raises(IndexError, match="row numbers"):
            read.embeddings[n]
    fs = store.storage._fs
    assert len(fs.find(f"{store.storage}/{read.entry.path}/embeddings/c")) == (1 if n else 0), (
        "one shard a patient"
    )
    assert verify_store(store).damaged == {}


def test_concurrent_commits_lose_nothing(store: EmbeddingStore) -> None:
    failures: list[BaseException] = []

    def work(mine: range) -> None:
        try:
            own = EmbeddingStore.open(str(store.storage))
            for number in mine:
                own.commit([write(own, f"p{number}", 3)])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(range(i, 24, 3),)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert set(store.manifest()) == {store.patient_key(f"p{number}") for number in range(24)}
    revisions = store.storage._fs.ls(f"{store.storage}/manifest.json.revisions", refresh=True)
    assert len(revisions) >= 24, "young ones are kept, however many"


def test_create_is_exclusive(store: EmbeddingStore) -> None:
    storage = store.storage
    assert storage.create("x", b"first")
    assert not storage.create("x", b"second")
    assert storage.read("x") == b"first"
    assert storage.read("nothing") is None


def test_administration(store: EmbeddingStore) -> None:
    store.commit([write(store, "p1", 10), write(store, "p2", 20)])
    old = store.read("p1")
    store.commit([write(store, "p1", 30, source="b")])
    assert list_store(store).windows == 50
    assert gc_store(store).versions == 0, "replaced just now"
    assert gc_store(store, older_than_hours=0.0).versions == 1
    with pytest.raises(StoreError, match="collected while in use"):
        old.embeddings[:]
    missing = store.read("p1").entry.path
    store.storage._fs.rm(f"{store.storage}/{missing}/embeddings/c", recursive=True)
    assert "is missing" in verify_store(store).damaged[store.patient_key("p1")]
    assert isinstance(forget_patient(store, "p1"), tuple)
    assert "p1" not in store
    assert store.patient_key("p1") not in store.storage.folders()
    assert len(store.read("p2").embeddings[:]) == 20
    assert isinstance(store.storage, ObjectFolder)
    with pytest.raises(StoreError, match="is no folder"):
        _ = store.root


def test_stage_1_on_object_storage(store: EmbeddingStore, tmp_path: Path) -> None:
    for number in range(2):
        np.save(
            tmp_path / f"bed{number}.npy",
            np.random.default_rng(number).random(40 * 30 * 5).astype(np.float32),
        )
        about = {"patient_id": f"A{number}", "start": "2111-05-02T10:00:00", "sampling_rate_hz": 40}
        (tmp_path / f"bed{number}.json").write_text(json.dumps(about))
    source, encoder = ArrayFolder(tmp_path), PPGGPT.random("1m")
    local = EmbeddingStore.open(tmp_path / "local", create=True)
    embed(source, local, encoder, EncodingConfig())
    assert embed(source, store, encoder, EncodingConfig()).embedded == 2
    assert embed(source, store, encoder, EncodingConfig()).unchanged == 2
    for patient in ("A0", "A1"):
        assert store.read(patient).entry.data_hash == local.read(patient).entry.data_hash
