"""PLETH out of WFDB records: one channel, one segment, at most an hour of samples at a time.

Wall-clock time is the master's base date and time plus the samples before, gaps included; segment headers
have no date. Gaps are arithmetic, never memory. Whatever is wrong with one segment costs that segment alone,
and is counted.

The only module that imports ``wfdb``, which reads the formats that ``pipeline.sources.wfdb.codes`` does not.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import wfdb
from jaxtyping import Int

from pipeline.sources.base import Stretch
from pipeline.sources.wfdb.codes import decode, expected_bytes, is_direct, physical_rails, to_physical
from pipeline.sources.wfdb.header import BadRecord, Header, Signal, contained, read_header

logger = logging.getLogger(__name__)

PLETH = "PLETH"
CHUNK_SECONDS = 3600
MAX_CHUNK_SAMPLES = 2**24
"""Of all signals that share the data file: bounds the memory of records with many fast channels."""
MIN_RATE_HZ, MAX_RATE_HZ = 20.0, 2000.0


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One segment that holds the channel, checked against its data file.

    Attributes
    ----------
    header : the segment's own header
    start_us : wall clock of its first sample, int64 microseconds
    n_frames : its length in frames
    channel : position of the channel among the header's signals
    data_path : the channel's data file, resolved
    """

    header: Header
    start_us: int
    n_frames: int
    channel: int
    data_path: Path

    @property
    def signal(self) -> Signal:
        """The channel's signal line."""
        return self.header.signals[self.channel]

    @property
    def file_signals(self) -> tuple[Signal, ...]:
        """The signals that share the channel's data file, in their order in it."""
        return tuple(s for s in self.header.signals if s.file_name == self.signal.file_name)

    @property
    def sampling_rate_hz(self) -> float:
        """Samples of the channel a second: frames a second times samples a frame, never rounded."""
        return self.header.frame_rate_hz * self.signal.samples_per_frame


def open_record(path: Path, root: Path, channel: str = PLETH) -> Header:
    """Read a record's header and refuse it where no segment can be of use.

    Parameters
    ----------
    path : header of a single-segment record or a master
    root : resolved folder that nothing may leave
    channel : name of the waveform, compared without case

    Raises
    ------
    BadRecord
        The header is broken, or it says that the channel is nowhere in the record.
    """
    header = read_header(path, root)
    signals = header.signals
    if header.segments and header.segments[0][1] == 0 and header.segments[0][0] != "~":
        signals = read_header(_sibling(path, f"{header.segments[0][0]}.hea"), root).signals
    if signals and not _positions(signals, channel):
        raise BadRecord("record without PLETH", f"{path} has no channel named {channel}.")
    if any(signal.file_name == "~" for signal in header.signals):
        raise BadRecord("layout header alone", f"{path} only lists channels; its record is a master header.")
    if not header.segments and header.n_frames is None:
        header = _with_length(header, root, channel)
    if not header.n_frames:
        raise BadRecord("no samples", f"{path} is 0 samples long; copy the record again.")
    return header


def record_files(header: Header, root: Path, channel: str = PLETH) -> tuple[Path, ...]:
    """List the files that the channel's samples depend on: headers, and data files that hold it.

    A file that is absent or that a link takes out of `root` is none of them: it is counted when it is read.
    """
    folder = header.path.parent.resolve()
    files = [header.path]
    names = dict.fromkeys(name for name, _ in header.segments if name != "~")
    files.extend(_sibling(header.path, f"{name}.hea") for name in names)
    for path in tuple(files):
        try:
            signals = header.signals if path == header.path else read_header(path, root, folder).signals
        except BadRecord:
            continue  # counted when it is read; its header still belongs to the content
        names = {signals[i].file_name for i in _positions(signals, channel)[:1]} - {"~"}
        files.extend(path.parent / name for name in names)
    inside = (path for path in dict.fromkeys(files) if _is_inside(path, root, folder))
    return tuple(sorted(inside, key=lambda path: path.name))  # all lie in one folder


