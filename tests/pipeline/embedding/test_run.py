"""Stage 1 as a whole: what is embedded, what is left alone, and bytes that depend on content alone."""

import logging
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.embedding.flow import BatchResult
from pipeline.embedding.plan import EmbeddingPlan
from pipeline.embedding.run import (
    EmbeddingProgress,
    EncodingConfig,
    embed,
    embed_batch,
    finish_embedding,
    plan_embedding,
)
from pipeline.foundation.errors import RecordError, StoreError
from pipeline.foundation.schema import WINDOW_US
from pipeline.sources.base import Catalog, Record, Stretch
from pipeline.store.embeddings import EmbeddingStore
from pipeline.windows.cutting import WindowConfig
from pipeline.windows.decoding import CHANGED, UNREADABLE

RATE_HZ = 40.0
ORIGIN_US = 4_466_000_000_000_000 // WINDOW_US * WINDOW_US
CONFIG = EncodingConfig(batch_windows=16, batch_patients=2)


class FakeEncoder:
    """A fixed projection of each window, exact in any order of summation; counts what it embeds."""

    sampling_rate_hz = RATE_HZ
    samples_per_window = 1200

    def __init__(self, name: str = "fake", width: int = 5, scale: float = 1.0) -> None:
        self.name, self.width, self.scale = name, width, scale
        self.windows = 0
        self.batches: list[int] = []

    @property
    def weights_hash(self) -> str:
        return f"{self.scale:064.0f}"

    def embed(self, windows: Float[Tensor, "n samples"]) -> Float[Tensor, "n width"]:
        self.windows += len(windows)
        self.batches.append(len(windows))
        return self.scale * windows[:, :: 1200 // self.width][:, : self.width].contiguous()


@dataclass
class FakeSource:
    """``<patient>/<start_us>.npy`` with samples at 40 Hz."""

    root: Path
    on_read: Callable[[Path], None] = lambda path: None
    name: str = "fake"
    licence: str = "made up for tests"
    reads: list[str] = field(default_factory=list)

    def catalog(self) -> Catalog:
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
        self.reads.append(record.patient_id)
        samples = np.load(record.path)
        self.on_read(record.path)
        yield Stretch(
            start_us=record.start_us, sampling_rate_hz=RATE_HZ, samples=samples, rails=(-10.0, 10.0)
        )


def add_record(root: Path, patient: str, windows: float, *, seed: int = 0, after_hours: float = 0.0) -> Path:
    samples = np.random.default_rng(seed).standard_normal(int(windows * 1200)).astype(np.float32)
    path = root / patient / f"{ORIGIN_US + int(after_hours * 120) * WINDOW_US}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, samples)
    return path


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


def content(store: EmbeddingStore, patient: str) -> tuple[bytes, bytes, bytes]:
    read = store.read(patient)
    return read.embeddings[:].tobytes(), read.start_us.tobytes(), read.quality.tobytes()


def test_first_run_embeds_everything(source: FakeSource, store: EmbeddingStore) -> None:
    encoder = FakeEncoder()
    seen: list[EmbeddingProgress] = []
    summary = embed(source, store, encoder, CONFIG, progress=seen.append)
    assert (summary.embedded, summary.unchanged, summary.patients, summary.windows) == (4, 0, 4, 179)
    assert summary.embedded_windows == encoder.windows == 179
    assert summary.hours == pytest.approx(179 / 120)
    assert dict(summary.exclusions) == {"window: partial, at a gap or an end": 1}
    assert sum(summary.quality_histogram) == 179
    assert summary.failures == Counter()
    assert summary.data_version == store.data_version()
    assert max(encoder.batches) == 16
    assert encoder.batches.count(16) >= 10, "batches cross the borders of records and patients"
    assert (seen[-1].patients_done, seen[-1].patients, seen[-1].windows) == (4, 4, 179)
    assert seen[-1].seconds_left == 0
    assert all(progress.windows_per_second > 0 for progress in seen)
    read = store.read("patient-1")
    assert read.start_us.tolist() == [ORIGIN_US + WINDOW_US * i for i in (*range(7), *range(240, 249))]


def test_embeddings_are_those_of_the_prepared_windows(source: FakeSource, store: EmbeddingStore) -> None:
    embed(source, store, FakeEncoder(), CONFIG)
    samples = np.load(source.root / "patient-0" / f"{ORIGIN_US}.npy").reshape(40, 1200)
    low, high = samples.min(1, keepdims=True), samples.max(1, keepdims=True)
    expected = ((samples - low) / (high - low))[:, ::240]
    np.testing.assert_allclose(store.read("patient-0").embeddings[:], expected, atol=1e-3)


def test_second_run_does_nothing(source: FakeSource, store: EmbeddingStore) -> None:
    first = embed(source, store, FakeEncoder(), CONFIG)
    encoder = FakeEncoder()
    source.reads.clear()
    second = embed(source, store, encoder, CONFIG)
    assert (second.embedded, second.unchanged, encoder.windows, source.reads) == (0, 4, 0, [])
    assert second.data_version == first.data_version
    assert (second.windows, second.exclusions) == (first.windows, first.exclusions)


def test_only_the_changed_patient_is_embedded_again(source: FakeSource, store: EmbeddingStore) -> None:
    first = embed(source, store, FakeEncoder(), CONFIG)
    before = {f"patient-{i}": content(store, f"patient-{i}") for i in range(4)}
    entries = store.manifest()
    add_record(source.root, "patient-2", 5, seed=77, after_hours=3)
    add_record(source.root, "patient-9", 3, seed=78)
    encoder = FakeEncoder()
    second = embed(source, store, encoder, CONFIG)
    assert (second.embedded, second.unchanged, encoder.windows) == (2, 3, 105 + 3)
    assert second.data_version != first.data_version
    for patient in ("patient-0", "patient-1", "patient-3"):
        assert content(store, patient) == before[patient]
        assert store.read(patient).entry == entries[store.patient_key(patient)]
    assert content(store, "patient-2")[0].startswith(before["patient-2"][0]), "old windows keep their bits"


def test_touched_files_cost_hashing_only(source: FakeSource, store: EmbeddingStore) -> None:
    embed(source, store, FakeEncoder(), CONFIG)
    for path in source.root.glob("*/*.npy"):
        os.utime(path, ns=(1, 1))
    encoder = FakeEncoder()
    assert embed(source, store, encoder, CONFIG).unchanged == 4
    assert encoder.windows == 0


def test_moving_the_whole_source_changes_nothing(
    source: FakeSource, store: EmbeddingStore, tmp_path: Path
) -> None:
    embed(source, store, FakeEncoder(), CONFIG)
    shutil.copytree(source.root, tmp_path / "elsewhere")
    assert embed(FakeSource(tmp_path / "elsewhere"), store, FakeEncoder(), CONFIG).unchanged == 4


@pytest.mark.parametrize(
    ("encoder", "config"),
    [
        (FakeEncoder(scale=2.0), CONFIG),
        (FakeEncoder(name="other"), CONFIG),
        (FakeEncoder(), replace(CONFIG, window=WindowConfig(rail_share_limit=0.2))),
        (FakeEncoder(), replace(CONFIG, window=WindowConfig(version="windows-2"))),
    ],
)
def test_new_weights_or_preprocessing_redo_everything(
    source: FakeSource, store: EmbeddingStore, encoder: FakeEncoder, config: EncodingConfig
) -> None:
    embed(source, store, FakeEncoder(), CONFIG)
    assert embed(source, store, encoder, config).embedded == 4
    assert store.one_encoding() is not None


def test_how_it_runs_is_no_part_of_the_key(source: FakeSource, store: EmbeddingStore) -> None:
    embed(source, store, FakeEncoder(), CONFIG)
    other = EncodingConfig(batch_windows=300, batch_patients=1, queue_blocks=1)
    assert embed(source, store, FakeEncoder(), other).unchanged == 4


def test_bytes_depend_on_no_neighbour_and_no_batch(source: FakeSource, tmp_path: Path) -> None:
    def run(name: str, config: EncodingConfig, patients: slice = slice(None)) -> dict[str, tuple[bytes, ...]]:
        store = EmbeddingStore.open(tmp_path / name, create=True)
        records = source.catalog().records
        chosen = sorted({record.patient_id for record in records})[patients]
        catalog = Catalog(records=tuple(r for p in chosen for r in records if r.patient_id == p))
        embed(source, store, FakeEncoder(), config, catalog=catalog)
        return {patient: content(store, patient) for patient in chosen}

    whole = run("whole", CONFIG)
    assert run("reversed", CONFIG, slice(None, None, -1)) == whole
    assert run("large", EncodingConfig(batch_windows=1000)) == whole
    assert run("odd", EncodingConfig(batch_windows=7, queue_blocks=1)) == whole
    assert run("one", CONFIG, slice(2, 3)) == {"patient-2": whole["patient-2"]}


def test_vanished_patients_are_retired_and_come_back(source: FakeSource, store: EmbeddingStore) -> None:
    first = embed(source, store, FakeEncoder(), CONFIG)
    aside = source.root.parent / "aside"
    (source.root / "patient-0").rename(aside)
    second = embed(source, store, FakeEncoder(), CONFIG)
    assert (second.retired, second.patients, second.windows) == (1, 3, 139)
    assert len(store.read("patient-0")) == 40, "kept, not lost"
    assert embed(source, store, FakeEncoder(), CONFIG).retired == 0, "counted once"
    aside.rename(source.root / "patient-0")
    encoder = FakeEncoder()
    third = embed(source, store, encoder, CONFIG)
    assert (third.returned, third.embedded, encoder.windows) == (1, 0, 0)
    assert third.data_version == first.data_version


def test_partial_plan(source: FakeSource, store: EmbeddingStore) -> None:
    plan = plan_embedding(source.catalog(), store, FakeEncoder(), CONFIG.window)
    keys = [task.patient for task in plan.stale]
    assert keys == [store.patient_key(f"patient-{i}") for i in range(4)]
    assert [[task.patient for task in batch] for batch in plan.batches(3)] == [keys[:3], keys[3:]]
    store.commit(embed_batch(plan.stale[:2], source, store, FakeEncoder(), CONFIG).entries)
    part = plan_embedding(source.catalog(), store, FakeEncoder(), CONFIG.window, only=keys[1:3])
    assert [task.patient for task in part.stale] == [keys[2]]
    assert (part.unchanged, part.retired) == (1, ())
    assert "patient-" not in repr(plan)


def test_patient_without_a_usable_window_is_not_tried_again(
    source: FakeSource, store: EmbeddingStore
) -> None:
    add_record(source.root, "patient-8", 0.5)
    assert embed(source, store, FakeEncoder(), CONFIG).embedded == 5
    assert len(store.read("patient-8")) == 0
    assert embed(source, store, FakeEncoder(), CONFIG).unchanged == 5


class GrowsWhileRead:
    """Appends to one patient's file the first `times` times that it is read."""

    def __init__(self, patient: str, times: int) -> None:
        self.patient, self.left = patient, times

    def __call__(self, path: Path) -> None:
        if path.parent.name == self.patient and self.left > 0:
            self.left -= 1
            samples = np.load(path)
            np.save(path, np.concatenate([samples, samples[:1200]]))


def test_source_that_changes_while_read_is_read_again(source: FakeSource, store: EmbeddingStore) -> None:
    source.on_read = GrowsWhileRead("patient-3", times=1)
    summary = embed(source, store, FakeEncoder(), CONFIG)
    assert (summary.embedded, summary.failures) == (4, Counter())
    assert source.reads.count("patient-3") == 2
    assert len(store.read("patient-3")) == 24, "the content as it is now"
    source.on_read = lambda path: None
    assert embed(source, store, FakeEncoder(), CONFIG).unchanged == 4


def test_source_that_keeps_changing_is_skipped_and_counted(source: FakeSource, store: EmbeddingStore) -> None:
    embed(source, store, FakeEncoder(), CONFIG)
    before = content(store, "patient-3")
    add_record(source.root, "patient-3", 30, seed=5)
    source.on_read = GrowsWhileRead("patient-3", times=9)
    summary = embed(source, store, FakeEncoder(), CONFIG)
    assert (summary.embedded, dict(summary.failures)) == (0, {CHANGED: 1})
    assert source.reads.count("patient-3") == 3
    assert content(store, "patient-3") == before, "the last good version stays"
    assert summary.retired == 0
    source.on_read = lambda path: None
    assert embed(source, store, FakeEncoder(), CONFIG).embedded == 1


def test_changed_after_the_plan_is_hashed_again(source: FakeSource, store: EmbeddingStore) -> None:
    plan = plan_embedding(source.catalog(), store, FakeEncoder(), CONFIG.window)
    add_record(source.root, "patient-3", 23, seed=55)
    finish_embedding(store, plan, _committed(store, plan, source))
    assert embed(source, store, FakeEncoder(), CONFIG).unchanged == 4


def _committed(store: EmbeddingStore, plan: EmbeddingPlan, source: FakeSource) -> list[BatchResult]:
    result = embed_batch(plan.stale, source, store, FakeEncoder(), CONFIG)
    store.commit(result.entries)
    return [result]


def test_unreadable_patients_are_counted_and_others_go_on(source: FakeSource, store: EmbeddingStore) -> None:
    def refuse(path: Path) -> None:
        if path.parent.name == "patient-0":
            raise RecordError("unreadable")
        if path.parent.name == "patient-2":
            raise OSError(5, "disk error")

    source.on_read = refuse
    summary = embed(source, store, FakeEncoder(), CONFIG)
    assert (summary.embedded, dict(summary.failures)) == (2, {UNREADABLE: 2})
    assert "patient-0" not in store
    source.on_read = lambda path: None
    assert embed(source, store, FakeEncoder(), CONFIG).embedded == 2


def test_file_that_vanished_before_or_after_the_plan(source: FakeSource, store: EmbeddingStore) -> None:
    catalog = source.catalog()
    plan = plan_embedding(catalog, store, FakeEncoder(), CONFIG.window)
    (source.root / "patient-0" / f"{ORIGIN_US}.npy").unlink()
    result = embed_batch(plan.stale, source, store, FakeEncoder(), CONFIG)
    assert (len(result.entries), dict(result.failures)) == (3, {UNREADABLE: 1})
    summary = embed(source, store, FakeEncoder(), CONFIG, catalog=catalog)
    assert dict(summary.failures) == {UNREADABLE: 1}
    assert summary.adopted == 3


def test_programming_errors_in_a_worker_surface(source: FakeSource, store: EmbeddingStore) -> None:
    def crash(path: Path) -> None:
        raise ZeroDivisionError("a mistake of ours")

    source.on_read = crash
    threads = threading.active_count()
    with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
        embed(source, store, FakeEncoder(), CONFIG)
    assert threading.active_count() == threads
    assert list(store.storage.staging.iterdir()) == [], "no claim, no half-written folder"


@pytest.mark.parametrize(("scale", "message"), [(np.nan, "NaN or infinity"), (1e9, "exceeds 65504")])
def test_bad_encoder_stops_the_run_and_keeps_the_commits(
    source: FakeSource, store: EmbeddingStore, scale: float, message: str
) -> None:
    embed(source, store, FakeEncoder(), CONFIG)
    before = store.data_version()
    with pytest.raises(StoreError, match=message):
        embed(source, store, FakeEncoder(name="bad", scale=scale), CONFIG)
    assert store.data_version() == before
    assert list(store.storage.staging.iterdir()) == []


def test_finished_but_uncommitted_versions_are_adopted(source: FakeSource, store: EmbeddingStore) -> None:
    plan = plan_embedding(source.catalog(), store, FakeEncoder(), CONFIG.window)
    embed_batch(plan.stale[:3], source, store, FakeEncoder(), CONFIG)  # and then killed, before the commit
    encoder = FakeEncoder()
    summary = embed(source, store, encoder, CONFIG)
    assert (summary.adopted, summary.embedded, encoder.windows) == (3, 1, 23)
    assert summary.windows == 179


def test_two_runs_at_once_share_the_work(source: FakeSource, store: EmbeddingStore) -> None:
    encoders = [FakeEncoder(), FakeEncoder()]
    barrier = threading.Barrier(2)
    summaries = []

    def run(encoder: FakeEncoder) -> None:
        own = EmbeddingStore.open(store.root)
        barrier.wait()
        summaries.append(embed(FakeSource(source.root), own, encoder, CONFIG))

    threads = [threading.Thread(target=run, args=(encoder,)) for encoder in encoders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(encoder.windows for encoder in encoders) == 179, "no window twice"
    assert [summary.windows for summary in summaries] == [179, 179]
    assert list(store.storage.staging.iterdir()) == []


def test_nothing_private_is_logged_or_written(
    source: FakeSource, store: EmbeddingStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    embed(source, store, FakeEncoder(), CONFIG)
    assert "patient-" not in caplog.text.replace("patient-hash", "")
    assert str(ORIGIN_US) not in caplog.text
    for path in store.root.rglob("*"):
        assert "patient-" not in path.name
        assert path.is_dir() or b"patient-" not in path.read_bytes()
    for path in store.root.rglob("*.json"):
        assert str(ORIGIN_US).encode() not in path.read_bytes()


def test_provenance_names_encoder_licence_and_versions(source: FakeSource, store: EmbeddingStore) -> None:
    embed(source, store, FakeEncoder(), CONFIG)
    note = store.read_provenance(store.read("patient-0").entry)
    assert note["source"] == {"kind": "fake", "licence": "made up for tests"}
    assert note["encoder"]["name"] == "fake"
    assert note["window"]["version"] == "windows-1"
    assert note["versions"]["torch"] == str(torch.__version__).partition("+")[0] or note["versions"]["torch"]


def test_empty_source(tmp_path: Path, store: EmbeddingStore) -> None:
    (tmp_path / "none").mkdir()
    summary = embed(FakeSource(tmp_path / "none"), store, FakeEncoder(), CONFIG)
    assert (summary.patients, summary.windows, sum(summary.quality_histogram)) == (0, 0, 0)


@pytest.mark.parametrize(
    "wrong",
    [{"batch_windows": 0}, {"batch_patients": 0}, {"queue_blocks": 0}, {"actors": 0}, {"decode_workers": -1}],
)
def test_config_refuses(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is {next(iter(wrong.values()))}"):
        EncodingConfig(**wrong)
