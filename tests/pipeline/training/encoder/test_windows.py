"""The cache of windows: what the encoder saw in stage 1, decoded once, private, and refused where it has changed."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline.foundation.errors import ConfigError, StoreError
from pipeline.foundation.schema import LAB_NAMES, WINDOW_US
from pipeline.sources.base import Record
from pipeline.testing.fake_source import ORIGIN_US, FakeSource, add_record
from pipeline.training.encoder import windows as encoder_windows
from pipeline.training.encoder.draws import EncoderDraws
from pipeline.training.encoder.windows import (
    FULL_SCALE,
    RECORD_FILE,
    SAMPLES_FILE,
    cached_windows,
    forget_windows,
    readable_patients,
)
from pipeline.windows.cutting import WindowConfig, iterate_windows
from pipeline.windows.resample import prepare_ppg_gpt

PLACES = {"100": (1, 4, 125), "200": (0, 2)}
"""Windows wanted of each patient, counted from the origin."""


@pytest.fixture
def source(tmp_path: Path) -> FakeSource:
    add_record(tmp_path / "w", "100", 6, seed=1)
    add_record(tmp_path / "w", "100", 10, seed=2, after_hours=1)
    add_record(tmp_path / "w", "200", 5, seed=3)
    return FakeSource(tmp_path / "w")


def records(source: FakeSource) -> dict[str, tuple[Record, ...]]:
    found: dict[str, list[Record]] = {}
    for record in source.catalog().records:
        found.setdefault(record.patient_id, []).append(record)
    return {patient: tuple(own) for patient, own in found.items()}


def draws() -> EncoderDraws:
    owner = np.repeat(np.arange(2), [len(places) for places in PLACES.values()])
    starts = ORIGIN_US + np.concatenate([*PLACES.values()]) * WINDOW_US
    return EncoderDraws(
        patients=tuple(PLACES), patient=np.array([0, 1]), sampled_us=starts[[2, 4]] + WINDOW_US,
        target=np.zeros((2, len(LAB_NAMES))), window=np.array([[2, 1, 0], [4, 3, -1]]), start_us=starts, owner=owner,
    )  # fmt: skip


def cached(folder: Path, source: FakeSource, identity: str = "a", workers: int = 0):
    return cached_windows(
        folder, draws(), source, records(source), WindowConfig(), identity=identity, workers=workers
    )


def prepared(source: FakeSource) -> np.ndarray:
    """Every wanted window as stage 1 prepares it."""
    out = []
    for patient, places in PLACES.items():
        found = list(iterate_windows(source, records(source)[patient], WindowConfig(), Counter()))
        starts = np.concatenate([batch.start_us for batch in found])
        ready = np.concatenate([prepare_ppg_gpt(b.samples, b.sampling_rate_hz, b.rails) for b in found])
        out.append(ready[np.isin(starts, ORIGIN_US + np.array(places) * WINDOW_US)])
    return np.concatenate(out)


@pytest.mark.parametrize("workers", [0, 1])
def test_windows_are_those_of_stage_1_to_half_a_step(
    tmp_path: Path, source: FakeSource, workers: int
) -> None:
    cache = cached(tmp_path / "cache", source, workers=workers)
    expected = prepared(source)
    assert np.abs(cache.take(np.arange(5)).numpy() - expected).max() <= 0.5 / FULL_SCALE + 1e-7
    assert np.array_equal(cache.take(np.array([3, 1])), cache.take(np.arange(5))[[3, 1]])
    assert (tmp_path / "cache" / SAMPLES_FILE).stat().st_mode & 0o077 == 0


def test_only_records_that_hold_a_wanted_window_are_read(tmp_path: Path, source: FakeSource) -> None:
    add_record(tmp_path / "w", "100", 20, seed=4, after_hours=30)
    add_record(tmp_path / "w", "300", 20, seed=5)
    cached(tmp_path / "cache", source)
    assert source.reads == ["100", "100", "200"]


def test_a_finished_cache_is_mapped_again_and_one_of_another_identity_made_anew(
    tmp_path: Path, source: FakeSource
) -> None:
    first = cached(tmp_path / "cache", source).take(np.arange(5)).clone()
    source.reads.clear()
    assert np.array_equal(cached(tmp_path / "cache", source).take(np.arange(5)), first)
    assert source.reads == []
    (tmp_path / "cache" / RECORD_FILE).unlink()  # killed while it decoded
    cached(tmp_path / "cache", source)
    cached(tmp_path / "cache", source, identity="b")
    assert len(source.reads) == 6
    forget_windows(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_recording_that_changed_is_refused(tmp_path: Path, source: FakeSource) -> None:
    add_record(tmp_path / "w", "200", 1, seed=3)
    with pytest.raises(ConfigError, match="1 windows of a training patient are no longer in the recordings"):
        cached(tmp_path / "cache", source)
    assert not (tmp_path / "cache" / RECORD_FILE).exists()


def test_a_recording_that_cannot_be_read_is_refused_without_a_name(
    tmp_path: Path, source: FakeSource
) -> None:
    def vanish(path: Path) -> None:
        raise FileNotFoundError(path)

    source.on_read = vanish
    with pytest.raises(ConfigError, match="recording of a training patient cannot be read") as caught:
        cached(tmp_path / "cache", source)
    assert "100" not in str(caught.value).replace("100 ", "")


def test_a_full_disk_is_found_out_before_anything_is_read(
    tmp_path: Path, source: FakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(encoder_windows.os, "posix_fallocate", full)
    with pytest.raises(StoreError, match="the disk is full"):
        cached(tmp_path / "cache", source)
    assert source.reads == []


def test_patients_whose_files_are_gone_are_found_by_a_look(source: FakeSource) -> None:
    known = records(source)
    known["100"][0].path.unlink()
    assert readable_patients(known, ["100", "200", "300"]) == ["200"]
