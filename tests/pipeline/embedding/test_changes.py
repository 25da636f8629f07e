"""What is embedded again and what is not, when sources, weights or preprocessing change."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.embedding.config import EncodingConfig
from pipeline.embedding.plan import plan_embedding
from pipeline.embedding.run import embed, embed_batch
from pipeline.foundation.errors import StoreError
from pipeline.store.embeddings import EmbeddingStore
from pipeline.testing.fake_source import FakeSource, add_record
from pipeline.testing.waveforms import CONFIG, FakeEncoder, content
from pipeline.windows.cutting import WindowConfig


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


class ReadOut(FakeEncoder):
    """An encoder with a read-out and a projection."""

    def __init__(self, readout: str, projection_hash: str = "none", width: int = 5) -> None:
        super().__init__(width=width)
        self.readout, self.projection_hash = readout, projection_hash


@pytest.mark.parametrize(
    "after",
    [
        ReadOut("layers", width=10),
        ReadOut("layers+spread"),
        ReadOut("mean", "ab" * 32, width=2),
        ReadOut("last"),
    ],
)
def test_another_readout_or_projection_is_embedded_anew_in_batches(
    source: FakeSource, store: EmbeddingStore, after: ReadOut
) -> None:
    """Same weights, same name: the key alone tells them apart; half-way the store is refused, and then goes on."""
    embed(source, store, ReadOut("mean"), CONFIG)
    old = store.one_encoding()
    plan = plan_embedding(source.catalog(), store, after, CONFIG.window)
    assert (len(plan.stale), plan.unchanged) == (4, 0)
    assert f"embedded before 4 by {old}, now by {plan.encoding}" in str(plan)
    assert old is not None
    assert (old.readout, old.projection) == ("mean", "none")
    batches = plan.batches(CONFIG.batch_patients)
    assert [len(batch) for batch in batches] == [2, 2]
    store.commit(embed_batch(batches[0], source, store, after, CONFIG).entries)
    with pytest.raises(StoreError, match=r"mixes .*run the embed stage to its end") as error:
        store.one_encoding()
    assert str(old) in str(error.value)
    assert plan.encoding in str(error.value)
    summary = embed(source, store, after, CONFIG)
    assert (summary.embedded, summary.unchanged) == (2, 2)
    new = store.one_encoding()
    assert new is not None
    assert (new.readout, new.projection) == (after.readout, after.projection_hash)
    assert {entry.width for entry in store.manifest().values()} == {after.width}
    assert not new.serves(old)


def test_how_it_runs_is_no_part_of_the_key(source: FakeSource, store: EmbeddingStore) -> None:
    embed(source, store, FakeEncoder(), CONFIG)
    other = EncodingConfig(batch_windows=300, batch_patients=1, queue_blocks=1)
    assert embed(source, store, FakeEncoder(), other).unchanged == 4


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
