"""Digital codes of WFDB signal files: the formats' ranges, and a direct decoder for the plain ones.

Formats 80, 16 and 212 (all of MIMIC-III, most of PhysioNet) are decoded here, reading only the bytes of the
frames asked for; ``pipeline.sources.wfdb.records`` leaves the others to the ``wfdb`` package.

Source: WFDB Applications Guide, signal(5).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from pipeline.sources.wfdb.header import BadRecord, Signal


@dataclass(frozen=True, kw_only=True)
class CodeFormat:
    """Range of the codes, the code that means "missing", and bytes as a fraction (0/1: compressed)."""

    low: int
    high: int
    missing: int | None
    bytes_per_samples: tuple[int, int]


def _signed(bits: int, bytes_per_samples: tuple[int, int]) -> CodeFormat:
    low = -(2 ** (bits - 1))
    return CodeFormat(low=low, high=-low - 1, missing=low, bytes_per_samples=bytes_per_samples)


FORMATS: dict[str, CodeFormat] = {
    "8": CodeFormat(low=-(2**31), high=2**31 - 1, missing=None, bytes_per_samples=(1, 1)),
    "16": _signed(16, (2, 1)),
    "24": _signed(24, (3, 1)),
    "32": _signed(32, (4, 1)),
    "61": _signed(16, (2, 1)),
    "80": _signed(8, (1, 1)),
    "160": _signed(16, (2, 1)),
    "212": _signed(12, (3, 2)),
    "310": _signed(10, (4, 3)),
    "311": _signed(10, (4, 3)),
    "508": _signed(8, (0, 1)),
    "516": _signed(16, (0, 1)),
    "524": _signed(24, (0, 1)),
}
DIRECT_FORMATS = ("80", "16", "212")


def code_format(signal: Signal) -> CodeFormat:
    """Return what is known about the signal's format.

    Raises
    ------
    BadRecord
        WFDB has no such format.
    """
    if signal.fmt not in FORMATS:
        raise BadRecord(
            "signal format unknown", f"signal format {signal.fmt} is none of WFDB's: {', '.join(FORMATS)}."
        )
    return FORMATS[signal.fmt]


def rail_codes(signal: Signal) -> tuple[int, int]:
    """Lowest and highest valid code of the converter behind `signal`.

    The converter's range is centred on ``adc_zero``; a header that says 12 bits around 0 while its own first
    code lies above that range holds unsigned codes. Where the resolution is unknown the format's range
    stands. The code that means "missing" is no valid code.
    """
    fmt = code_format(signal)
    low, high = fmt.low, fmt.high
    if signal.resolution:
        half = 2 ** (signal.resolution - 1)
        centre = signal.adc_zero
        if centre == 0 and signal.first_code is not None and signal.first_code >= half:
            centre = half
        low, high = max(low, centre - half), min(high, centre + half - 1)
    if low == fmt.missing:
        low += 1
    if low >= high:
        raise BadRecord(
            "signal range empty",
            f"{signal.resolution} bits around {signal.adc_zero} do not fit format {signal.fmt}.",
        )
    return low, high


def to_physical(codes: Int[np.ndarray, " n"], signal: Signal) -> Float[np.ndarray, " n"]:
    """Physical values, float32, NaN where the code means "missing".

    Every code has one value whatever else is read with it, so that rails compare exactly.
    """
    missing = code_format(signal).missing
    if codes.dtype.itemsize == 1:
        table = _physical(np.arange(-128, 128), signal)
        if missing is not None:
            table[missing + 128] = np.nan
        return table[codes.view(np.uint8) ^ np.uint8(0x80)]
    values = _physical(codes, signal)
    if missing is not None:
        values[codes == missing] = np.nan
    return values


def physical_rails(signal: Signal) -> tuple[float, float]:
    """Physical values of the lowest and highest valid code, low first also where the gain is negative."""
    low, high = (float(v) for v in _physical(np.asarray(rail_codes(signal)), signal))
    return min(low, high), max(low, high)


def _physical(codes: np.ndarray, signal: Signal) -> np.ndarray:
    """(code - baseline) / gain in float32; codes of up to 24 bits are exact before the division."""
    return (codes - np.float32(signal.baseline)).astype(np.float32) / np.float32(signal.gain)


def expected_bytes(signals: Sequence[Signal], n_frames: int) -> int | None:
    """Bytes that the file shared by `signals` must have for `n_frames`; None where compression hides it."""
    numerator, denominator = code_format(signals[0]).bytes_per_samples
    if numerator == 0:
        return None
    samples = n_frames * sum(signal.samples_per_frame for signal in signals)
    return signals[0].byte_offset + -(-samples * numerator // denominator)


def is_direct(signals: Sequence[Signal]) -> bool:
    """Whether `decode` can read a file shared by `signals`: a plain format, one sample a frame, no skew."""
    first = signals[0]
    return first.fmt in DIRECT_FORMATS and all(
        (s.fmt, s.byte_offset, s.samples_per_frame, s.skew) == (first.fmt, first.byte_offset, 1, 0)
        for s in signals
    )


def decode(
    path: Path, signals: Sequence[Signal], channel: int, first_frame: int, n_frames: int
) -> Int[np.ndarray, " n"]:
    """Codes of frames [first_frame, first_frame + n_frames) of the `channel`-th signal in the file.

    Reads with plain reads, not a memory map: a file that shrinks meanwhile gives an error, not a crash.

    Raises
    ------
    BadRecord
        The file ends too early.
    """
    width, fmt = len(signals), signals[0].fmt
    offset = signals[0].byte_offset
    if fmt == "212":
        return _decode_212(path, offset, width, channel, first_frame, n_frames)
    dtype = np.dtype("u1" if fmt == "80" else "<i2")
    raw = _read(path, offset + first_frame * width * dtype.itemsize, n_frames * width * dtype.itemsize)
    codes = raw.view(dtype)[channel::width]
    return (codes ^ np.uint8(0x80)).view(np.int8) if fmt == "80" else codes


def _read(path: Path, offset: int, n_bytes: int) -> np.ndarray:
    with path.open("rb") as file:
        file.seek(offset)
        raw = np.fromfile(file, np.uint8, n_bytes)
    if raw.size != n_bytes:
        raise BadRecord(
            "signal file truncated", f"{path} ended while it was read; was it still being written?"
        )
    return raw


def _decode_212(
    path: Path, offset: int, width: int, channel: int, first_frame: int, n_frames: int
) -> Int[np.ndarray, " n"]:
    """Two 12-bit codes in three bytes; an odd last sample has two bytes."""
    first = first_frame * width
    skipped = first % 2
    n_samples = n_frames * width + skipped
    raw = _read(path, offset + (first - skipped) // 2 * 3, -(-n_samples * 3 // 2))
    raw = np.concatenate([raw, np.zeros(-raw.size % 3, np.uint8)]).reshape(-1, 3)
    middle = raw[:, 1].astype(np.int16)
    codes = np.empty((len(raw), 2), np.int16)
    codes[:, 0] = raw[:, 0] | (middle & 0x0F) << 8
    codes[:, 1] = raw[:, 2] | (middle & 0xF0) << 4
    codes = (codes << 4) >> 4  # sign of 12 bits
    return codes.reshape(-1)[skipped + channel : n_samples : width]
