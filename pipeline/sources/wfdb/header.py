"""WFDB headers, read strictly: whatever a header promises is checked before any sample is touched.

The ``wfdb`` package guesses where a header is malformed (a rate of ``125Hz`` loses the length, gain 0 becomes
200 in silence, a missing segment line fails far away). Times and sizes decide which lab value meets which
waveform, so here a header is either understood completely or refused with one reason.

Source: WFDB Applications Guide, header(5) and signal(5).
"""

import datetime
import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.foundation.errors import RecordError
from pipeline.foundation.schema import DAY_US

MAX_HEADER_BYTES = 16 * 2**20
MAX_SIGNALS = 256
MAX_RECORD_DAYS = 366
"""A record (gaps included) that claims to last longer is refused: nothing bedside does, and a wrong gap moves
time."""
UNCALIBRATED_GAIN = 200.0
"""WFDB's meaning of gain 0 or none."""

_EPOCH_DAY = datetime.date(1970, 1, 1).toordinal()
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_FILE_NAME = re.compile(r"~|[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)?")
_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_RATE = re.compile(rf"({_NUMBER})(?:/-?(?:{_NUMBER})(?:\(-?(?:{_NUMBER})\))?)?")
_FORMAT = re.compile(r"(\d+)(?:x(\d+))?(?::(\d+))?(?:\+(\d+))?")
_GAIN = re.compile(rf"(-?(?:{_NUMBER})(?:[eE][+-]?\d+)?)(?:\((-?\d+)\))?(?:/(\S+))?")
_TIME = re.compile(r"(\d{1,2}):(\d{1,2}):(\d{1,2})(?:\.(\d{1,6})\d*)?")
_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})")


