"""Write synthetic records as true WFDB, in the layout of the MIMIC-III Waveform Database Matched Subset.

``p00/p000020/p000020-2183-04-28-17-47.hea`` is a multi-segment master of variable layout: first the layout
header, then segments and gaps (``~ n``). Most records hold 8-bit samples (format 80, code -128 = missing);
some 12-bit ones (format 16 or 212) with the gain left at 1023, so that values run 0..4.003. Segments carry no
date.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipeline.sources.synthetic.defects import Defects, apply_defects, missing_spans, plan_defects
from pipeline.sources.synthetic.parameters import CohortParameters, Recording
from pipeline.sources.synthetic.physiology import Course
from pipeline.sources.synthetic.ppg import (
    CHUNK_SAMPLES,
    SAMPLING_RATE_HZ,
    BeatTrack,
    plan_beats,
    prolonged,
    render,
)

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  naive wall clock, as everywhere


@dataclass(frozen=True, kw_only=True)
class SampleFormat:
    """How samples are coded; full scale runs from `lowest` to `highest`."""

    code: int
    gain: str
    resolution: int
    zero: int
    lowest: int
    highest: int
    missing: int
    ecg_gain: str


EIGHT_BIT = SampleFormat(code=80, gain="255(-128)", resolution=8, zero=0, lowest=-127, highest=127,
                         missing=-128, ecg_gain="127(-64)")  # fmt: skip
TWELVE_BIT = SampleFormat(code=16, gain="1023(0)", resolution=12, zero=2048, lowest=0, highest=4095,
                          missing=-32768, ecg_gain="510(2048)")  # fmt: skip
PACKED_TWELVE_BIT = SampleFormat(code=212, gain="1023(-2048)", resolution=12, zero=0, lowest=-2047,
                                 highest=2047, missing=-2048, ecg_gain="510(0)")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A piece of a record: `channels` of nothing (a gap), PLETH, II or both."""

    channels: tuple[str, ...]
    samples: int


@dataclass(frozen=True, kw_only=True)
class RecordPlan:
    """Everything that the bytes of one record depend on."""

    name: str
    stem: str
    start_us: int
    samples: int
    format: SampleFormat
    segments: tuple[Segment, ...]
    beats: BeatTrack
    defects: Defects
    noise_at: int
    numerics: bool


def wall_clock(time_us: int) -> datetime:
    """Turn microseconds of the naive wall clock into a datetime."""
    return _EPOCH + timedelta(microseconds=time_us)


def patient_folder(subject_id: int) -> str:
    """Give a patient's folder in the Matched Subset, e.g. ``p00/p000020``."""
    return f"p{subject_id // 10_000:02d}/p{subject_id:06d}"


def plan_segments(recording: Recording, samples: int, rng: np.random.Generator) -> Iterator[Segment]:
    """Cut a record of `samples` samples into segments and gaps; some last seconds, as real ones do."""
    rate, left = SAMPLING_RATE_HZ, samples
    gap_share = recording.gap_per_hour * recording.segment_hours
    if rng.random() < 0.5:
        left -= 3750
        yield Segment(channels=(), samples=3750)
    while left > 0:
        hours = rng.exponential(recording.segment_hours) if rng.random() > 0.15 else 0.0
        length = min(int(hours * 3600) * rate + int(rng.integers(1, 17)) * rate, left)
        channels: tuple[str, ...] = ("PLETH",)
        kind = rng.random()
        if kind < recording.without_pleth_share:
            channels, length = ("II",), min(length, 300 * rate)
        elif kind < recording.without_pleth_share + recording.extra_channel_share:
            channels, length = ("II", "PLETH"), min(length, 1800 * rate)
        yield Segment(channels=channels, samples=length)
        left -= length
        if left > 0 and rng.random() < gap_share:
            gap = min(int(rng.exponential(recording.gap_minutes) * 60 * rate) + rate, left)
            yield Segment(channels=(), samples=gap)
            left -= gap


