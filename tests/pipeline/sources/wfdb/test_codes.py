from dataclasses import replace

import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sources.wfdb.codes import (
    FORMATS,
    decode,
    expected_bytes,
    is_direct,
    physical_rails,
    rail_codes,
    to_physical,
)
from pipeline.sources.wfdb.header import BadRecord, Signal, read_header

PLAIN = Signal(
    file_name="a.dat", fmt="80", samples_per_frame=1, skew=0, byte_offset=0, gain=255.0, baseline=-128,
    calibrated=True, unit="NU", resolution=8, adc_zero=0, first_code=None, name="PLETH",
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    fmt=st.sampled_from(["80", "16", "212"]),
    n_signals=st.integers(1, 4),
    n_frames=st.integers(1, 60),
    data=st.data(),
)
def test_decodes_as_wfdb_does(tmp_path_factory, fmt, n_signals, n_frames, data):
    """Parity with the wfdb package, missing codes included, for any part of any channel."""
    folder = tmp_path_factory.mktemp("codes").resolve()
    seed = data.draw(st.integers(0, 1000))
    limits = FORMATS[fmt]
    codes = np.random.default_rng(seed).integers(limits.low, limits.high + 1, (n_frames, n_signals))
    names = [f"S{i}" for i in range(n_signals)]
    wfdb.wrsamp(
        "a", 125, ["NU"] * n_signals, names, d_signal=codes, fmt=[fmt] * n_signals,
        adc_gain=[255.0] * n_signals, baseline=[-7] * n_signals, write_dir=str(folder),
    )  # fmt: skip
    first = data.draw(st.integers(0, n_frames - 1))
    count = data.draw(st.integers(1, n_frames - first))
    channel = data.draw(st.integers(0, n_signals - 1))
    signals = read_header(folder / "a.hea", folder).signals
    assert is_direct(signals)
    assert (folder / "a.dat").stat().st_size >= (expected_bytes(signals, n_frames) or 0)
    ours = to_physical(decode(folder / "a.dat", signals, channel, first, count), signals[channel])
    theirs = wfdb.rdrecord(str(folder / "a"), sampfrom=first, sampto=first + count, channels=[channel])
    np.testing.assert_allclose(ours, np.asarray(theirs.p_signal)[:, 0], rtol=3e-7, equal_nan=True)


def test_prolog_bytes_are_skipped(tmp_path):
    (tmp_path / "a.dat").write_bytes(b"x" * 24 + np.arange(10, dtype="<i2").tobytes())
    signal = replace(PLAIN, fmt="16", byte_offset=24)
    assert decode(tmp_path / "a.dat", [signal], 0, 4, 3).tolist() == [4, 5, 6]


@pytest.mark.parametrize(("fmt", "n_bytes"), [("80", 9), ("16", 19), ("212", 14)])
def test_a_file_that_ends_early_is_an_error(tmp_path, fmt, n_bytes):
    (tmp_path / "a.dat").write_bytes(b"\0" * n_bytes)
    with pytest.raises(BadRecord) as caught:
        decode(tmp_path / "a.dat", [replace(PLAIN, fmt=fmt)], 0, 0, 10)
    assert caught.value.reason == "signal file truncated"


WIDE = {"fmt": "16", "baseline": 0}


@pytest.mark.parametrize(
    ("changes", "codes", "rails"),
    [
        ({}, (-127, 127), (1 / 255, 1.0)),
        ({"resolution": 0}, (-127, 127), (1 / 255, 1.0)),
        (WIDE | {"gain": 1023.0, "resolution": 10, "adc_zero": 512}, (0, 1023), (0.0, 1.0)),
        (WIDE | {"gain": 1023.0, "resolution": 12, "adc_zero": 2048}, (0, 4095), (0.0, 4.003)),
        (WIDE | {"gain": 1.0, "resolution": 12, "first_code": 3000}, (0, 4095), (0.0, 4095.0)),
        (WIDE | {"gain": 1000.0, "resolution": 16}, (-32767, 32767), (-32.767, 32.767)),
        (WIDE | {"gain": -1000.0, "resolution": 16}, (-32767, 32767), (-32.767, 32.767)),
        ({"fmt": "212", "gain": 1023.0, "baseline": -2048, "resolution": 12}, (-2047, 2047), (0.001, 4.003)),
        ({"fmt": "516", "gain": 4096.0, "baseline": -2048, "resolution": 12}, (-2048, 2047), (0.0, 0.9998)),
    ],
)
def test_rails_come_from_format_and_resolution(changes, codes, rails):
    signal = replace(PLAIN, **changes)
    assert rail_codes(signal) == codes
    np.testing.assert_allclose(physical_rails(signal), rails, atol=5e-4)


def test_rails_compare_exactly_with_samples():
    for signal in (PLAIN, replace(PLAIN, fmt="16", gain=1023.0, baseline=3, resolution=12, adc_zero=2048)):
        low, high = rail_codes(signal)
        dtype = np.int8 if signal.fmt == "80" else np.int16
        samples = to_physical(np.array([low, low + 1, high - 1, high], dtype), signal)
        rails = np.float32(physical_rails(signal))
        assert ((samples <= rails[0]) | (samples >= rails[1])).tolist() == [True, False, False, True]


@pytest.mark.parametrize(("fmt", "code"), [("80", -128), ("16", -32768), ("212", -2048)])
def test_the_missing_code_is_nan(fmt, code):
    codes = np.array([code, 5], np.int8 if fmt == "80" else np.int16)
    assert np.isnan(to_physical(codes, replace(PLAIN, fmt=fmt))).tolist() == [True, False]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"fmt": "99"}, "signal format unknown"), ({"resolution": 12, "adc_zero": 4096}, "signal range empty")],
)
def test_impossible_formats_are_errors(changes, reason):
    with pytest.raises(BadRecord) as caught:
        rail_codes(replace(PLAIN, **changes))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "changes", [{"fmt": "61"}, {"samples_per_frame": 2}, {"skew": 1}, {"byte_offset": 4}]
)
def test_only_plain_files_are_decoded_directly(changes):
    assert not is_direct([PLAIN, replace(PLAIN, **changes)])
