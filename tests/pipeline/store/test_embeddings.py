"""The store: whole versions behind a manifest, exact bytes, private and anonymous names, clear refusals."""

import json
import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.foundation.errors import StoreError
from pipeline.foundation.schema import QUALITY_COLUMNS, WINDOW_US
from pipeline.store.embeddings import MANIFEST, EmbeddingStore
from pipeline.store.manifest import EmbeddingKey, ManifestEntry
from pipeline.store.zarr_version import CHUNK_WINDOWS, QUALITY_BINS

ORIGIN_US = 4_466_000_000_000_000 // WINDOW_US * WINDOW_US  # the year 2111
WIDTH = 8


def key(source: str = "source-1", **changes: str) -> EmbeddingKey:
    values = {
        "encoder_name": "fake",
        "weights_hash": "ab" * 32,
        "preprocessing_version": "windows-1-0",
    } | changes
    return EmbeddingKey(source_hash=source, **values)


def windows(n: int, seed: int = 0, width: int = WIDTH) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    start_us = ORIGIN_US + WINDOW_US * np.sort(rng.choice(2 * n + 1, n, replace=False)).astype(np.int64)
    quality = rng.random((n, len(QUALITY_COLUMNS))).astype(np.float32)
    return start_us, rng.standard_normal((n, width)).astype(np.float32), quality


def write(
    store: EmbeddingStore, patient: str, n: int, *, source: str = "source-1", seed: int = 0, batch: int = 500
) -> ManifestEntry:
    start_us, embeddings, quality = windows(n, seed)
    with store.stage(patient, key(source), width=WIDTH) as writer:
        for first in range(0, n, batch):
            rows = slice(first, first + batch)
            writer.append(start_us[rows], embeddings[rows], quality[rows])
        return writer.finish({"window: flat": 3})


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    return EmbeddingStore.open(tmp_path / "store", create=True)


@pytest.mark.parametrize("n", [0, 1, 5, CHUNK_WINDOWS - 1, CHUNK_WINDOWS, 2 * CHUNK_WINDOWS + 7])
def test_round_trip(store: EmbeddingStore, n: int) -> None:
    store.commit([write(store, "p1", n)])
    start_us, embeddings, quality = windows(n)
    read = store.read("p1")
    np.testing.assert_array_equal(read.start_us, start_us)
    np.testing.assert_array_equal(read.quality, quality)
    np.testing.assert_array_equal(read.embeddings[:], embeddings.astype(np.float16))
    assert (read.start_us.dtype, read.quality.dtype, read.embeddings.dtype) == (
        np.int64,
        np.float32,
        np.float16,
    )
    assert (len(read), read.width, read.embeddings.shape) == (n, WIDTH, (n, WIDTH))
    assert sum(read.entry.quality_histogram) == n
    assert len(read.entry.quality_histogram) == QUALITY_BINS
    assert dict(read.entry.exclusions) == {"window: flat": 3}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_indexing_agrees_with_numpy(tmp_path: Path, data: st.DataObject) -> None:
    store = EmbeddingStore.open(tmp_path / "store", create=True)
    n = CHUNK_WINDOWS + 100
    if "p1" not in store:
        store.commit([write(store, "p1", n)])
    expected = windows(n)[1].astype(np.float16)
    embeddings = store.read("p1").embeddings
    bound = st.one_of(st.none(), st.integers(-n - 5, n + 5))
    step = st.one_of(st.none(), st.integers(-400, -1), st.integers(1, 400))
    rows = data.draw(
        st.one_of(
            st.builds(slice, bound, bound, step),
            st.integers(-n, n - 1),
            st.lists(st.integers(-n, n - 1), max_size=70).map(lambda picked: np.array(picked, np.int64)),
        )
    )
    np.testing.assert_array_equal(embeddings[rows], expected[rows])


