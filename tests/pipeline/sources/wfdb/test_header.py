from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.foundation.schema import DAY_US
from pipeline.sources.wfdb.header import BadRecord, contained, read_header

SIGNAL = "a.dat 80 255(-128)/NU 8 0 -128 0 0 PLETH"


def header(folder: Path, text: str, name: str = "a") -> Path:
    path = folder / f"{name}.hea"
    path.write_text(text)
    return path


def read(folder: Path, text: str):
    return read_header(header(folder, text), folder.resolve())


def test_reads_a_single_segment_record(tmp_path):
    found = read(
        tmp_path,
        f"# comment\na 1 125 3750 16:57:09.25 26/10/2137\n\n{SIGNAL} of the left hand\n# Location: x\n",
    )
    signal = found.signals[0]
    assert (found.name, found.frame_rate_hz, found.n_frames) == ("a", 125.0, 3750)
    assert found.base_us == 5295862629_250_000
    assert (signal.fmt, signal.gain, signal.baseline, signal.unit) == ("80", 255.0, -128, "NU")
    assert (signal.resolution, signal.adc_zero, signal.first_code, signal.name) == (
        8,
        0,
        -128,
        "PLETH of the left hand",
    )


def test_reads_what_only_some_headers_have(tmp_path):
    found = read(tmp_path, "a 2 62.4725/999.56(12) 10 1:02:03\nx.dat 516x2:3+24 4096/NU 12\ny.dat 16\n")
    first, second = found.signals
    assert found.frame_rate_hz == 62.4725
    assert found.base_us is None, "a time without a date is no time"
    assert (first.samples_per_frame, first.skew, first.byte_offset) == (2, 3, 24)
    assert (second.gain, second.calibrated, second.unit, second.name) == (200.0, False, "", "")


def test_baseline_defaults_to_the_middle_of_the_converter(tmp_path):
    assert read(tmp_path, "a 1 125 1\na.dat 16 1023/NU 10 512 0 0 0 PLETH\n").signals[0].baseline == 512


def test_gain_0_means_uncalibrated(tmp_path):
    signal = read(tmp_path, "a 1 125 1\na.dat 80 0/NU 8 0 0 0 0 PLETH\n").signals[0]
    assert (signal.gain, signal.calibrated) == (200.0, False)


