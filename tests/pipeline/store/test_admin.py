"""Listing, verifying, collecting and forgetting."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline.foundation.errors import StoreError
from pipeline.foundation.schema import QUALITY_COLUMNS, WINDOW_US
from pipeline.store.admin import forget_patient, gc_store, list_store, repair_store, verify_store
from pipeline.store.embeddings import EmbeddingStore
from pipeline.store.manifest import EmbeddingKey, ManifestEntry
from pipeline.store.zarr_version import CHUNK_WINDOWS

WIDTH = 4


def write(
    store: EmbeddingStore, patient: str, n: int, source: str = "a", provenance: str = ""
) -> ManifestEntry:
    rng = np.random.default_rng(n)
    key = EmbeddingKey(
        source_hash=source, encoder_name="fake", weights_hash="ab" * 32, preprocessing_version="1"
    )
    with store.stage(patient, key, width=WIDTH, provenance=provenance) as writer:
        writer.append(
            np.arange(n, dtype=np.int64) * WINDOW_US,
            rng.standard_normal((n, WIDTH)).astype(np.float32),
            rng.random((n, len(QUALITY_COLUMNS))).astype(np.float32),
        )
        return writer.finish({"window: flat": 2})


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    store = EmbeddingStore.open(tmp_path / "store", create=True)
    note = store.write_provenance({"source": {"licence": "ODbL"}})
    store.commit(
        [write(store, "p1", CHUNK_WINDOWS + 5, provenance=note), write(store, "p2", 120, provenance=note)]
    )
    return store


def version_folder(store: EmbeddingStore, patient: str = "p1") -> Path:
    return store.root / store.read(patient).entry.path


def make_old(path: Path, hours: float = 30) -> None:
    then = time.time() - hours * 3600
    for entry in (path, *path.rglob("*")):
        os.utime(entry, (then, then))


def test_listing(store: EmbeddingStore) -> None:
    store.commit([], retired=[store.patient_key("p2")])
    listing = list_store(store)
    assert (listing.patients, listing.retired, listing.windows) == (1, 1, CHUNK_WINDOWS + 125)
    assert listing.hours == pytest.approx((CHUNK_WINDOWS + 125) / 120)
    assert dict(listing.encodings) == {"fake (abababab, 1, float16, last, float32 on cpu by 32)": 2}
    assert dict(listing.exclusions) == {"window: flat": 4}
    assert listing.licences == ("ODbL",)
    assert listing.data_version == store.data_version()


def test_listing_nothing(tmp_path: Path) -> None:
    assert list_store(EmbeddingStore.open(tmp_path / "empty", create=True)).patients == 0


def test_sound_store_verifies(store: EmbeddingStore) -> None:
    store.commit([write(store, "p3", 0)])
    report = verify_store(store)
    assert (report.ok, report.checked) == (True, 3)


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: flip_bit(folder / "embeddings/c/0/0"), "differs from its hash"),
        (lambda folder: flip_bit(folder / "quality/c/0/0"), "differs from its hash"),
        (lambda folder: flip_bit(folder / "start_us/c/0"), "not in time order"),
        (lambda folder: (folder / "embeddings/c/1/0").unlink(), "missing or cut short"),
        (lambda folder: (folder / "start_us/c/0").unlink(), "missing or cut short"),
        (lambda folder: os.truncate(folder / "quality/c/0/0", 10), "missing or cut short"),
        (lambda folder: (folder / "embeddings/zarr.json").unlink(), "metadata is missing"),
        (lambda folder: (folder / "embeddings/zarr.json").write_text("{"), "metadata is missing or damaged"),
        (lambda folder: resize(folder), "has shape, chunks, type"),
        (lambda folder: plant_nan(folder), "not finite"),
    ],
)
def test_damage_is_found(store: EmbeddingStore, damage, message: str) -> None:
    damage(version_folder(store))
    report = verify_store(store)
    assert set(report.damaged) == {store.patient_key("p1")}
    assert message in report.damaged[store.patient_key("p1")]
    assert not report.ok


def test_what_is_damaged_is_taken_out_and_embedded_anew(store: EmbeddingStore) -> None:
    whole = store.read("p1").embeddings[:]
    sound = [path for path in store.manifest() if path != store.patient_key("p1")]
    plant_nan(version_folder(store))
    assert repair_store(store, verify_store(store)) == (1, 0)
    assert list(store.manifest()) == sound
    assert verify_store(store).ok
    assert not store.storage.folders(store.patient_key("p1"))
    store.commit([write(store, "p1", CHUNK_WINDOWS + 5)])
    assert verify_store(store).ok
    assert store.read("p1").embeddings.shape[1] == whole.shape[1]


def test_a_damaged_patient_without_waveforms_stays(store: EmbeddingStore) -> None:
    plant_nan(version_folder(store))
    store.commit([], retired=[store.patient_key("p1")])
    report = verify_store(store)
    assert repair_store(store, report) == (0, 1)
    assert verify_store(store).damaged == report.damaged


def resize(folder: Path) -> None:
    array = zarr.open_group(folder)["embeddings"]
    assert isinstance(array, zarr.Array)
    array.resize((CHUNK_WINDOWS, WIDTH))


def plant_nan(folder: Path) -> None:
    array = zarr.open_group(folder)["embeddings"]
    assert isinstance(array, zarr.Array)
    array[7, 2] = np.nan


def test_gc_removes_only_what_is_old_and_unreferenced(store: EmbeddingStore) -> None:
    old = store.read("p1")
    replaced = version_folder(store)
    uncommitted = store.root / write(store, "p9", 3).path
    for path in (replaced, uncommitted):
        make_old(path)
    store.commit([write(store, "p1", 10, source="b")])
    abandoned = store.storage.new_staging_folder()
    (abandoned / "embeddings").mkdir()

    report = gc_store(store)
    assert (report.versions, report.staging_folders) == (1, 0), (
        "the version replaced just now is kept for readers"
    )
    assert not uncommitted.exists()
    assert len(old.embeddings[:]) == CHUNK_WINDOWS + 5

    for path in (replaced, abandoned, version_folder(store), version_folder(store, "p2")):
        make_old(path)
    assert gc_store(store, dry_run=True).versions == 1
    assert replaced.exists()
    report = gc_store(store)
    assert (report.versions, report.staging_folders) == (1, 1)
    assert not replaced.exists()
    assert not abandoned.exists()
    assert verify_store(store).ok
    with pytest.raises(StoreError, match="missing or cut short"):
        old.embeddings[:]
    assert gc_store(store, older_than_hours=0.0).versions == 0


def test_gc_keeps_a_writer_at_work(store: EmbeddingStore) -> None:
    key = EmbeddingKey(
        source_hash="n", encoder_name="fake", weights_hash="ab" * 32, preprocessing_version="1"
    )
    with store.stage("p5", key, width=WIDTH) as writer:
        assert gc_store(store, older_than_hours=1.0).staging_folders == 0
        store.commit([writer.finish()])
    assert verify_store(store).ok


def test_forget(store: EmbeddingStore) -> None:
    patient = store.patient_key("p1")
    store.commit([write(store, "p1", 10, source="b")])
    store.storage.update(
        "source_hashes.json", lambda _: f'{{"{patient}": ["x", "y"], "other": ["x", "y"]}}'.encode()
    )
    elsewhere = forget_patient(store, "p1")
    assert any("checkpoints" in text for text in elsewhere)
    assert "p1" not in store
    everything = [path for root in (store.root, store.storage.staging) for path in root.rglob("*")]
    assert not any(patient in str(path) for path in everything)
    assert not any(patient.encode() in path.read_bytes() for path in everything if path.is_file())
    assert len(store.read("p2")) == 120
    with pytest.raises(StoreError, match="holds nothing of this patient"):
        forget_patient(store, "p1")


def test_forget_what_was_never_committed(store: EmbeddingStore) -> None:
    path = store.root / write(store, "p8", 3).path
    forget_patient(store, "p8")
    assert not path.parent.exists()