def test_mask_and_array_conversion(store: EmbeddingStore) -> None:
    store.commit([write(store, "p1", 50)])
    expected = windows(50)[1].astype(np.float16)
    embeddings = store.read("p1").embeddings
    mask = np.arange(50) % 3 == 0
    np.testing.assert_array_equal(embeddings[mask], expected[mask])
    np.testing.assert_array_equal(np.asarray(embeddings, np.float32), expected.astype(np.float32))
    with pytest.raises(IndexError, match=r"within 0\.\.49"):
        embeddings[50]


def test_any_zarr_reader_reads_it(store: EmbeddingStore) -> None:
    store.commit([write(store, "p1", CHUNK_WINDOWS + 3)])
    group = zarr.open_group(store.root / store.read("p1").entry.path, mode="r")
    embeddings = group["embeddings"]
    assert isinstance(embeddings, zarr.Array)
    assert embeddings.chunks == (CHUNK_WINDOWS, WIDTH)
    np.testing.assert_array_equal(embeddings[:], store.read("p1").embeddings[:])
    for name, expected in (("start_us", store.read("p1").start_us), ("quality", store.read("p1").quality)):
        array = group[name]
        assert isinstance(array, zarr.Array)
        np.testing.assert_array_equal(array[:], expected)


def test_splitting_the_stream_changes_no_byte(tmp_path: Path) -> None:
    def content(batch: int) -> tuple[dict[str, bytes], str]:
        store = EmbeddingStore.open(tmp_path / str(batch), create=True)
        entry = write(store, "p1", CHUNK_WINDOWS + 100, batch=batch)
        folder = store.root / entry.path
        files = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
        del files["entry.json"]  # names the patient's hash, and every store has its own key
        return files, entry.data_hash

    assert content(7) == content(500) == content(5000)


def test_uncommitted_is_invisible(store: EmbeddingStore) -> None:
    entry = write(store, "p1", 5)
    assert "p1" not in store
    with pytest.raises(StoreError, match="not in the embedding store"):
        store.read("p1")
    assert store.published("p1", key()) == entry
    store.commit([entry])
    assert "p1" in store


def test_unfinished_is_removed(store: EmbeddingStore) -> None:
    start_us, embeddings, quality = windows(5)
    with store.stage("p1", key(), width=WIDTH) as writer:
        writer.append(start_us, embeddings, quality)
        assert len(list(store.storage.staging.iterdir())) == 1
    assert store.published("p1", key()) is None
    assert list(store.storage.staging.iterdir()) == []


def test_replacing_keeps_the_old_readers_snapshot(store: EmbeddingStore) -> None:
    store.commit([write(store, "p1", 100, source="old", seed=1), write(store, "p2", 10)])
    neighbour = [
        path.stat().st_mtime_ns for path in sorted((store.root / store.patient_key("p2")).rglob("*"))
    ]
    before = store.read("p1")
    version = store.data_version()
    store.commit([write(store, "p1", 120, source="new", seed=2)])
    np.testing.assert_array_equal(before.embeddings[:], windows(100, 1)[1].astype(np.float16))
    np.testing.assert_array_equal(before.start_us, windows(100, 1)[0])
    np.testing.assert_array_equal(store.read("p1").start_us, windows(120, 2)[0])
    assert store.data_version() != version
    assert neighbour == [
        path.stat().st_mtime_ns for path in sorted((store.root / store.patient_key("p2")).rglob("*"))
    ]


def test_same_key_twice_publishes_once(store: EmbeddingStore) -> None:
    first = write(store, "p1", 20)
    version = store.commit([first])
    assert write(store, "p1", 20) == first
    assert store.commit([first]) == version == store.data_version()
    assert list(store.storage.staging.glob("writing-*")) == []


