"""The synthetic pulse wave: beats with a parametric shape, and the defects of real recordings.

A record is a list of beats. Each has an onset, a length, an amplitude, a foot and the shape of its 30 s
block; a sample is foot + amplitude * shape(phase), read from a table. Only table look-ups touch every sample,
so tens of millions of samples a second come from one core, and any stretch can be rendered by itself, memory
flat.

Which lab drives what is planted, not claimed as physiology. Each imprint must be seen in one 30 s window
after min-max scaling, must grow with the latent, and must differ from the others: potassium deepens the
dicrotic notch, calcium shortens the upstroke, sodium (volume) flattens the respiratory swing of the beats'
amplitude, glucose delays the reflected wave and damps heart rate variability, lactate raises heart and
respiration rate. Arousal and vascular tone blur all that, and each patient has offsets of their own. Absolute
amplitude wanders freely: min-max removes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from pipeline.sources.synthetic.parameters import CohortParameters, Recording
from pipeline.sources.synthetic.physiology import Course, morphology_at, ornstein_uhlenbeck

SAMPLING_RATE_HZ = 125
BLOCK_SECONDS = 30
BLOCK_SAMPLES = BLOCK_SECONDS * SAMPLING_RATE_HZ
CHUNK_SAMPLES = 8 * BLOCK_SAMPLES  # fits the second-level cache
_BINS = 1024


def _noise_pool() -> np.ndarray:
    """Give unit-variance noise, smooth as a monitor's filter leaves it, (2^18,) float32."""
    white = np.random.default_rng(125).standard_normal((1 << 18) + 4)
    return (np.convolve(white, np.ones(5), mode="valid") / np.sqrt(5)).astype(np.float32)


_NOISE_POOL = _noise_pool()


@dataclass(frozen=True, kw_only=True)
class BeatTrack:
    """The beats of one record.

    Attributes
    ----------
    onsets : (n + 1,) float64, in samples from the record's start
    amplitude : (n,) float32, share of full scale
    foot : (n + 1,) float32, share of full scale at each onset
    block : (n,) int64, index of the 30 s block whose shape the beat has
    rise_s, delay_s, notch, period_s : (blocks,) float32, the shape of each block's beats
    noise : SD of the noise, share of full scale
    """

    onsets: np.ndarray
    amplitude: np.ndarray
    foot: np.ndarray
    block: np.ndarray
    rise_s: np.ndarray
    delay_s: np.ndarray
    notch: np.ndarray
    period_s: np.ndarray
    noise: float


def plan_beats(
    parameters: CohortParameters, course: Course, start_us: int, samples: int, rng: np.random.Generator
) -> BeatTrack:
    """Lay out the beats of a record that starts at `start_us` and has `samples` samples at 125 Hz."""
    blocks = samples // BLOCK_SAMPLES + 2
    centres = start_us + ((np.arange(blocks) + 0.5) * BLOCK_SECONDS * 1e6).astype(np.int64)
    shape = morphology_at(parameters, course, centres)
    edges = np.arange(blocks + 1) * float(BLOCK_SECONDS)
    beats_by = np.concatenate([[0.0], np.cumsum(shape["heart_rate"] * BLOCK_SECONDS / 60)])
    count = int(beats_by[-1])
    nominal = np.interp(np.arange(count), beats_by, edges)
    block = np.minimum((nominal / BLOCK_SECONDS).astype(np.int64), blocks - 1)
    breath = _breath_phase(shape["respiration_rate"], edges, nominal, rng)
    period = 60 / shape["heart_rate"][block]
    swing = 0.85 * np.sin(breath) + 0.8 * ornstein_uhlenbeck(count, 0.5, rng)
    intervals = period * np.clip(1 + shape["variability"][block] * swing, 0.6, 1.6)
    onsets = (np.cumsum(intervals) - intervals[0] * (1 + rng.random())) * SAMPLING_RATE_HZ
    amplitude, foot = _amplitudes(parameters.recording, shape, block, breath, rng)
    shrink = np.sqrt(60 / shape["heart_rate"] / 0.8)  # systole shortens with the beat
    return BeatTrack(
        onsets=onsets,
        amplitude=amplitude[:-1].astype(np.float32),
        foot=foot.astype(np.float32),
        block=block[:-1],
        rise_s=(shape["rise_time"] * shrink).astype(np.float32),
        delay_s=(shape["notch_delay"] * shrink).astype(np.float32),
        notch=shape["notch_depth"].astype(np.float32),
        period_s=(60 / shape["heart_rate"]).astype(np.float32),
        noise=float(rng.uniform(parameters.recording.noise_low, parameters.recording.noise_high)),
    )


def prolonged(track: BeatTrack, samples: int) -> BeatTrack:
    """Return `track` with beats until past sample `samples`: its last ones again, backwards, in the last shape.

    The intervals of beats are random and add up to the record's length on average alone: over days the last beat
    may lie minutes before the record's end. Read backwards, intervals, amplitudes and feet go on without a jump.
    """
    intervals = np.diff(track.onsets)
    missing = int((samples + BLOCK_SAMPLES - track.onsets[-1]) / intervals.mean()) + 1
    while track.onsets[-1] + np.resize(intervals[::-1], missing).sum() <= samples:
        missing *= 2
    again = np.resize(np.arange(intervals.size)[::-1], missing)
    return replace(
        track,
        onsets=np.append(track.onsets, track.onsets[-1] + np.cumsum(intervals[again])),
        amplitude=np.append(track.amplitude, track.amplitude[again]),
        foot=np.append(track.foot, track.foot[again]),
        block=np.append(track.block, np.full(missing, track.block[-1])),
    )