class BadRecord(RecordError):
    """A record or segment that is refused; `reason` is the short category under which it is counted."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Signal:
    """One signal line.

    Attributes
    ----------
    file_name : data file beside the header, or "~" in a layout header
    fmt : WFDB storage format, such as "80", "16", "212", "516"
    samples_per_frame : samples of this signal for one frame of the record
    skew : frames by which the signal is shifted in its file
    byte_offset : bytes before the first sample
    gain, baseline : physical = (code - baseline) / gain; gain is never 0 here
    calibrated : False where the header left the gain out or at 0
    unit : physical unit as written, "" where absent
    resolution : bits of the converter, 0 where unknown
    adc_zero : code in the middle of the converter's range
    first_code : the header's own first code, None where absent
    name : description of the signal, such as "PLETH"
    """

    file_name: str
    fmt: str
    samples_per_frame: int
    skew: int
    byte_offset: int
    gain: float
    baseline: int
    calibrated: bool
    unit: str
    resolution: int
    adc_zero: int
    first_code: int | None
    name: str


@dataclass(frozen=True, kw_only=True)
class Header:
    """A single-segment record (`signals`) or a master (`segments`, whose gaps are named "~").

    Attributes
    ----------
    path : the header file
    name : record name
    frame_rate_hz : frames a second, exactly as written
    n_frames : length in frames, None where the header leaves it out
    base_us : wall clock of the first frame, int64 microseconds; None without a base date
    signals : the signals, in the order of the file
    segments : (name, frames) of each segment; empty for a single-segment record
    """

    path: Path
    name: str
    frame_rate_hz: float
    n_frames: int | None
    base_us: int | None
    signals: tuple[Signal, ...] = ()
    segments: tuple[tuple[str, int], ...] = ()

    def duration_us(self, n_frames: int) -> int:
        """Microseconds that `n_frames` last."""
        return round(n_frames * 1_000_000 / self.frame_rate_hz)


def contained(path: Path, root: Path, folder: Path | None = None) -> Path:
    """Return `path` resolved, refusing one that leaves `root` (resolved already), by ``..`` or by a link.

    Parameters
    ----------
    folder : ``path.parent`` resolved, by who asks for many files of it: each costs one call of the system then, not
        one for every part of its path

    Raises
    ------
    BadRecord
        The resolved path lies outside the root.
    """
    resolved = path.resolve() if folder is None or path.is_symlink() else folder / path.name
    if not resolved.is_relative_to(root):
        raise BadRecord(
            "path leaves the folder",
            f"{path} points outside its data folder {root}; copy the file there.",
        )
    return resolved


def read_header(path: Path, root: Path, folder: Path | None = None) -> Header:
    """Read and check the header at `path`, which must lie under `root` (resolved); `folder` as in `contained`.

    Raises
    ------
    BadRecord
        The file is missing, too large, no text, or breaks a rule of the format.
    """
    lines = _lines(contained(path, root, folder))
    fields = lines[0].split()
    if len(fields) < 2:
        raise _broken(path, "record line", lines[0], "name, number of signals, sampling rate, length")
    name, _, n_segments = fields[0].partition("/")
    if not _NAME.fullmatch(name) or (n_segments and not n_segments.isdecimal()):
        raise _broken(
            path, "record name", fields[0], "letters, digits, '_' and '-', then '/segments' in a master"
        )
    n_signals = _count(path, "number of signals", fields[1])
    rate = _rate(path, fields[2] if len(fields) > 2 else "250")
    n_frames = _count(path, "number of samples", fields[3]) if len(fields) > 3 else None
    header = Header(
        path=path, name=name, frame_rate_hz=rate, n_frames=n_frames, base_us=_base_us(path, fields[4:6])
    )
    _check_span(header, n_frames or 0)
    body = lines[1:]
    if "/" in fields[0]:
        return _with_segments(header, body, int(n_segments or 0))
    if n_signals > MAX_SIGNALS:
        raise _broken(path, "number of signals", fields[1], f"at most {MAX_SIGNALS}")
    if len(body) != n_signals:
        raise BadRecord(
            "header: number of signal lines",
            f"{path}: the record line promises {n_signals} signals, the header has {len(body)} signal lines.",
        )
    return _replace(header, signals=tuple(_signal(path, line) for line in body))


def _replace(header: Header, **changes) -> Header:
    return Header(**{**vars(header), **changes})


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > MAX_HEADER_BYTES:
            raise BadRecord(
                "header: too large", f"{path} exceeds {MAX_HEADER_BYTES} bytes: not a WFDB header."
            )
        text = path.read_bytes().decode("latin-1")  # comments of old records; names are checked below
    except OSError as error:
        raise BadRecord("header missing", f"{path} cannot be read ({error.strerror}).") from error
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise BadRecord("header: empty", f"{path} is empty; copy the record again.")
    return lines


def _broken(path: Path, what: str, found: str, rule: str) -> BadRecord:
    return BadRecord(f"header: {what}", f"{path}: {what} {found[:80]!r} is not valid; expected {rule}.")


def _count(path: Path, what: str, text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 15:
        raise _broken(path, what, text, "a whole number of at most 15 digits")
    return int(text)


def _rate(path: Path, text: str) -> float:
    match = _RATE.fullmatch(text)
    if match is None or float(match[1]) <= 0:
        raise _broken(path, "sampling rate", text, "a number of Hz above 0, such as 125 or 62.4725/999.56(0)")
    return float(match[1])


def _base_us(path: Path, fields: list[str]) -> int | None:
    """Wall clock of the first sample; a time without a date (segment headers) is checked and then useless."""
    if not fields:
        return None
    match = _TIME.fullmatch(fields[0])
    hour, minute, second = (int(part) for part in match.groups()[:3]) if match else (99, 99, 99)
    if match is None or hour > 23 or minute > 59 or second > 59:
        raise _broken(path, "base time", fields[0], "hh:mm:ss")
    if len(fields) == 1:
        return None
    date = _DATE.fullmatch(fields[1])
    try:
        day, month, year = (int(part) for part in date.groups()) if date else (0, 0, 0)
        ordinal = datetime.date(year, month, day).toordinal()
    except ValueError as error:
        raise _broken(path, "base date", fields[1], "dd/mm/yyyy") from error
    seconds = (hour * 60 + minute) * 60 + second
    return (ordinal - _EPOCH_DAY) * DAY_US + seconds * 1_000_000 + int((match[4] or "").ljust(6, "0"))


def _check_span(header: Header, n_frames: int) -> None:
    if header.duration_us(n_frames) > MAX_RECORD_DAYS * DAY_US:
        raise BadRecord(
            "header: record too long",
            f"{header.path}: {n_frames} samples at {header.frame_rate_hz} Hz are over {MAX_RECORD_DAYS} days;"
            " the length or a gap is wrong.",
        )


def _with_segments(header: Header, lines: list[str], n_segments: int) -> Header:
    path = header.path
    if n_segments == 0 or len(lines) != n_segments:
        raise BadRecord(
            "header: number of segment lines",
            f"{path}: the record line promises {n_segments} segments, but {len(lines)} lines follow.",
        )
    segments = []
    for line in lines:
        fields = line.split()
        if len(fields) != 2 or not (fields[0] == "~" or _NAME.fullmatch(fields[0])):
            raise _broken(
                path, "segment line", line, "a segment name (no path) or '~', and a number of samples"
            )
        if fields[0] == header.name:
            raise BadRecord("header: names itself", f"{path} lists itself among its own segments.")
        segments.append((fields[0], _count(path, "segment length", fields[1])))
    total = sum(length for _, length in segments)
    _check_span(header, total)
    if header.n_frames is not None and header.n_frames != total:
        raise BadRecord(
            "header: lengths disagree",
            f"{path}: the segments add up to {total} samples, the record line says {header.n_frames}; "
            "times in this record cannot be trusted.",
        )
    return _replace(header, n_frames=total, segments=tuple(segments))


def _signal(path: Path, line: str) -> Signal:
    fields = line.split(maxsplit=8)
    if len(fields) < 2 or not _FILE_NAME.fullmatch(fields[0]):
        raise _broken(path, "signal line", line, "a file name without a path, then the format")
    storage = _FORMAT.fullmatch(fields[1])
    if storage is None:
        raise _broken(path, "signal format", fields[1], "a format number with optional xN, :skew and +offset")
    gain = _GAIN.fullmatch(fields[2]) if len(fields) > 2 else None
    if len(fields) > 2 and gain is None:
        raise _broken(path, "gain", fields[2], "gain(baseline)/unit")
    integers = [_integer(path, text) for text in fields[3:8]]
    resolution, adc_zero, first_code = [*integers[:3], *(None,) * (3 - len(integers[:3]))]
    factor = float(gain[1]) if gain else 0.0
    samples_per_frame = int(storage[2] or 1)
    if samples_per_frame == 0 or not 0 <= (resolution or 0) <= 32:
        raise _broken(path, "signal line", line, "samples per frame of at least 1, resolution 0 to 32 bits")
    return Signal(
        file_name=fields[0],
        fmt=storage[1],
        samples_per_frame=samples_per_frame,
        skew=int(storage[3] or 0),
        byte_offset=int(storage[4] or 0),
        gain=factor or UNCALIBRATED_GAIN,
        baseline=int(gain[2]) if gain and gain[2] else adc_zero or 0,
        calibrated=factor != 0,
        unit=(gain[3] or "") if gain else "",
        resolution=resolution or 0,
        adc_zero=adc_zero or 0,
        first_code=first_code,
        name=fields[8].strip() if len(fields) > 8 else "",
    )


def _integer(path: Path, text: str) -> int:
    if not re.fullmatch(r"[+-]?\d{1,12}", text):
        raise _broken(path, "signal line", text, "whole numbers after the gain")
    return int(text)
