import logging
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import wfdb

from pipeline.foundation.schema import DAY_US
from pipeline.sources.wfdb.header import BadRecord
from pipeline.sources.wfdb.records import open_record, read_stretches, record_files

SHARED = Path(__file__).parents[4].parent / "shared"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="../shared is absent")
PLETH = "80 255(-128)/NU 8 0 -128 0 0 PLETH"


def segment(folder: Path, name: str, codes: np.ndarray, line: str = PLETH, rate: str = "125") -> None:
    """One segment of 8-bit codes, -128 = missing."""
    (folder / f"{name}.dat").write_bytes((codes + 128).astype(np.uint8).tobytes())
    (folder / f"{name}.hea").write_text(f"{name} 1 {rate} {len(codes)} 10:00:00\n{name}.dat {line}\n")


def master(folder: Path, *lines: str, name: str = "m", when: str = "10:00:00.000 01/02/2150") -> Path:
    lengths = sum(int(line.split()[1]) for line in lines)
    path = folder / f"{name}.hea"
    path.write_text(f"{name}/{len(lines)} 1 125 {lengths} {when}\n" + "\n".join(lines) + "\n")
    return path


def stretches(path: Path, **options):
    root, exclusions = path.parent.resolve(), Counter()
    found = list(read_stretches(open_record(path, root), root, exclusions, **options))
    return found, exclusions


@pytest.fixture
def codes():
    return np.arange(3000) % 200 - 100


def test_time_counts_gaps_and_changing_channels(tmp_path, codes):
    segment(tmp_path, "x_0001", codes)
    segment(tmp_path, "x_0002", codes, line="80 255(-128)/mV 8 0 -128 0 0 II")
    segment(tmp_path, "x_0003", codes[:500])
    found, exclusions = stretches(
        master(tmp_path, "~ 250", "x_0001 3000", "x_0002 3000", "~ 125", "x_0003 500")
    )
    base = found[0].start_us - 2_000_000
    assert [s.start_us - base for s in found] == [2_000_000, 51_000_000]
    assert base % DAY_US == 10 * 3600 * 1_000_000
    assert exclusions == {"segment: without PLETH": 1}
    np.testing.assert_allclose(found[0].samples, (codes + 128) / 255, rtol=1e-6)


def test_an_hour_at_a_time_gives_the_same_samples(tmp_path, codes, monkeypatch):
    segment(tmp_path, "x_0001", codes)
    path = master(tmp_path, "x_0001 3000")
    whole, _ = stretches(path)
    monkeypatch.setattr("pipeline.sources.wfdb.records.CHUNK_SECONDS", 7)
    parts, _ = stretches(path)
    assert [len(s.samples) for s in parts] == [875, 875, 875, 375]
    assert [s.start_us - parts[0].start_us for s in parts] == [0, 7_000_000, 14_000_000, 21_000_000]
    np.testing.assert_array_equal(np.concatenate([s.samples for s in parts]), whole[0].samples)


def test_each_segment_has_its_own_rails(tmp_path, codes):
    segment(tmp_path, "x_0001", codes)
    segment(tmp_path, "x_0002", codes, line="80 100(-128)/NU 8 0 -128 0 0 PLETH")
    found, _ = stretches(master(tmp_path, "x_0001 3000", "x_0002 3000"))
    np.testing.assert_allclose([s.rails for s in found], [(1 / 255, 1), (0.01, 2.55)], rtol=1e-6)


