"""Sources that change, vanish or cannot be read, encoders that fail, runs that are killed or meet."""

import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline.embedding.base import BatchResult
from pipeline.embedding.plan import EmbeddingPlan, plan_embedding
from pipeline.embedding.run import embed, embed_batch, finish_embedding
from pipeline.foundation.errors import RecordError, StoreError
from pipeline.store.embeddings import EmbeddingStore
from pipeline.testing.fake_source import ORIGIN_US, FakeSource, add_record
from pipeline.testing.waveforms import CONFIG, FakeEncoder, content
from pipeline.windows.decoding import CHANGED, UNREADABLE


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
