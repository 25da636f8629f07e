"""Stage 1 as a whole: what is embedded, what is left alone, and bytes that depend on content alone."""

import logging
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from pipeline.embedding.config import EncodingConfig
from pipeline.embedding.progress import EmbeddingProgress
from pipeline.embedding.run import embed
from pipeline.foundation.schema import WINDOW_US
from pipeline.sources.base import Catalog
from pipeline.store.embeddings import EmbeddingStore
from pipeline.testing.fake_source import ORIGIN_US, FakeSource
from pipeline.testing.waveforms import CONFIG, FakeEncoder, content


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
    assert note["versions"]["torch"] == version("torch")


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
