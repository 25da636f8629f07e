import datetime
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import wfdb

from pipeline.foundation.errors import ConfigError, RecordError
from pipeline.sources.base import WaveformSource
from pipeline.sources.wfdb.folder import WfdbFolder, WfdbFolderConfig, parse_assume_start
from pipeline.testing.waveform_folders import WFDB_START, write_wfdb_record
from pipeline.windows.cutting import WindowConfig, iterate_windows

SHARED = Path(__file__).parents[4].parent / "shared"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="../shared is absent")
START = parse_assume_start("2100-01-01T00:00")
START_US = 4102444800_000_000


def windows(source: WfdbFolder):
    records = source.catalog().records
    exclusions: Counter[str] = Counter()
    batches = [b for r in records for b in iterate_windows(source, [r], WindowConfig(), exclusions)]
    return [window for batch in batches for window in batch.start_us], exclusions


@pytest.mark.parametrize(
    ("rule", "patients", "excluded"),
    [
        ("folder", ["15", "A7", "top"], {}),
        ("record", ["rec1", "rec2", "top"], {}),
        (r"ward/(\w+)/", ["15", "A7"], {"record: no patient": 1}),
    ],
)
def test_patients_by_folder_record_or_pattern(tmp_path, rule, patients, excluded):
    write_wfdb_record(tmp_path / "ward" / "p15" / "rec1", "rec1")
    write_wfdb_record(tmp_path / "ward" / "A7", "rec2")
    write_wfdb_record(tmp_path, "top")
    source = WfdbFolder(tmp_path, patient_from=rule)
    assert isinstance(source, WaveformSource)
    found = source.catalog()
    assert [r.patient_id for r in found.records] == patients
    assert found.exclusions == excluded


def test_segments_belong_to_their_master(tmp_path):
    write_wfdb_record(tmp_path, "s_0001")
    write_wfdb_record(tmp_path, "s_0002")
    (tmp_path / "m.hea").write_text(f"m/3 1 125 18750 {WFDB_START}\ns_0001 7500\n~ 3750\ns_0002 7500\n")
    source = WfdbFolder(tmp_path)
    assert [r.name for r in source.catalog().records] == ["m"]
    starts, exclusions = windows(source)
    assert np.diff(starts).tolist() == [30_000_000, 60_000_000, 30_000_000]
    assert not exclusions


def test_records_without_a_date_need_a_start(tmp_path):
    write_wfdb_record(tmp_path, "a", when="10:00:00")
    assert WfdbFolder(tmp_path).catalog().exclusions == {"record: no base date": 1}
    starts, _ = windows(WfdbFolder(tmp_path, assume_start=START))
    assert starts[0] == START_US


def test_a_date_in_the_header_wins(tmp_path):
    write_wfdb_record(tmp_path, "a")
    dated, assumed = (WfdbFolder(tmp_path, **c).catalog().records for c in ({}, {"assume_start": START}))
    assert dated[0].start_us == assumed[0].start_us


def test_another_channel_name(tmp_path):
    write_wfdb_record(tmp_path, "a", channel="SpO2-Wave")
    assert WfdbFolder(tmp_path).catalog().exclusions == {"record: record without PLETH": 1}
    assert len(windows(WfdbFolder(tmp_path, channel="spo2-wave"))[0]) == 2


def test_lists_of_records_are_never_followed(tmp_path):
    """RECORDS may name anything: a path outside, a URL. It is not read at all."""
    write_wfdb_record(tmp_path / "elsewhere", "b")
    root = tmp_path / "root"
    write_wfdb_record(root, "a")
    (root / "RECORDS").write_text("../elsewhere/b\n/etc/passwd\ns3://bucket/x\na\n")
    assert [r.name for r in WfdbFolder(root).catalog().records] == ["a"]


def test_links_out_of_the_folder_are_counted(tmp_path):
    write_wfdb_record(tmp_path / "elsewhere", "b")
    root = tmp_path / "root"
    write_wfdb_record(root, "a")
    (root / "b.hea").symlink_to(tmp_path / "elsewhere" / "b.hea")
    found = WfdbFolder(root).catalog()
    assert [r.name for r in found.records] == ["a"]
    assert found.exclusions == {"record: path leaves the folder": 1}


