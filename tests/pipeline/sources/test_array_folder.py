from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.foundation.errors import RecordError
from pipeline.sources.array_folder import ArrayFolder
from pipeline.sources.base import WaveformSource
from pipeline.testing.waveform_folders import START, START_US, waveform_table, write_npy_record
from pipeline.windows.cutting import WindowConfig, iterate_windows


def read(root: Path):
    source = ArrayFolder(root)
    exclusions: Counter[str] = Counter()
    stretches = [s for record in source.catalog().records for s in source.stretches(record, exclusions)]
    return stretches, source.catalog().exclusions + exclusions


def test_an_array_and_its_sidecar(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.sources.array_folder.CHUNK_SECONDS", 20)
    samples = np.random.default_rng(0).normal(size=6000)
    samples[5] = np.inf
    path = write_npy_record(tmp_path, samples)
    source = ArrayFolder(tmp_path)
    assert isinstance(source, WaveformSource)
    (record,) = source.catalog().records
    assert (record.patient_id, record.start_us, record.end_us) == ("A-17", START_US, START_US + 48_000_000)
    assert {file.name for file in record.files} == {path.name, "bed7.json"}
    stretches, exclusions = read(tmp_path)
    assert [len(s.samples) for s in stretches] == [2500, 2500, 1000]
    assert [s.start_us - START_US for s in stretches] == [0, 20_000_000, 40_000_000]
    assert stretches[0].rails == (-np.inf, np.inf)
    assert np.isnan(stretches[0].samples[5])
    assert not exclusions


def test_whole_numbers_have_rails_and_may_have_a_missing_code(tmp_path):
    write_npy_record(tmp_path, np.array([-32768, -3, 0, 5] * 100, np.int16), missing=-32768)
    stretch = read(tmp_path)[0][0]
    assert stretch.rails == (-32768.0, 32767.0)
    assert np.isnan(stretch.samples).mean() == 0.25


def test_rails_as_given(tmp_path):
    write_npy_record(tmp_path, np.ones(100), low=-1, high=4.003)
    assert read(tmp_path)[0][0].rails == (-1.0, float(np.float32(4.003)))


@pytest.mark.parametrize(
    ("sidecar", "reason"),
    [
        ({"patient_id": ""}, "no patient"),
        ({"start": "noon"}, "sidecar unreadable"),
        ({"start": "2150-02-01T10:00:00Z"}, "sidecar unreadable"),
        ({"sampling_rate_hz": 0}, "sampling rate out of range"),
        ({"sampling_rate_hz": 5000}, "sampling rate out of range"),
        ({"sampling_rate_hz": "fast"}, "sidecar unreadable"),
        ({"sampling_rate_hz": None}, "sidecar unreadable"),
        ({"sampling_rate_hz": 10**400}, "sidecar unreadable"),
    ],
)
def test_a_bad_sidecar_is_counted(tmp_path, sidecar, reason):
    write_npy_record(tmp_path, np.ones(100), **sidecar)
    write_npy_record(tmp_path, np.ones(100), name="good")
    found = ArrayFolder(tmp_path).catalog()
    assert [r.name for r in found.records] == ["good.npy"]
    assert found.exclusions == {f"record: {reason}": 1}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda p: p.with_suffix(".json").unlink(), "sidecar missing"),
        (lambda p: p.with_suffix(".json").write_text("[1, 2"), "sidecar unreadable"),
        (lambda p: p.with_suffix(".json").write_text("[1, 2]"), "sidecar unreadable"),
        (lambda p: p.write_bytes(b"no array"), "array unreadable"),
        (lambda p: p.write_bytes(p.read_bytes()[:-8]), "array unreadable"),
        (lambda p: np.save(p, np.array([{"a": 1}], dtype=object), allow_pickle=True), "array unreadable"),
        (lambda p: np.save(p, np.ones((2, 50))), "array of a wrong shape"),
        (lambda p: np.save(p, np.array(["a", "b"])), "array of a wrong shape"),
        (lambda p: np.save(p, np.empty(0)), "array of a wrong shape"),
    ],
)
def test_a_bad_array_is_counted(tmp_path, spoil, reason):
    spoil(write_npy_record(tmp_path, np.ones(100)))
    found = ArrayFolder(tmp_path).catalog()
    assert not found.records
    assert found.exclusions == {f"record: {reason}": 1}