def read_stretches(
    header: Header,
    root: Path,
    exclusions: Counter[str],
    *,
    channel: str = PLETH,
    base_us: int | None = None,
) -> Iterator[Stretch]:
    """Yield the channel segment by segment, at most an hour at a time.

    Parameters
    ----------
    header : from `open_record`
    root : resolved folder that nothing may leave
    exclusions : receives one count for every segment that could not be used, by reason
    channel : name of the waveform, compared without case
    base_us : wall clock of the first sample where the header has no base date, int64 microseconds

    Raises
    ------
    BadRecord
        The record has no start on the wall clock.
    """
    start_us = header.base_us if header.base_us is not None else base_us
    if start_us is None:
        raise BadRecord(
            "no base date",
            f"{header.path} has no base date, so its samples have no time; configure `assume_start`.",
        )
    warned: set[str] = set()
    for name, first_frame, n_frames in _spans(header):
        try:
            segment = _open_segment(
                header, root, channel, name, n_frames, start_us + header.duration_us(first_frame)
            )
            _warn_once(segment, channel, warned)
            yield from _chunks(segment)
        except BadRecord as problem:
            exclusions[f"segment: {problem.reason}"] += 1


def _is_inside(path: Path, root: Path, folder: Path) -> bool:
    try:
        return contained(path, root, folder).is_file()
    except BadRecord:
        return False


def _sibling(path: Path, name: str) -> Path:
    return path.parent / name


def _positions(signals: tuple[Signal, ...], channel: str) -> list[int]:
    return [i for i, signal in enumerate(signals) if signal.name.casefold() == channel.casefold()]


def _spans(header: Header) -> Iterator[tuple[str | None, int, int]]:
    """Name (None: the record itself), first frame and length of everything that is no gap and no layout."""
    if not header.segments:
        yield None, 0, header.n_frames or 0
        return
    first_frame = 0
    for name, n_frames in header.segments:
        if name != "~" and n_frames:
            yield name, first_frame, n_frames
        first_frame += n_frames


def _open_segment(
    master: Header, root: Path, channel: str, name: str | None, n_frames: int, start_us: int
) -> Segment:
    header = master if name is None else read_header(_sibling(master.path, f"{name}.hea"), root)
    if header.segments:
        raise BadRecord(
            "segment is a master", f"{header.path} is listed as a segment but has segments itself."
        )
    if header.n_frames not in (None, n_frames):
        raise BadRecord(
            "lengths disagree",
            f"{header.path} says {header.n_frames} samples, its master {n_frames}; times are unsure.",
        )
    positions = _positions(header.signals, channel)
    if not positions:
        raise BadRecord("without PLETH", f"{header.path} has no channel named {channel}.")
    signal = header.signals[positions[0]]
    data_path = contained(_sibling(header.path, signal.file_name), root)
    segment = Segment(
        header=header, start_us=start_us, n_frames=n_frames, channel=positions[0], data_path=data_path
    )
    _check_rate(segment)
    _check_size(segment)
    return segment


def _check_rate(segment: Segment) -> None:
    rate = segment.sampling_rate_hz
    if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
        raise BadRecord(
            "sampling rate out of range",
            f"{segment.header.path}: {rate} Hz; a pulse wave needs {MIN_RATE_HZ:g} to {MAX_RATE_HZ:g} Hz.",
        )


def _check_size(segment: Segment) -> None:
    """Refuse a data file that cannot hold what the header promises, before anything is allocated."""
    if len({s.fmt for s in segment.file_signals}) > 1:
        raise BadRecord("mixed formats", f"{segment.header.path}: one data file with several formats.")
    expected = expected_bytes(segment.file_signals, segment.n_frames)
    if not segment.data_path.is_file():
        raise BadRecord("signal file missing", f"{segment.data_path} is not there.")
    size = segment.data_path.stat().st_size
    if size < (expected or 1):
        raise BadRecord(
            "signal file truncated",
            f"{segment.data_path} has {size} bytes, its header promises {expected}; copy the record again.",
        )


