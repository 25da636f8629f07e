"""Synthetic PPG of other kinds than the cohort's: many pulse families, every parameter drawn by itself.

For pretraining alone. The cohort's patients have one family of beats whose parameters hang together through a few
latents; an encoder that sees no other may learn that cohort by heart. Here each patient has one of the families of
``pulse_shapes``, and its rate, variability, rhythm, breath, shape, noise, motion and digitiser vary independently
and over wider ranges. Nothing is written to disk: a record is a pure function of (seed, patient).
A waveform source, but nobody's folder: it stands here, and not in ``sources``, as what pretraining alone reads.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.pretraining.pulse_shapes import BINS, FAMILIES, beat_shapes
from pipeline.sources.base import Catalog, Record, Stretch

LICENCE = "synthetic, made by this project: no licence of data applies"
RATES_HZ = (62.5, 100.0, 125.0)
BLOCK_S = 10.0
"""The shape of the beats moves on in steps of so many seconds."""
RANGES: dict[str, tuple[float, float, bool]] = {
    "heart_rate_bpm": (38.0, 170.0, True),
    "rise_s": (0.05, 0.34, False),
    "reflection_delay_s": (0.12, 0.42, False),
    "reflection": (0.0, 0.8, False),
    "notch_depth": (0.0, 1.0, False),
    "run_off_s": (0.1, 0.8, True),
    "width": (0.0, 1.0, False),
    "skew": (0.0, 1.0, False),
    "breaths_per_minute": (6.0, 38.0, False),
    "amplitude_modulation": (0.003, 0.5, True),
    "baseline_modulation": (0.003, 0.4, True),
    "sinus_arrhythmia": (0.001, 0.12, True),
    "variability": (0.002, 0.10, True),
    "beat_amplitude_jitter": (0.003, 0.08, True),
    "baseline_wander": (0.003, 0.2, True),
    "noise": (0.0005, 0.03, True),
    "drift": (0.02, 0.5, True),
}
"""Lowest and highest value, and whether they are drawn in proportion (log-uniform) rather than uniformly."""
SHAPE_NAMES = (
    "rise_s", "reflection_delay_s", "reflection", "notch_depth", "run_off_s", "width", "skew",
)  # fmt: skip
RHYTHMS, RHYTHM_SHARES = ("sinus", "ectopic", "irregular"), (0.76, 0.14, 0.10)
MOTION_SHARE, CLIPPED_SHARE = 0.2, 0.06
DIGITISER_BITS, DIGITISER_SHARES = (8, 10, 12, 16), (0.2, 0.3, 0.3, 0.2)


class PulseFamilies:
    """Patients of many pulse families, one record each, as a waveform source.

    Parameters
    ----------
    patients : how many
    seconds : length of each record
    seed : of all of them; patient k is the same however many there are
    """

    name, licence = "pulse_families", LICENCE

    def __init__(self, *, patients: int, seconds: float = 156.0, seed: int):
        if patients < 2 or seconds < 60 or seed < 0:
            raise ValueError(
                f"patients = {patients}, seconds = {seconds}, seed = {seed}: at least 2, 60 and 0 are needed"
            )
        self.patients, self.seconds, self.seed = patients, float(seconds), seed
        self.root = Path()

    def catalog(self) -> Catalog:
        """Return one record a patient, at time 0; their names tell seeds and lengths apart."""
        end_us = int(self.seconds * 1_000_000)
        return Catalog(
            records=tuple(
                Record(
                    patient_id=f"family-{self.seed}-{k}", name=f"family-{self.seed}-{k}", path=self.root,
                    files=(), start_us=0, end_us=end_us,
                )
                for k in range(self.patients)
            )
        )  # fmt: skip

    def stretches(self, record: Record, exclusions: Counter[str]) -> Iterator[Stretch]:
        """Render the patient's record."""
        rng = np.random.default_rng([self.seed, int(record.name.rsplit("-", 1)[1])])
        rate = float(rng.choice(RATES_HZ))
        yield Stretch(
            start_us=0, sampling_rate_hz=rate, rails=(-np.inf, np.inf),
            samples=render_patient(self.seconds, rate, rng),
        )  # fmt: skip


def draw_shares(rng: np.random.Generator) -> dict[str, float]:
    """Draw where in its range each parameter lies, 0..1, each by itself."""
    return dict(zip(RANGES, rng.random(len(RANGES)), strict=True))


def in_range(name: str, share: np.ndarray) -> np.ndarray:
    """Turn a share of the range into the parameter's own unit."""
    low, high, proportional = RANGES[name]
    return np.asarray(low * (high / low) ** share if proportional else low + (high - low) * share)