def header_text(line: str, signal: str = PLETH):
    return lambda d: (d / "x_0002.hea").write_text(f"{line}\nx_0002.dat {signal}\n")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda d: (d / "x_0002.hea").unlink(), "header missing"),
        (lambda d: (d / "x_0002.dat").unlink(), "signal file missing"),
        (lambda d: (d / "x_0002.dat").write_bytes(b"\0" * 2999), "signal file truncated"),
        (lambda d: (d / "x_0002.hea").write_text(""), "header: empty"),
        (
            lambda d: (d / "x_0002.hea").write_text("x_0002/1 1 125 3000\nx_0001 3000\n"),
            "segment is a master",
        ),
        (
            lambda d: (d / "x_0002.hea").write_text("x_0002/1 1 125 3000\nx_0002 3000\n"),
            "header: names itself",
        ),
        (header_text("x_0002 1 125 2999"), "lengths disagree"),
        (header_text("x_0002 1 2500 3000"), "sampling rate out of range"),
        (header_text("x_0002 1 125 3000", "99 1/NU 0 0 0 0 0 PLETH"), "signal format unknown"),
        (header_text("x_0002 1 125 3000", "516 1/NU 0 0 0 0 0 PLETH"), "signal file unreadable"),
    ],
)
def test_a_bad_segment_costs_itself_alone(tmp_path, codes, spoil, reason):
    for name in ("x_0001", "x_0002", "x_0003"):
        segment(tmp_path, name, codes)
    path = master(tmp_path, "x_0001 3000", "x_0002 3000", "x_0003 3000")
    spoil(tmp_path)
    found, exclusions = stretches(path)
    assert exclusions == {f"segment: {reason}": 1}
    assert [s.start_us - found[0].start_us for s in found] == [0, 48_000_000]


def test_a_data_file_outside_the_folder_is_not_read(tmp_path, codes):
    root = tmp_path / "root"
    root.mkdir()
    segment(tmp_path, "x_0001", codes)
    (tmp_path / "x_0001.hea").rename(root / "x_0001.hea")
    (root / "x_0001.dat").symlink_to(tmp_path / "x_0001.dat")
    found, exclusions = stretches(master(root, "x_0001 3000"))
    assert not found
    assert exclusions == {"segment: path leaves the folder": 1}


def test_a_year_of_gap_takes_no_memory(tmp_path, codes):
    segment(tmp_path, "x_0001", codes)
    year = 365 * 86_400 * 125
    path = master(tmp_path, f"~ {year}", "x_0001 3000")
    tracemalloc.start()
    found, _ = stretches(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6
    assert len(found) == 1


def test_memory_stays_flat_over_seven_days(tmp_path):
    n = 7 * 86_400 * 125
    with (tmp_path / "a.dat").open("wb") as file:
        file.truncate(n)  # sparse: 75 MB that take no disk
    (tmp_path / "a.hea").write_text(f"a 1 125 {n} 10:00:00 01/01/2200\na.dat {PLETH}\n")
    root = tmp_path.resolve()
    tracemalloc.start()
    lengths = [len(s.samples) for s in read_stretches(open_record(root / "a.hea", root), root, Counter())]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(lengths) == n
    assert max(lengths) == 3600 * 125
    assert peak < 16e6, "one hour of float32 is 1.8 MB"


def test_many_channels_are_read_in_smaller_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.sources.wfdb.records.MAX_CHUNK_SAMPLES", 200)
    codes = np.arange(300) % 100
    (tmp_path / "a.dat").write_bytes(np.repeat(codes + 128, 4).astype(np.uint8).tobytes())
    others = f"a.dat {PLETH[:-5]}II\n" * 3
    (tmp_path / "a.hea").write_text(f"a 4 125 300 10:00:00 01/01/2200\n{others}a.dat {PLETH}\n")
    found, _ = stretches(tmp_path / "a.hea")
    assert {len(s.samples) for s in found} == {50}
    np.testing.assert_allclose(np.concatenate([s.samples for s in found]) * 255 - 128, codes, atol=1e-4)


def test_a_segment_may_have_its_own_rate(tmp_path, codes):
    """Time goes on by the master's count; the samples have the rate of their own header."""
    segment(tmp_path, "x_0001", codes)
    segment(tmp_path, "x_0002", codes, rate="250")
    segment(tmp_path, "x_0003", codes)
    found, exclusions = stretches(master(tmp_path, "x_0001 3000", "x_0002 3000", "x_0003 3000"))
    assert [s.sampling_rate_hz for s in found] == [125.0, 250.0, 125.0]
    assert [s.start_us - found[0].start_us for s in found] == [0, 24_000_000, 48_000_000]
    assert not exclusions


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("m 1 125 10 10:00:00 01/01/2100\nm.dat 80 127/mV 8 0 0 0 0 II\n", "record without PLETH"),
        ("m 1 125 0 10:00:00\n~ 0 255(-128)/NU 8 0 0 0 0 PLETH\n", "layout header alone"),
        ("m 1 125\nm.dat 516 1/NU 8 0 0 0 0 PLETH\n", "header: no length"),
        ("m/2 1 125 10\nl_layout 0\nx_0001 10\n", "header missing"),
    ],
)
def test_a_record_that_can_be_of_no_use_is_refused(tmp_path, text, reason):
    (tmp_path / "m.hea").write_text(text)
    (tmp_path / "m.dat").write_bytes(b"\0" * 10)
    with pytest.raises(BadRecord) as caught:
        open_record(tmp_path / "m.hea", tmp_path.resolve())
    assert caught.value.reason == reason