def test_lost_chunk_is_an_error_not_zeros(store: EmbeddingStore) -> None:
    store.commit([write(store, "p1", CHUNK_WINDOWS + 10)])
    read = store.read("p1")
    (store.root / read.entry.path / "embeddings" / "c" / "1" / "0").unlink()
    assert len(read.embeddings[:CHUNK_WINDOWS]) == CHUNK_WINDOWS
    for rows in (slice(None), CHUNK_WINDOWS, np.array([3, CHUNK_WINDOWS + 1])):
        with pytest.raises(StoreError, match="missing or cut short"):
            read.embeddings[rows]
    os.truncate(store.root / read.entry.path / "embeddings" / "c" / "0" / "0", 1000)
    for rows in (slice(0, 500), np.array([3, 4])):
        with pytest.raises(StoreError, match="missing or cut short"):
            read.embeddings[rows]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "NaN or infinity"),
        (np.inf, "NaN or infinity"),
        (65520.0, "exceeds 65504"),
        (-1e9, "exceeds 65504"),
    ],
)
def test_bad_embeddings_are_refused(store: EmbeddingStore, value: float, message: str) -> None:
    start_us, embeddings, quality = windows(5)
    embeddings[3, 2] = value
    with store.stage("p1", key(), width=WIDTH) as writer, pytest.raises(StoreError, match=message):
        writer.append(start_us, embeddings, quality)
    assert store.published("p1", key()) is None


def test_largest_float16_is_accepted(store: EmbeddingStore) -> None:
    start_us, embeddings, quality = windows(5)
    embeddings[:] = 65504
    with store.stage("p1", key(), width=WIDTH) as writer:
        writer.append(start_us, embeddings, quality)
        store.commit([writer.finish()])
    assert (store.read("p1").embeddings[:] == 65504).all()


def test_disorder_is_refused(store: EmbeddingStore) -> None:
    start_us, embeddings, quality = windows(5)
    with store.stage("p1", key(), width=WIDTH) as writer:
        with pytest.raises(ValueError, match="in time order"):
            writer.append(start_us[::-1].copy(), embeddings, quality)
        with pytest.raises(ValueError, match="multiples of 30 s"):
            writer.append(start_us + 1, embeddings, quality)
        with pytest.raises(ValueError, match="shapes disagree"):
            writer.append(start_us, embeddings[:, :4].copy(), quality)
        writer.append(start_us, embeddings, quality)
        with pytest.raises(ValueError, match="in time order"):
            writer.append(start_us[-1:], embeddings[:1], quality[:1])


def test_every_part_of_the_key_names_another_version() -> None:
    hashes = {
        key().content_hash,
        key("other").content_hash,
        *(
            key(**{name: "x"}).content_hash
            for name in ("encoder_name", "weights_hash", "preprocessing_version", "dtype", "readout",
                         "projection", "precision", "device")
        ),
        key(batch_windows=4096).content_hash,
    }  # fmt: skip
    assert len(hashes) == 11


def test_private_and_anonymous(store: EmbeddingStore) -> None:
    patient = "patient-4711"
    entry = write(store, patient, 10)
    store.commit([entry])
    store.write_provenance({"encoder": "fake"})
    paths = [store.root, *store.root.rglob("*")]
    assert {path.stat().st_mode & 0o777 for path in paths if path.is_dir()} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in paths if path.is_file()} == {0o600}
    assert store.storage.staging.stat().st_mode & 0o777 == 0o700
    for path in paths:
        assert "4711" not in path.name
        assert path.is_dir() or b"4711" not in path.read_bytes()
    assert "4711" not in repr(entry)
    assert EmbeddingStore.open(store.root.parent / "other", create=True).patient_key(patient) != entry.patient
    assert str(windows(10)[0][0]) not in (store.root / MANIFEST).read_text()


def test_key_file_open_to_others_is_refused(store: EmbeddingStore) -> None:
    (store.root / "patient_key").chmod(0o640)
    with pytest.raises(StoreError, match="mode 640 and must be private"):
        EmbeddingStore.open(store.root)


def test_opening_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="run the embed stage first"):
        EmbeddingStore.open(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_lost_key_is_not_replaced(store: EmbeddingStore) -> None:
    store.commit([write(store, "p1", 2)])
    (store.root / "patient_key").unlink()
    with pytest.raises(StoreError, match="restore that file"):
        EmbeddingStore.open(store.root, create=True)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}', '{"format": 1, "entries": {"a": {}}}'])