def plan_record(
    parameters: CohortParameters,
    course: Course,
    span: tuple[int, int],
    subject_id: int,
    rng: np.random.Generator,
) -> RecordPlan:
    """Draw one record of `span` (start, end; int64 microseconds)."""
    recording = parameters.recording
    samples = (span[1] - span[0]) // 1_000_000 * SAMPLING_RATE_HZ
    wide, packed = rng.random(2) < (recording.wide_format_share, recording.packed_share_of_wide)
    plan = RecordPlan(
        name=f"p{subject_id:06d}-{wall_clock(span[0]):%Y-%m-%d-%H-%M}",
        stem=f"{3_000_000 + int(rng.integers(1_000_000)):07d}",
        start_us=span[0],
        samples=samples,
        format=(PACKED_TWELVE_BIT if packed else TWELVE_BIT) if wide else EIGHT_BIT,
        segments=tuple(plan_segments(recording, samples, rng)),
        beats=plan_beats(parameters, course, span[0], samples, rng),
        defects=plan_defects(recording, samples, rng),
        noise_at=int(rng.integers(1 << 30)),
        numerics=bool(rng.random() < recording.numerics_share),
    )
    if plan.beats.onsets[-1] > _last_chunk(plan.segments):
        return plan
    return replace(plan, beats=prolonged(plan.beats, samples))


def _last_chunk(segments: tuple[Segment, ...]) -> int:
    """Give the sample at which the last rendered chunk begins; a record whose beats reach it needs no others."""
    ends = np.cumsum([segment.samples for segment in segments])
    chunks = [
        int(end) - 1 - (segment.samples - 1) % CHUNK_SAMPLES
        for segment, end in zip(segments, ends, strict=True)
        if segment.samples and "PLETH" in segment.channels
    ]
    return max(chunks, default=-1)


def digital_codes(plan: RecordPlan, first: int, stop: int) -> np.ndarray:
    """Quantise samples `first`..`stop` - 1 of PLETH, (n,) int16 (int8 for format 80)."""
    coding = plan.format
    scale = float(coding.highest - coding.lowest)
    wave = render(plan.beats, first, stop, scale, plan.noise_at + first * 31)
    apply_defects(plan.defects, wave, first, scale)
    wave += np.float32(coding.lowest + 0.5)
    np.floor(wave, out=wave)
    np.clip(wave, coding.lowest, coding.highest, out=wave)
    codes = wave.astype(np.int8 if coding.code == 80 else np.int16)
    for span in missing_spans(plan.defects, first, stop):
        codes[span] = coding.missing
    return codes


def _ecg(plan: RecordPlan, first: int, stop: int) -> np.ndarray:
    """Give a plain QRS train in step with the beats, as a second channel to be ignored."""
    coding, onsets = plan.format, plan.beats.onsets
    since = (
        np.arange(first, stop) - onsets[np.clip(np.searchsorted(onsets, np.arange(first, stop)) - 1, 0, None)]
    )
    middle, span = (coding.lowest + coding.highest) / 2, (coding.highest - coding.lowest) / 3
    wave = middle + span * np.exp(-0.5 * ((since - 4) / 1.5) ** 2)
    return wave.astype(np.int8 if coding.code == 80 else np.int16)


def pack(codes: np.ndarray, code: int) -> bytes:
    """Encode samples as WFDB format 80, 16 or 212; in 212 all calls but the last need an even count."""
    if code == 80:
        return (codes.view(np.uint8) ^ 0x80).tobytes()
    if code == 16:
        return codes.astype("<i2").tobytes()
    pairs = np.append(codes, np.zeros(codes.size % 2, np.int16)).reshape(-1, 2)
    packed = np.empty((pairs.shape[0], 3), np.uint8)
    packed[:, 0] = pairs[:, 0] & 0xFF
    packed[:, 1] = ((pairs[:, 0] >> 8) & 0x0F) | ((pairs[:, 1] >> 4) & 0xF0)
    packed[:, 2] = pairs[:, 1] & 0xFF
    size = packed.size - codes.size % 2
    return packed.tobytes()[:size]