def _breath_phase(
    rate: np.ndarray, edges: np.ndarray, nominal: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Give the phase of breathing at each beat, radians; breaths of one block vary by a few per cent."""
    jittered = rate * (1 + 0.05 * rng.standard_normal(rate.size))
    breaths_by = np.concatenate([[rng.random()], np.cumsum(jittered * BLOCK_SECONDS / 60)])
    return 2 * np.pi * np.interp(nominal, edges, breaths_by)


def amplitude_levels(recording: Recording, blocks: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the pulse's amplitude in each 30 s block, (blocks,) share of full scale: it wanders freely."""
    slow = 1 / (1 + np.exp(-(rng.standard_normal() + ornstein_uhlenbeck(blocks, BLOCK_SECONDS / 3600, rng))))
    return recording.amplitude_low + (recording.amplitude_high - recording.amplitude_low) * slow


def _amplitudes(
    recording: Recording, shape: Mapping[str, np.ndarray], block: np.ndarray, breath: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Give each beat's amplitude and foot as shares of full scale; the slow part is the nuisance."""
    blocks = shape["heart_rate"].size
    level = amplitude_levels(recording, blocks, rng)[block]
    depth = shape["modulation"][block]
    jitter = 1 + 0.015 * rng.standard_normal(block.size)
    amplitude = level * jitter * (1 + depth * np.sin(breath + rng.uniform(0, 2 * np.pi))) / (1 + depth)
    drift = 0.03 * ornstein_uhlenbeck(block.size, 0.1, rng)
    foot = 0.5 - 0.45 * level + level * (0.15 * depth * np.sin(breath + rng.uniform(0, 2 * np.pi)) + drift)
    return amplitude, np.maximum(foot, 0.03)


def pulse_shapes(
    rise_s: np.ndarray, delay_s: np.ndarray, notch: np.ndarray, period_s: np.ndarray, bins: int = _BINS
) -> np.ndarray:
    """Give one beat per row, foot 0 to peak 1, (n, bins) float32 over the beat's phase.

    A raised-cosine upstroke of `rise_s`, a Gaussian fall, a reflected wave `delay_s` after the peak with an
    exponential run-off, and a notch of depth `notch` (0..1) before it. Our decision, after the look of real
    PPG.
    """
    t = np.linspace(0, 1, bins, endpoint=False, dtype=np.float32) * period_s[:, None]
    rise, delay, notch = rise_s[:, None], delay_s[:, None], notch[:, None]
    fall = (t - rise) / (np.float32(0.5) * delay)
    systole = np.where(fall < 0, 0.5 - 0.5 * np.cos(np.pi * t / rise), np.exp(-0.5 * fall * fall))
    late = t - rise - delay
    run_off = np.maximum(np.float32(0.55) * (period_s[:, None] - rise - delay), np.float32(0.08))
    after = np.sqrt(late * late + np.float32(0.002)) - np.float32(0.002**0.5)  # no kink at its peak
    reflected = np.where(late < 0, np.exp(-0.5 * (late / (0.34 * delay)) ** 2), np.exp(-after / run_off))
    dip = (late + np.float32(0.3) * delay) / (np.float32(0.2) * delay)
    wave = systole + (0.2 + 0.4 * notch) * reflected - 0.32 * notch * np.exp(-0.5 * dip * dip)
    ramp = np.linspace(0, 1, bins, endpoint=False, dtype=np.float32)
    wave -= wave[:, :1] + ramp * (wave[:, -1:] - wave[:, :1])
    return (wave / wave.max(axis=1, keepdims=True)).astype(np.float32)


def render(track: BeatTrack, first: int, stop: int, scale: float, noise_at: int) -> np.ndarray:
    """Compute samples `first`..`stop` - 1 of a record, (n,) float32, share of full scale times `scale`."""
    low = max(int(np.searchsorted(track.onsets, first, side="right")) - 1, 0)
    high = int(np.searchsorted(track.onsets, stop, side="left"))
    onsets = track.onsets[low : high + 1]
    bounds = np.clip(np.ceil(onsets).astype(np.int64) - first, 0, stop - first)
    bounds[0], bounds[-1] = 0, stop - first
    counts = np.diff(bounds)
    blocks = track.block[low:high]
    shapes = _shapes_of(track, slice(blocks[0], blocks[-1] + 1))
    step = (_BINS / np.diff(onsets)).astype(np.float32)
    lag = ((first - onsets[:-1]) * step).astype(np.float32)
    position = np.arange(stop - first, dtype=np.float32)
    position *= np.repeat(step, counts)
    position += np.repeat(lag, counts)
    index = position.astype(np.int32)
    np.clip(index, 0, _BINS - 1, out=index)
    index += np.repeat(((blocks - blocks[0]) * _BINS).astype(np.int32), counts)
    wave = shapes.ravel().take(index)
    wave *= np.repeat(track.amplitude[low:high] * np.float32(scale), counts)
    feet = track.foot[low : high + 1] * np.float32(scale)
    position *= np.repeat(np.diff(feet) / np.float32(_BINS), counts)
    position += np.repeat(feet[:-1], counts)
    wave += position
    noise_at %= _NOISE_POOL.size - CHUNK_SAMPLES
    wave += _NOISE_POOL[noise_at : noise_at + wave.size] * np.float32(track.noise * scale)
    return wave


def _shapes_of(track: BeatTrack, at: slice) -> np.ndarray:
    return pulse_shapes(track.rise_s[at], track.delay_s[at], track.notch[at], track.period_s[at])