def test_the_layout_tells_that_pleth_is_nowhere(tmp_path):
    (tmp_path / "l_layout.hea").write_text("l_layout 1 125 0\n~ 0 127/mV 8 0 0 0 0 II\n")
    with pytest.raises(BadRecord) as caught:
        open_record(master(tmp_path, "l_layout 0", "x_0001 10"), tmp_path.resolve())
    assert caught.value.reason == "record without PLETH"


def test_no_base_date_is_refused_unless_a_start_is_given(tmp_path, codes):
    segment(tmp_path, "x_0001", codes)
    path = master(tmp_path, "x_0001 3000", when="10:00:00")
    with pytest.raises(BadRecord, match="assume_start"):
        stretches(path)
    assert stretches(path, base_us=30_000_000)[0][0].start_us == 30_000_000


def test_length_may_come_from_the_file(tmp_path, codes):
    segment(tmp_path, "a", codes)
    (tmp_path / "a.hea").write_text(f"a 1 125\na.dat {PLETH}\n")
    assert len(stretches(tmp_path / "a.hea", base_us=0)[0][0].samples) == 3000


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("80 0/NU 8 0 -128 0 0 PLETH", "uncalibrated"),
        ("80 255(-128)/mV 8 0 -128 0 0 PLETH", "unit other than NU"),
        ("80 255(-128) 8 0 -128 0 0 PLETH", "no unit"),
    ],
)
def test_harmless_oddities_are_said_once_without_a_name(tmp_path, codes, caplog, line, words):
    for name in ("secret_0001", "secret_0002"):
        segment(tmp_path, name, codes, line=line)
    with caplog.at_level(logging.WARNING, "pipeline"):
        found, exclusions = stretches(master(tmp_path, "secret_0001 3000", "secret_0002 3000"))
    assert len(found) == 2
    assert not exclusions
    assert len([r for r in caplog.records if words in r.message]) == 1
    assert "secret" not in caplog.text


def test_the_first_of_two_pleth_channels_is_used(tmp_path, caplog):
    codes = np.array([[10, 20], [11, 21]])
    (tmp_path / "a.dat").write_bytes((codes + 128).astype(np.uint8).tobytes())
    (tmp_path / "a.hea").write_text(f"a 2 125 2 10:00:00 01/01/2100\na.dat {PLETH}\na.dat {PLETH}\n")
    found, _ = stretches(tmp_path / "a.hea")
    np.testing.assert_allclose(found[0].samples * 255 - 128, [10, 11], atol=1e-4)
    assert "occurs twice" in caplog.text