@pytest.mark.parametrize("rows_in_group", [1, 10])
def test_rows_of_a_table(tmp_path, rows_in_group):
    pq.write_table(waveform_table(), tmp_path / "waves.parquet", row_group_size=rows_in_group)
    source = ArrayFolder(tmp_path)
    first, second = source.catalog().records
    assert (first.patient_id, second.patient_id) == ("A", "B")
    assert (first.start_us, first.end_us) == (START_US, START_US + 3_600_000_000 + 20_000)
    stretches = list(source.stretches(first, Counter()))
    assert [s.sampling_rate_hz for s in stretches] == [125.0, 100.0], "in time order"
    np.testing.assert_array_equal(stretches[0].samples, np.array([4, np.nan, 6], np.float32))
    assert stretches[0].rails == (-np.inf, np.inf)


def test_rows_that_cannot_be_used_are_counted(tmp_path):
    spoilt = waveform_table(
        patient_id=["", "B", "A"],
        sampling_rate_hz=[100.0, 5.0, 125.0],
        samples=pa.array([[1], [2], [3, 4]], pa.list_(pa.int16())),
        low=[0.0, 0.0, 0.5],
        high=[1.0, 1.0, 4.5],
    )
    pq.write_table(spoilt, tmp_path / "waves.parquet")
    stretches, exclusions = read(tmp_path)
    assert [s.samples.tolist() for s in stretches] == [[3, 4]]
    assert stretches[0].rails == (0.5, 4.5)
    assert exclusions == {"row: no patient": 1, "row: sampling rate out of range": 1}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda t: t.drop_columns(["start"]), "table lacks columns"),
        (lambda t: t.set_column(3, "samples", [[1.0, 2.0, 3.0]]), "table of a wrong type"),
        (lambda t: t.set_column(2, "sampling_rate_hz", [["fast", "125", "125"]]), "table unreadable"),
        (lambda t: t.set_column(1, "start", t["start"].cast(pa.timestamp("us", "UTC"))), "table unreadable"),
    ],
)
def test_a_bad_table_is_counted(tmp_path, spoil, reason):
    pq.write_table(spoil(waveform_table()), tmp_path / "waves.parquet")
    found = ArrayFolder(tmp_path).catalog()
    assert not found.records
    assert found.exclusions == {f"record: {reason}": 1}


def test_whole_numbers_beyond_float32_are_rounded(tmp_path):
    samples = pa.array([[20_000_001], [3], [4, 5]], pa.list_(pa.int32()))
    pq.write_table(waveform_table(samples=samples), tmp_path / "waves.parquet")
    stretches, exclusions = read(tmp_path)
    assert [s.samples.tolist() for s in stretches] == [[4, 5], [20_000_000], [3]]
    assert not exclusions


def test_a_file_that_is_no_table_is_counted(tmp_path):
    (tmp_path / "waves.parquet").write_bytes(b"PAR1 not at all")
    assert ArrayFolder(tmp_path).catalog().exclusions == {"record: table unreadable": 1}


def test_links_out_of_the_folder_are_counted(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    path = write_npy_record(tmp_path, np.ones(100))
    (root / "bed7.npy").symlink_to(path)
    assert ArrayFolder(root).catalog().exclusions == {"record: path leaves the folder": 1}


def test_both_kinds_become_windows(tmp_path):
    rng = np.random.default_rng(0)
    write_npy_record(tmp_path, rng.normal(size=7500))
    samples = pa.array([rng.normal(size=3000).tolist()], pa.list_(pa.float64()))
    row = {
        "patient_id": [17],
        "start": pa.array(pd.to_datetime([START]), pa.timestamp("ns")),
        "samples": samples,
    }
    pq.write_table(pa.table(row | {"sampling_rate_hz": [100.0]}), tmp_path / "more.parquet")
    source = ArrayFolder(tmp_path)
    counts = {
        record.patient_id: sum(
            len(b.start_us) for b in iterate_windows(source, [record], WindowConfig(), Counter())
        )
        for record in source.catalog().records
    }
    assert counts == {"17": 1, "A-17": 2}


def test_an_absent_folder_is_one_clear_error(tmp_path):
    with pytest.raises(RecordError, match="is no folder"):
        ArrayFolder(tmp_path / "absent")