@pytest.mark.parametrize("name", ["mit Leerzeichen", "病房", "x" * 150])
def test_unusual_folder_names(tmp_path, name):
    write_wfdb_record(tmp_path / name, "a")
    assert len(windows(WfdbFolder(tmp_path))[0]) == 2


def test_broken_headers_are_counted(tmp_path):
    write_wfdb_record(tmp_path, "a")
    (tmp_path / "b.hea").write_text("b 1 125Hz 10\n")
    found = WfdbFolder(tmp_path).catalog()
    assert len(found.records) == 1
    assert found.exclusions == {"record: header: sampling rate": 1}


def test_mimic4_layout(tmp_path):
    """Masters with a layout of length 0, FLAC, frames at 62.4725 Hz with two samples of Pleth each."""
    folder = tmp_path / "waves" / "p100" / "p10014354" / "81739927"
    folder.mkdir(parents=True)
    n = 10_000
    codes = np.random.default_rng(0).integers(-2000, 2000, (2 * n, 1))
    wfdb.wrsamp("81739927_0001p", 124.945, ["NU"], ["Pleth"], d_signal=codes, fmt=["516"], adc_gain=[4096.0],
                baseline=[-2048], write_dir=str(folder))  # fmt: skip
    (folder / "81739927_0001p.hea").unlink()
    (folder / "81739927.hea").write_text(
        f"81739927/2 1 62.4725/999.56 {n} {WFDB_START}\n81739927_0000 0\n81739927_0001 {n}\n"
    )
    (folder / "81739927_0000.hea").write_text(
        "81739927_0000 1 62.4725 0\n~ 0x2 4096(-2048)/NU 12 0 0 0 0 Pleth\n"
    )
    (folder / "81739927_0001.hea").write_text(
        f"81739927_0001 1 62.4725/999.56(0) {n}\n81739927_0001p.dat 516x2 4096(-2048)/NU 12 0 0 0 0 Pleth\n"
    )
    source = WfdbFolder(tmp_path)
    assert [r.patient_id for r in source.catalog().records] == ["10014354"]
    batches = list(iterate_windows(source, source.catalog().records, WindowConfig(), Counter()))
    assert {b.sampling_rate_hz for b in batches} == {124.945}
    assert sum(len(b.start_us) for b in batches) == 5
    second = int(np.ceil(30 * 124.945))
    expected = (codes[second : second + 3748, 0] + 2048) / 4096
    np.testing.assert_allclose(batches[0].samples[1], expected, rtol=1e-6)


@pytest.mark.parametrize(
    "bad", [{"patient_from": "("}, {"patient_from": "no group"}, {"channel": ""},
            {"assume_start": datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)}]
)  # fmt: skip
def test_config_names_what_is_wrong(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        WfdbFolderConfig(**bad)


def test_assume_start_from_a_command_line():
    assert parse_assume_start("2100-01-01T10:00").isoformat() == "2100-01-01T10:00:00"
    for bad in ("tomorrow", "2100-01-01T10:00Z"):
        with pytest.raises(ConfigError, match="assume_start"):
            parse_assume_start(bad)


def test_an_absent_folder_is_one_clear_error(tmp_path):
    with pytest.raises(RecordError, match="is no folder"):
        WfdbFolder(tmp_path / "absent")


@needs_shared
@pytest.mark.parametrize(
    ("folder", "n_records", "n_windows", "excluded"),
    [
        ("challenge2015/wfdb_originals", 8, 85, {}),
        ("wfdb_single", 2, 13, {"window: missing samples": 8}),
        ("wfdb_multisegment/fixed1", 1, 6, {"window: missing samples": 24}),
    ],
)
def test_real_records(folder, n_records, n_windows, excluded):
    source = WfdbFolder(SHARED / "data" / folder, patient_from="record", assume_start=START)
    starts, exclusions = windows(source)
    assert len(source.catalog().records) == n_records
    assert len(starts) == n_windows
    assert exclusions == excluded