@pytest.mark.parametrize("fmt", ["16", "24", "32", "80", "212", "516", "524"])
def test_every_written_format_agrees_with_wfdb(tmp_path, fmt):
    rng = np.random.default_rng(0)
    codes = rng.integers(-100, 100, (997, 2))
    wfdb.wrsamp("a", 240, ["mV", "NU"], ["II", "Pleth"], d_signal=codes, fmt=[fmt] * 2,
                adc_gain=[100.0, 255.0], baseline=[0, -3], write_dir=str(tmp_path))  # fmt: skip
    found, exclusions = stretches(tmp_path / "a.hea", base_us=0)
    assert not exclusions
    expected = np.asarray(wfdb.rdrecord(str(tmp_path / "a")).p_signal)[:, 1]
    np.testing.assert_allclose(found[0].samples, expected, rtol=3e-7)


def test_mimic4_keeps_every_sample_of_a_fast_channel(tmp_path, monkeypatch):
    """Frames at 62.4725 Hz with two samples of Pleth each: 124.945 Hz, in FLAC, chunk after chunk."""
    n_frames = 1000
    pleth = np.arange(2 * n_frames) % 251 - 125
    resp = np.arange(n_frames) % 11
    wfdb.wrsamp("p", 124.945, ["NU"], ["Pleth"], d_signal=pleth[:, None], fmt=["516"], adc_gain=[4096.0],
                baseline=[-2048], write_dir=str(tmp_path))  # fmt: skip
    (tmp_path / "r.dat").write_bytes(resp.astype("<i2").tobytes())
    (tmp_path / "a.hea").write_text(
        f"a 2 62.4725/999.56(0) {n_frames} 10:00:00 01/01/2150\n"
        "r.dat 16 100/Ohm 12 0 0 0 0 Resp\np.dat 516x2 4096(-2048)/NU 12 0 0 0 0 Pleth\n"
    )
    monkeypatch.setattr("pipeline.sources.wfdb.records.CHUNK_SECONDS", 5)
    found, exclusions = stretches(tmp_path / "a.hea")
    assert not exclusions
    assert {s.sampling_rate_hz for s in found} == {124.945}
    np.testing.assert_allclose(np.concatenate([s.samples for s in found]), (pleth + 2048) / 4096, rtol=1e-6)
    assert found[1].start_us - found[0].start_us == round(312 / 62.4725 * 1e6)


def test_record_files_are_what_the_samples_depend_on(tmp_path, codes):
    segment(tmp_path, "x_0001", codes)
    segment(tmp_path, "x_0002", codes, line="80 255(-128)/mV 8 0 -128 0 0 II")
    segment(tmp_path, "unrelated", codes)
    path = master(tmp_path, "x_0001 3000", "x_0002 3000", "~ 5", "x_0003 10")
    root = tmp_path.resolve()
    files = record_files(open_record(path, root), root)
    assert [file.name for file in files] == ["m.hea", "x_0001.dat", "x_0001.hea", "x_0002.hea"]


@needs_shared
def test_real_records_agree_with_wfdb():
    for path in sorted((SHARED / "data" / "wfdb_single").glob("*.hea")):
        found, exclusions = stretches(path, base_us=0)
        record = wfdb.rdrecord(str(path.with_suffix("")))
        expected = np.asarray(record.p_signal)[:, record.sig_name.index("PLETH")]
        samples = np.concatenate([s.samples for s in found])
        np.testing.assert_allclose(samples, expected, rtol=3e-7, atol=1e-7, equal_nan=True)
        assert not exclusions


@needs_shared
def test_real_matched_subset_record():
    """The real master: 36 segments of which two are there, after a gap of 30 s."""
    folder = SHARED / "data" / "wfdb_multisegment" / "p000878"
    found, exclusions = stretches(folder / "p000878-2137-10-26-16-57.hea")
    assert [len(s.samples) for s in found] == [2000, 1750]
    assert found[0].start_us == 5295862629_000_000 + 30_000_000
    assert found[1].start_us - found[0].start_us == 16_000_000
    assert exclusions == {"segment: header missing": 30}
    expected = np.asarray(wfdb.rdrecord(str(folder / "3269321_0002"), channel_names=["PLETH"]).p_signal)[:, 0]
    np.testing.assert_allclose(found[1].samples, expected, rtol=3e-7)