def _write_samples(stream: BinaryIO, plan: RecordPlan, segment: Segment, first: int) -> list[tuple[int, int]]:
    """Write one segment's samples chunk by chunk; return (first code, checksum) of each channel."""
    sources: dict[str, Callable[[RecordPlan, int, int], np.ndarray]] = {"PLETH": digital_codes, "II": _ecg}
    initial, sums = [0] * len(segment.channels), [0] * len(segment.channels)
    for at in range(first, first + segment.samples, CHUNK_SAMPLES):
        stop = min(at + CHUNK_SAMPLES, first + segment.samples)
        columns = [sources[channel](plan, at, stop) for channel in segment.channels]
        for i, column in enumerate(columns):
            initial[i] = int(column[0]) if at == first else initial[i]
            sums[i] += int(column.sum(dtype=np.int64))
        codes = columns[0] if len(columns) == 1 else np.stack(columns, axis=1).ravel()
        stream.write(pack(codes, plan.format.code))
    return [(value, (total + 32_768) % 65_536 - 32_768) for value, total in zip(initial, sums, strict=True)]


def _signal_line(plan: RecordPlan, file: str, channel: str, initial: int, checksum: int) -> str:
    coding = plan.format
    gain, unit = (coding.gain, "NU") if channel == "PLETH" else (coding.ecg_gain, "mV")
    code = 0 if file == "~" else coding.code
    return f"{file} {code} {gain}/{unit} {coding.resolution} {coding.zero} {initial} {checksum} 0 {channel}"


def _write_segment(folder: Path, name: str, plan: RecordPlan, segment: Segment, first: int) -> None:
    with (folder / f"{name}.dat").open("xb") as stream:
        stamps = _write_samples(stream, plan, segment, first)
    at = wall_clock(plan.start_us + first * 8_000)
    lines = [f"{name} {len(stamps)} {SAMPLING_RATE_HZ} {segment.samples} {at:%H:%M:%S}"]
    for channel, (initial, checksum) in zip(segment.channels, stamps, strict=True):
        lines.append(_signal_line(plan, f"{name}.dat", channel, initial, checksum))
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n", encoding="ascii")


def _write_numerics(folder: Path, plan: RecordPlan) -> None:
    """Write a small numerics record (heart rate once a minute): a decoy that is no waveform."""
    minutes = plan.samples // (60 * SAMPLING_RATE_HZ)
    blocks = np.minimum(np.arange(minutes) * 2, plan.beats.period_s.size - 1)
    rates = np.round(600 / plan.beats.period_s[blocks]).astype("<i2")
    (folder / f"{plan.stem}n.dat").write_bytes(rates.tobytes())
    at = wall_clock(plan.start_us)
    text = (
        f"{plan.name}n 1 0.0166666666667 {minutes} {at:%H:%M:%S}.000 {at:%d/%m/%Y}\n"
        f"{plan.stem}n.dat 16 10(0)/bpm 16 0 {int(rates[0]) if minutes else 0} "
        f"{(int(rates.sum(dtype=np.int64)) + 32_768) % 65_536 - 32_768} 0 HR\n"
    )
    (folder / f"{plan.name}n.hea").write_text(text, encoding="ascii")


def write_record(folder: Path, plan: RecordPlan) -> None:
    """Write master, layout, segments and numerics of one record into `folder`, published when whole."""
    lines, first, number = [], 0, 0
    used = {channel for segment in plan.segments for channel in segment.channels}
    channels = [channel for channel in ("PLETH", "II") if channel in used]
    for segment in plan.segments:
        name = "~"
        if segment.channels:
            number += 1
            name = f"{plan.stem}_{number:04d}"
            _write_segment(folder, name, plan, segment, first)
        lines.append(f"{name} {segment.samples}")
        first += segment.samples
    at = wall_clock(plan.start_us)
    layout = [f"{plan.stem}_layout {len(channels)} {SAMPLING_RATE_HZ} 0 {at:%H:%M:%S}"]
    layout += [_signal_line(plan, "~", channel, 0, 0) for channel in channels]
    (folder / f"{plan.stem}_layout.hea").write_text("\n".join(layout) + "\n", encoding="ascii")
    size = f"{len(channels)} {SAMPLING_RATE_HZ} {first}"
    head = f"{plan.name}/{len(lines) + 1} {size} {at:%H:%M:%S}.000 {at:%d/%m/%Y}"
    master = [head, f"{plan.stem}_layout 0", *lines, "# Location: micu"]
    if plan.numerics:
        _write_numerics(folder, plan)
    (folder / f"{plan.name}.hea").write_text("\n".join(master) + "\n", encoding="ascii")