def render_patient(seconds: float, rate_hz: float, rng: np.random.Generator) -> np.ndarray:
    """Return one record, (seconds x rate,) float32, in arbitrary units: pulse, breath, noise, motion, digitiser."""
    family = str(rng.choice(list(FAMILIES)))
    shares = draw_shares(rng)
    blocks = int(seconds / BLOCK_S) + 3
    values = _drifting(shares, blocks, rng)
    onsets, block, premature = _beats(values, seconds, rng)
    wave = _pulse(family, values, onsets, block, premature, seconds, rate_hz, rng)
    fixed = {name: float(in_range(name, np.array(share))) for name, share in shares.items()}
    smooth = rng.choice([1, 2, 3, 5])
    white = np.convolve(
        rng.standard_normal(wave.size + smooth - 1), np.ones(smooth) / np.sqrt(smooth), "valid"
    )
    wave += fixed["noise"] * white
    if rng.random() < MOTION_SHARE:
        _move(wave, rate_hz, rng)
    return _digitised(wave, rng)


def _drifting(shares: dict[str, float], blocks: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Let each parameter wander about its place, within its range, (blocks,) each."""
    size = float(in_range("drift", np.array(shares["drift"])))
    values = {}
    for name, share in shares.items():
        place = np.clip(share, 0.01, 0.99)
        walk = np.cumsum(rng.standard_normal(blocks)) * size * 0.5
        values[name] = in_range(name, 1 / (1 + np.exp(-(np.log(place / (1 - place)) + walk - walk[0]))))
    return values


def _beats(
    values: dict[str, np.ndarray], seconds: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the onsets in seconds from before 0 to past the end, each beat's block, and how premature it came."""
    rate = values["heart_rate_bpm"]
    count = int((seconds + 4 * BLOCK_S) * rate.max() / 60 * 1.6) + 16
    period = 60 / rate[np.minimum((np.arange(count) * 60 / rate.mean() / BLOCK_S).astype(int), rate.size - 1)]
    block = np.minimum((np.cumsum(period) / BLOCK_S).astype(int), rate.size - 1)
    period = 60 / rate[block]
    breath = 2 * np.pi * np.cumsum(period) * values["breaths_per_minute"][block] / 60 + rng.uniform(
        0, 2 * np.pi
    )
    relative = 1 + values["sinus_arrhythmia"][block] * np.sin(breath)
    relative += values["variability"][block] * _red_noise(count, rng.uniform(0.1, 0.9), rng)
    rhythm = rng.choice(RHYTHMS, p=RHYTHM_SHARES)
    premature = np.zeros(count)
    if rhythm == "irregular":
        spread = rng.uniform(0.08, 0.3)
        relative *= rng.gamma(1 / spread**2, spread**2, count)
        premature = np.clip(1 - relative, 0, 0.6)
    elif rhythm == "ectopic":
        early = rng.random(count) < 10 ** rng.uniform(-2, -0.7)
        early[1:] &= ~early[:-1]
        short = rng.uniform(0.5, 0.85)
        relative[early] *= short
        relative[1:][early[:-1]] *= 2 - short * rng.uniform(0.8, 1.0)
        premature[1:][early[:-1]] = 1 - short  # the beat after a short interval finds the heart half filled
    intervals = period * np.clip(relative, 0.45, 1.9)
    onsets = np.concatenate([[0.0], np.cumsum(intervals)]) - rng.random() * period[0]
    used = int(np.searchsorted(onsets, seconds, side="right"))
    if used >= onsets.size:
        raise RuntimeError("too few beats were drawn for the record")
    return onsets[: used + 1], block[:used], premature[:used]


def _pulse(
    family: str, values: dict[str, np.ndarray], onsets: np.ndarray, block: np.ndarray, premature: np.ndarray,
    seconds: float, rate_hz: float, rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """Lay the family's beats between the onsets and let breath and a slow wander move height and baseline."""
    time = np.arange(int(seconds * rate_hz)) / rate_hz
    beat = np.clip(np.searchsorted(onsets, time, side="right") - 1, 0, block.size - 1)
    shapes = _tables(family, values, rng)
    own = 60 / values["heart_rate_bpm"][block]
    intervals = np.diff(onsets)
    phase = _phase(time - onsets[beat], intervals[beat], own[beat], held=rng.random() < 0.5)
    index = np.minimum((phase * BINS).astype(np.int64), BINS - 1)
    wave = shapes.ravel()[block[beat] * BINS + index].astype(np.float64)
    breath = _breath(values, time, rng)
    at = np.minimum((time / BLOCK_S).astype(int), values["noise"].size - 1)
    jitter = 1 + values["beat_amplitude_jitter"][block] * _red_noise(block.size, 0.3, rng)
    height = jitter * (1 - rng.uniform(0.5, 1.5) * np.clip(premature, 0, 0.6))
    swing = values["amplitude_modulation"][at] * breath(rng.uniform(0, 2 * np.pi))
    per_beat = np.clip(np.interp(onsets[:-1], time, swing), -0.9, 0.9)
    height = np.maximum(height * (1 + per_beat), 0.05)
    knots = np.arange(0, seconds + 4, 2.0)
    wander = values["baseline_wander"][at] * np.interp(time, knots, _red_noise(knots.size, 0.7, rng))
    return (
        wave * height[beat] + values["baseline_modulation"][at] * breath(rng.uniform(0, 2 * np.pi)) + wander
    )


def _tables(family: str, values: dict[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Make the beat of each block; systole shortens with the beat's length by a power of the patient's own."""
    period = 60 / values["heart_rate_bpm"]
    shrink = np.minimum(period / 0.8, 1.5) ** rng.uniform(0, 0.7)
    p = {name: values[name] for name in SHAPE_NAMES}
    p["rise_s"] = np.minimum(p["rise_s"] * shrink, 0.45 * period)
    p["reflection_delay_s"] = np.minimum(p["reflection_delay_s"] * shrink, 0.6 * period)
    return beat_shapes(family, p | {"period_s": period})


def _phase(since: np.ndarray, interval: np.ndarray, period: np.ndarray, held: bool) -> np.ndarray:
    """Return the phase of each sample: the beat is stretched whole, or (`held`) its diastole alone."""
    if not held:
        return np.clip(since / interval, 0, 1)
    systole = np.minimum(0.4 * period, 0.8 * interval)
    rest = 0.4 + 0.6 * (since - systole) / (interval - systole)
    return np.clip(np.where(since < systole, 0.4 * since / systole, rest), 0, 1)


def _breath(values: dict[str, np.ndarray], time: np.ndarray, rng: np.random.Generator):
    """Return a function of a lag (radians) that gives the breath at each sample; breaths are not all alike."""
    edges = np.arange(values["breaths_per_minute"].size + 1) * BLOCK_S
    jittered = values["breaths_per_minute"] * (1 + 0.06 * rng.standard_normal(edges.size - 1))
    turns = np.interp(time, edges, rng.random() + np.concatenate([[0.0], np.cumsum(jittered * BLOCK_S / 60)]))
    second = rng.uniform(0, 0.4)

    def at(lag: float) -> np.ndarray:
        angle = 2 * np.pi * turns + lag
        return (np.sin(angle) + second * np.sin(2 * angle)) / (1 + second)

    return at


def _red_noise(count: int, memory: float, rng: np.random.Generator) -> np.ndarray:
    """Return unit-variance noise that remembers `memory` of its last value, (count,)."""
    from scipy.signal import lfilter

    shocks = rng.standard_normal(count)
    scale = np.sqrt(1 - memory**2)
    shocks[0] /= scale
    return np.asarray(lfilter([scale], [1.0, -memory], shocks))


def _move(wave: np.ndarray, rate_hz: float, rng: np.random.Generator) -> None:
    """Add a few bursts of motion, in place: slow, large and with soft edges."""
    for _ in range(1 + rng.poisson(wave.size / rate_hz / 60 * rng.uniform(0.2, 1.2))):
        length = min(int(rng.uniform(1, 8) * rate_hz), wave.size)
        first = int(rng.integers(wave.size - length + 1))
        walk = _red_noise(length, float(np.exp(-1 / (rng.uniform(0.05, 0.5) * rate_hz))), rng)
        wave[first : first + length] += 10 ** rng.uniform(-0.7, 0.3) * walk * np.hanning(length)


def _digitised(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Clip where a digitiser runs out, and round to its codes."""
    low, high = wave.min(), wave.max()
    if rng.random() < CLIPPED_SHARE:
        if rng.random() < 0.7:
            high = np.quantile(wave, rng.uniform(0.93, 0.995))
        else:
            low = np.quantile(wave, rng.uniform(0.005, 0.05))
    room = rng.uniform(1.0, 3.0)
    bits = int(rng.choice(DIGITISER_BITS, p=DIGITISER_SHARES))
    step = max((high - low) * room, 1e-9) / (2**bits - 1)
    return (np.round(np.clip(wave, low, high) / step) * step).astype(np.float32)
