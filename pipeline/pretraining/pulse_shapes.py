"""Shapes of one pulse beat that the synthetic cohort does not use: seven families, each with its own mathematics.

Every family takes the same parameters, drawn independently of one another (``pulse_families.RANGES``), and makes of
each what its mathematics allow: when the wave peaks, when and how strongly a reflected wave follows, how deep the
notch before it is, how slowly the wave runs off. So an encoder that has seen all of them cannot tell a notch's delay
from its depth, or either from the rise, by knowing one generator by heart.

All of it is our decision, after what the literature on pulse decomposition uses (sums of Gaussian, log-normal and
gamma waves; windkessel run-off with a reflected wave).
"""

from collections.abc import Callable, Mapping

import numpy as np

BINS = 512
"""Samples of a table over a beat's phase."""
Parameters = Mapping[str, np.ndarray]
"""Each (rows,) float64, in the unit that its name ends with."""


def beat_shapes(family: str, p: Parameters) -> np.ndarray:
    """Return one beat per row over its phase, foot 0 to peak 1, (rows, BINS) float32.

    Parameters
    ----------
    family : one of ``FAMILIES``
    p : ``period_s``, ``rise_s``, ``reflection_delay_s`` (peak to reflected peak), ``reflection`` (its height),
        ``notch_depth`` 0..1, ``run_off_s``, ``width`` and ``skew`` (0..1, what is the family's own)
    """
    t = np.arange(BINS) / BINS * p["period_s"][:, None]
    columns = {name: value[:, None] for name, value in p.items()}
    wave = FAMILIES[family](t, columns)
    ramp = np.linspace(0, 1, BINS)
    wave = wave - wave[:, :1] - ramp * (wave[:, -1:] - wave[:, :1])  # a beat ends where the next begins
    wave -= np.minimum(wave.min(axis=1, keepdims=True), 0) * np.sin(np.pi * ramp)
    return (wave / np.maximum(wave.max(axis=1, keepdims=True), 1e-6)).astype(np.float32)


def _bump(t: np.ndarray, centre: np.ndarray, width: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * ((t - centre) / width) ** 2)


def _notch(t: np.ndarray, p: Parameters) -> np.ndarray:
    """Give a dip a little before the reflected wave, as deep as the parameter says."""
    delay = p["reflection_delay_s"]
    return 0.4 * p["notch_depth"] * _bump(t, p["rise_s"] + (0.55 + 0.3 * p["skew"]) * delay, 0.18 * delay)


def _gaussians(t: np.ndarray, p: Parameters) -> np.ndarray:
    """Add a systolic, a reflected and a late wave, each Gaussian; the notch narrows the gap between the first two."""
    delay, rise = p["reflection_delay_s"], p["rise_s"]
    narrow = 1 - 0.6 * p["notch_depth"]
    systole = np.where(
        t < rise, _bump(t, rise, 0.42 * rise), _bump(t, rise, (0.25 + 0.3 * p["width"]) * delay)
    )
    reflected = p["reflection"] * _bump(t, rise + delay, (0.2 + 0.45 * narrow) * delay)
    late = 0.3 * p["skew"] * _bump(t, rise + 1.9 * delay, 0.5 * delay)
    return systole + reflected + late - 0.25 * _notch(t, p)


def _log_normals(t: np.ndarray, p: Parameters) -> np.ndarray:
    """Add log-normal waves with their modes at the peak and at the reflected peak."""
    spread = 0.25 + 0.35 * p["width"]

    def wave(mode: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * (np.log(np.maximum(t, 1e-4) / mode) / sigma) ** 2)

    arrival = p["rise_s"] + p["reflection_delay_s"]
    late = 0.10 + 0.25 * (1 - p["notch_depth"]) + 0.1 * p["skew"]
    return wave(p["rise_s"], spread) + p["reflection"] * wave(arrival, late) - _notch(t, p)