def test_reads_a_master(tmp_path):
    found = read(tmp_path, "a/3 4 125 5750 00:00:00.000 01/01/2300\nl_layout 0\n~ 3750\nx_0001 2000\n")
    assert found.segments == (("l_layout", 0), ("~", 3750), ("x_0001", 2000))
    assert found.base_us is not None
    assert found.base_us > 10_000_000_000 * 1_000_000, "beyond the range of nanoseconds"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "header: empty"),
        ("# only a comment\n", "header: empty"),
        ("a\n", "header: record line"),
        ("../a 1 125 10\n" + SIGNAL, "header: record name"),
        ("a/x 1 125 10\n" + SIGNAL, "header: record name"),
        ("a 1 125Hz 10\n" + SIGNAL, "header: sampling rate"),
        ("a 1 0 10\n" + SIGNAL, "header: sampling rate"),
        ("a 1 nan 10\n" + SIGNAL, "header: sampling rate"),
        ("a 1 -125 10\n" + SIGNAL, "header: sampling rate"),
        ("a 1 125 1e4\n" + SIGNAL, "header: number of samples"),
        ("a 1 125 -5\n" + SIGNAL, "header: number of samples"),
        ("a 1 125 1000000000000\n" + SIGNAL, "header: record too long"),
        ("a 1 125 9999999999999999\n" + SIGNAL, "header: number of samples"),
        ("a 999 125 10\n" + SIGNAL, "header: number of signals"),
        ("a 2 125 10\n" + SIGNAL, "header: number of signal lines"),
        ("a 1 125 10\n" + SIGNAL + "\n" + SIGNAL, "header: number of signal lines"),
        ("a 1 125 10 25:61:00 01/01/2100\n" + SIGNAL, "header: base time"),
        ("a 1 125 10 noon 01/01/2100\n" + SIGNAL, "header: base time"),
        ("a 1 125 10 10:00:00 99/99/2100\n" + SIGNAL, "header: base date"),
        ("a 1 125 10 10:00:00 2100-01-01\n" + SIGNAL, "header: base date"),
        ("a 1 125 10\n../x.dat 80 255/NU 8 0 0 0 0 PLETH", "header: signal line"),
        ("a 1 125 10\n/etc/x.dat 80 255/NU 8 0 0 0 0 PLETH", "header: signal line"),
        ("a 1 125 10\ns3://bucket/x 80 255/NU 8 0 0 0 0 PLETH", "header: signal line"),
        ("a 1 125 10\na.dat\n", "header: signal line"),
        ("a 1 125 10\na.dat eighty 255/NU\n", "header: signal format"),
        ("a 1 125 10\na.dat 80x0 255/NU\n", "header: signal line"),
        ("a 1 125 10\na.dat 80 two/NU\n", "header: gain"),
        ("a 1 125 10\na.dat 80 inf/NU\n", "header: gain"),
        ("a 1 125 10\na.dat 80 255/NU 8.5 0\n", "header: signal line"),
        ("a 1 125 10\na.dat 80 255/NU 99 0\n", "header: signal line"),
        ("a/3 1 125 20\nx_0001 10\nx_0002 10\n", "header: number of segment lines"),
        ("a/1 1 125 20\nx_0001 10\nx_0002 10\n", "header: number of segment lines"),
        ("a/0 1 125 0\n", "header: number of segment lines"),
        ("a/ 1 125 0\n", "header: number of segment lines"),
        ("a/2 1 125 20\na 10\nx_0002 10\n", "header: names itself"),
        ("a/2 1 125 20\n../x 10\nx_0002 10\n", "header: segment line"),
        ("a/2 1 125 20\nx_0001\nx_0002 10\n", "header: segment line"),
        ("a/2 1 125 21\nx_0001 10\nx_0002 10\n", "header: lengths disagree"),
        ("a/2 1 125\nx_0001 10\n~ 5000000000\n", "header: record too long"),
    ],
)
def test_refuses_what_it_does_not_understand(tmp_path, text, reason):
    with pytest.raises(BadRecord) as caught:
        read(tmp_path, text)
    assert caught.value.reason == reason


def test_an_absent_header_is_an_error(tmp_path):
    with pytest.raises(BadRecord) as caught:
        read_header(tmp_path / "a.hea", tmp_path.resolve())
    assert caught.value.reason == "header missing"


def test_refuses_a_huge_header(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.sources.wfdb.header.MAX_HEADER_BYTES", 100)
    with pytest.raises(BadRecord) as caught:
        read(tmp_path, "#" * 101)
    assert caught.value.reason == "header: too large"


@pytest.mark.parametrize("link", ["out.hea", "folder/a.hea"])
def test_refuses_links_that_leave_the_folder(tmp_path, link):
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    header(outside, f"a 1 125 10\n{SIGNAL}\n")
    (root / "out.hea").symlink_to(outside / "a.hea")
    (root / "folder").symlink_to(outside)
    with pytest.raises(BadRecord) as caught:
        read_header(root / link, root.resolve())
    assert caught.value.reason == "path leaves the folder"


def test_a_link_inside_the_folder_is_fine(tmp_path):
    path = header(tmp_path, f"a 1 125 10\n{SIGNAL}\n")
    (tmp_path / "b.hea").symlink_to(path)
    assert read_header(tmp_path / "b.hea", tmp_path.resolve()).name == "a"
    assert contained(tmp_path / "b.hea", tmp_path.resolve()) == path.resolve()


def test_the_span_is_bounded_in_days_not_in_samples(tmp_path):
    a_year = 365 * DAY_US // 1_000_000 * 125
    assert read(tmp_path, f"a/2 1 125\nx_0001 10\n~ {a_year}\n").n_frames == a_year + 10


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.sampled_from("a~0159/ .:-+x()#\n"), max_size=80))
def test_any_text_is_understood_or_refused(tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp()
    try:
        found = read(folder, text)
    except BadRecord:
        return
    assert found.frame_rate_hz > 0
    assert bool(found.segments) or all(signal.gain != 0 for signal in found.signals)