def _with_length(header: Header, root: Path, channel: str) -> Header:
    """Length from the size of the data file, where the header leaves it out and the format allows it."""
    signal = header.signals[_positions(header.signals, channel)[0]]
    shared = tuple(s for s in header.signals if s.file_name == signal.file_name)
    data_path = contained(_sibling(header.path, signal.file_name), root)
    size = data_path.stat().st_size if data_path.is_file() else 0
    unit = expected_bytes(shared, 2)  # two frames: whole bytes in format 212
    if unit is None or size == 0:
        raise BadRecord(
            "header: no length", f"{header.path} leaves out the number of samples; write it there."
        )
    per_two_frames = unit - signal.byte_offset
    n_frames = (size - signal.byte_offset) * 2 // per_two_frames
    return Header(**{**vars(header), "n_frames": max(n_frames, 0)})


def _warn_once(segment: Segment, channel: str, warned: set[str]) -> None:
    """Say once a record, without its name, what is odd but harmless: each window is scaled by itself."""
    signal = segment.signal
    oddities = {
        "is uncalibrated (gain 0 or none; 200 codes a unit assumed)": not signal.calibrated,
        "has a unit other than NU": signal.unit.casefold() not in ("nu", ""),
        "has no unit": signal.unit == "",
        "occurs twice in a segment (the first is used)": len(_positions(segment.header.signals, channel)) > 1,
    }
    for oddity, present in oddities.items():
        if present and oddity not in warned:
            warned.add(oddity)
            logger.warning("a record's channel %s %s", channel, oddity)


def _chunks(segment: Segment) -> Iterator[Stretch]:
    header, signal = segment.header, segment.signal
    rails = physical_rails(signal)
    samples_per_frame = sum(s.samples_per_frame for s in segment.file_signals)
    step = max(min(int(CHUNK_SECONDS * header.frame_rate_hz), MAX_CHUNK_SAMPLES // samples_per_frame), 1)
    for first_frame in range(0, segment.n_frames, step):
        codes = _codes(segment, first_frame, min(step, segment.n_frames - first_frame))
        yield Stretch(
            start_us=segment.start_us + header.duration_us(first_frame),
            sampling_rate_hz=segment.sampling_rate_hz,
            samples=to_physical(codes, signal),
            rails=rails,
        )


def _codes(segment: Segment, first_frame: int, n_frames: int) -> Int[np.ndarray, " n"]:
    if is_direct(segment.file_signals):
        position = sum(
            s.file_name == segment.signal.file_name for s in segment.header.signals[: segment.channel]
        )
        return decode(segment.data_path, segment.file_signals, position, first_frame, n_frames)
    return _codes_through_wfdb(segment, first_frame, n_frames)


def _codes_through_wfdb(segment: Segment, first_frame: int, n_frames: int) -> Int[np.ndarray, " n"]:
    try:
        record = wfdb.rdrecord(
            str(segment.header.path.with_suffix("")),
            sampfrom=first_frame,
            sampto=first_frame + n_frames,
            channels=[segment.channel],
            physical=False,
            smooth_frames=False,  # averaging would turn MIMIC-IV's 124.945 Hz into 62.4725 Hz
            return_res=32,
        )
    # What wfdb and libsndfile raise on data files that do not hold what the header says.
    except (ValueError, IndexError, KeyError, TypeError, RuntimeError, OSError) as error:
        raise BadRecord(
            "signal file unreadable", f"{segment.data_path} does not hold what its header says ({error})."
        ) from error
    codes = np.asarray(cast(wfdb.Record, record).e_d_signal)[0]
    if len(codes) != n_frames * segment.signal.samples_per_frame:
        raise BadRecord(
            "signal file truncated", f"{segment.data_path} holds fewer samples than its header promises."
        )
    return codes