def _gammas(t: np.ndarray, p: Parameters) -> np.ndarray:
    """Add gamma waves (t / m)^k exp(k (1 - t / m)), the second one delayed."""

    def wave(since: np.ndarray, mode: np.ndarray, order: np.ndarray) -> np.ndarray:
        u = np.maximum(since, 1e-6) / mode
        return np.where(since > 0, np.exp(order * (np.log(u) + 1 - u)), 0)

    delay = p["reflection_delay_s"]
    first = wave(t, p["rise_s"], 1.2 + 4 * p["width"])
    onset = p["rise_s"] + (0.3 + 0.5 * p["notch_depth"]) * delay
    return first + p["reflection"] * wave(t - onset, p["rise_s"] + delay - onset, 1 + 2 * p["skew"])


def _windkessel(t: np.ndarray, p: Parameters) -> np.ndarray:
    """Follow a raised-cosine ejection by an exponential run-off and a reflected copy, later and wider."""

    def pulse(since: np.ndarray, rise: np.ndarray, decay: np.ndarray) -> np.ndarray:
        up = 0.5 - 0.5 * np.cos(np.pi * np.clip(since / rise, 0, 1))
        return np.where(since < rise, up, np.exp(-np.maximum(since - rise, 0) / decay))

    rise, delay, decay = p["rise_s"], p["reflection_delay_s"], p["run_off_s"]
    back = np.minimum(rise, delay) * (0.6 + 0.8 * p["skew"])
    copy = pulse(t - (rise + delay - back), back, decay * (0.5 + p["width"]))
    return pulse(t, rise, decay) + p["reflection"] * copy - _notch(t, p)


def _raised_cosines(t: np.ndarray, p: Parameters) -> np.ndarray:
    """Join half cosines up and down, unlike each other, with a cosine notch and a cosine reflected wave."""

    def lobe(centre: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        u = (t - centre) / np.where(t < centre, before, after)
        return np.where(np.abs(u) < 1, 0.5 + 0.5 * np.cos(np.pi * u), 0)

    rise, delay = p["rise_s"], p["reflection_delay_s"]
    systole = lobe(rise, rise, (1.2 + 1.6 * p["width"]) * delay)
    reflected = lobe(rise + delay, (0.5 + 0.5 * p["skew"]) * delay, 2 * p["run_off_s"])
    dip = lobe(rise + 0.7 * delay, 0.35 * delay, 0.3 * delay)
    return systole + p["reflection"] * reflected - 0.35 * p["notch_depth"] * dip


def _harmonics(t: np.ndarray, p: Parameters) -> np.ndarray:
    """Send a windkessel wave through a few harmonics alone, as a strongly filtering monitor shows it."""
    full = _windkessel(t, p)
    spectrum = np.fft.rfft(full - full.mean(axis=1, keepdims=True), axis=1)
    order = np.arange(spectrum.shape[1])
    cut = 3 + 9 * p["width"]
    return np.fft.irfft(spectrum * np.exp(-((order / cut) ** 4)), n=BINS, axis=1)


def _knots(t: np.ndarray, p: Parameters) -> np.ndarray:
    """Draw monotone cubic curves through foot, peak, notch, reflected peak and foot."""
    from scipy.interpolate import PchipInterpolator

    names = ("period_s", "rise_s", "reflection_delay_s", "reflection", "notch_depth", "width", "skew")
    rows = np.concatenate([p[name] for name in names], axis=1)
    wave = np.empty_like(t)
    for row, (period, rise, delay, reflection, depth, width, skew) in enumerate(rows):
        peak = min(rise, 0.45 * period)
        second = min(peak + delay, 0.85 * period)
        notch = peak + (0.5 + 0.3 * skew) * (second - peak)
        height = 0.15 + 0.75 * reflection
        valley = height - depth * min(height, 0.35) + (1 - depth) * 0.3 * (1 - height)
        tail = second + (0.3 + 0.5 * width) * (period - second)
        times = [0, peak, notch, second, tail, period]
        values = [0, 1, valley, height, (0.15 + 0.4 * width) * height, 0]
        wave[row] = PchipInterpolator(times, values)(t[row])
    return wave


FAMILIES: dict[str, Callable[[np.ndarray, Parameters], np.ndarray]] = {
    "gaussians": _gaussians,
    "log_normals": _log_normals,
    "gammas": _gammas,
    "windkessel": _windkessel,
    "raised_cosines": _raised_cosines,
    "harmonics": _harmonics,
    "knots": _knots,
}