def test_damaged_manifest(store: EmbeddingStore, content: str) -> None:
    (store.root / MANIFEST).write_text(content)
    with pytest.raises(StoreError, match="manifest is damaged"):
        store.manifest()


def test_newer_format(store: EmbeddingStore) -> None:
    (store.root / MANIFEST).write_text(json.dumps({"format": 2, "entries": {}}))
    with pytest.raises(StoreError, match="has format 2"):
        store.manifest()


def test_committing_what_was_collected(store: EmbeddingStore) -> None:
    entry = write(store, "p1", 2)
    store.storage.remove(entry.path)
    with pytest.raises(StoreError, match="is not in the store"):
        store.commit([entry])
    assert store.manifest() == {}


def test_retiring_and_coming_back(store: EmbeddingStore) -> None:
    entry = write(store, "p1", 4)
    version = store.commit([entry])
    assert store.commit([], retired=[entry.patient, "never seen"]) != version
    assert store.manifest()[entry.patient].retired
    assert len(store.read("p1")) == 4, "kept, not lost"
    assert store.commit([entry]) == version


def test_one_encoding(store: EmbeddingStore) -> None:
    assert store.one_encoding() is None
    old = write(store, "p1", 4)
    store.commit([old])
    assert store.one_encoding() == key().encoding
    with store.stage("p2", key(weights_hash="cd" * 32), width=WIDTH) as writer:
        store.commit([writer.finish()])
    with pytest.raises(StoreError, match="mixes fake"):
        store.one_encoding()
    store.commit([], retired=[old.patient])
    assert store.one_encoding() == key(weights_hash="cd" * 32).encoding


def test_another_process_sees_a_commit(store: EmbeddingStore) -> None:
    reader = EmbeddingStore.open(store.root)
    assert reader.manifest() == {}
    for n in range(1, 4):
        store.commit([write(store, "p1", n, source=f"{n}")])
        assert len(reader.read("p1")) == n


def test_pickled_store_reads(store: EmbeddingStore) -> None:
    store.commit([write(store, "p1", 4)])
    copy = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(copy.read("p1").embeddings[:], store.read("p1").embeddings[:])
    assert len(pickle.loads(pickle.dumps(store.read("p1"))).embeddings[:]) == 4


def test_provenance(store: EmbeddingStore) -> None:
    name = store.write_provenance({"licence": "open", "versions": {"zarr": "3"}})
    assert name == store.write_provenance({"versions": {"zarr": "3"}, "licence": "open"})
    with store.stage("p1", key(), width=WIDTH, provenance=name) as writer:
        entry = writer.finish()
    assert store.read_provenance(entry) == {"licence": "open", "versions": {"zarr": "3"}}
    assert store.read_provenance(write(store, "p2", 1)) == {}


def test_concurrent_commits_lose_nothing(store: EmbeddingStore) -> None:
    patients = [f"p{i}" for i in range(24)]
    failures: list[BaseException] = []

    def work(mine: list[str]) -> None:
        try:
            own = EmbeddingStore.open(store.root, create=True)
            for patient in mine:
                own.commit([write(own, patient, 3)])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(patients[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert set(store.manifest()) == {store.patient_key(patient) for patient in patients}
    assert list(store.storage.staging.iterdir()) == []


def test_claims_exclude_each_other(store: EmbeddingStore) -> None:
    with store.storage.claim("p", wait=False) as first, store.storage.claim("p", wait=False) as second:
        assert (first, second) == (True, False)
        with store.storage.claim("q", wait=False) as other:
            assert other
    with store.storage.claim("p", wait=False) as again:
        assert again


def test_concurrent_creation_agrees_on_one_key(tmp_path: Path) -> None:
    keys: list[str] = []
    barrier = threading.Barrier(8)

    def create() -> None:
        barrier.wait()
        keys.append(EmbeddingStore.open(tmp_path / "store", create=True).patient_key("p1"))

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1
