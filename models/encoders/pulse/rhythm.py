"""From beat to beat: rate, its variability, the amplitude's swing, and the breath behind all three.

Breath moves the beats' amplitude, their feet and their intervals (Karlen and others, IEEE TBME, 2013). Each series is
laid on an even grid, and its spectrum in the band of breathing taken; the three are joined by their mean. What is
measured is each series' own share of power, so that one that does not move says nothing.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from models.encoders.pulse.beats import RATE_HZ, Beats, median

BREATH_BAND_HZ = (0.1, 0.6)
"""6 to 36 breaths a minute."""
BREATH_BANDS = 8
_GRID_HZ, _GRID = 4.0, 120
_TRANSFORM = 1024
_HERTZ = np.fft.rfftfreq(_TRANSFORM, 1 / _GRID_HZ)
_LOWEST_HZ, _HIGHEST_HZ = BREATH_BAND_HZ
_BAND = (_HERTZ >= _LOWEST_HZ) & (_HERTZ <= _HIGHEST_HZ)
_HERTZ_IN_BAND = _HERTZ[_BAND]
_HANN = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_GRID) / _GRID)
_LEAST_MOVEMENT = 0.002
"""Relative spread of a series from which on its spectrum counts; what the sampling rate leaves is less."""
_LEAST = 1e-4
"""Least relative variation whose logarithm is taken: a hundredth of what 40 samples a second resolve."""


def rhythm_features(beats: Beats) -> Iterator[tuple[str, float]]:
    """Yield the name and value of each feature of the beats' times."""
    interval = beats.interval
    mean = float(interval.mean())
    yield "rate", 60 / beats.period
    yield "period", beats.period
    yield "root_period", float(np.sqrt(beats.period))
    yield "interval_spread_log", _log_share(interval.std(), mean)
    yield "interval_detrended_spread_log", _log_share(_detrended(interval).std(), mean)
    yield "interval_step_log", _log_share(np.sqrt(np.square(np.diff(interval)).mean()), mean)
    robust = 1.4826 * median(np.abs(interval - beats.period))
    yield "interval_robust_spread_log", _log_share(robust, mean)
    yield "interval_spread", float(interval.std() / mean)
    yield "interval_memory", _memory(interval)
    yield "regularity", beats.regularity


def modulation_features(beats: Beats) -> Iterator[tuple[str, float]]:
    """Yield the name and value of each feature of the beats' heights."""
    amplitude = beats.amplitude
    mean = max(float(amplitude.mean()), 1e-6)
    ordered = np.sort(amplitude)
    tenth = len(ordered) // 10
    low, high = float(ordered[tenth]), float(ordered[-1 - tenth])
    yield "amplitude", mean
    yield "amplitude_spread", float(amplitude.std() / mean)
    yield "amplitude_spread_log", _log_share(amplitude.std(), mean)
    yield "amplitude_range", float((high - low) / max(high + low, 1e-6))
    yield "amplitude_step_log", _log_share(np.sqrt(np.square(np.diff(amplitude)).mean()), mean)
    yield "foot_spread", float(beats.foot.std() / mean)
    yield "foot_detrended_spread_log", _log_share(_detrended(beats.foot).std(), mean)
    yield "amplitude_memory", _memory(amplitude)


def breath_features(beats: Beats) -> Iterator[tuple[str, float]]:
    """Yield the name and value of each feature of breathing, from the beats' heights, feet and intervals."""
    time = (beats.upstroke - beats.upstroke[0]) / RATE_HZ
    grid = np.arange(_GRID) / _GRID_HZ
    joined = np.zeros(_BAND.sum())
    height = max(float(beats.amplitude.mean()), 1e-6)
    for name, series in (
        ("amplitude", beats.amplitude / height),
        ("foot", beats.foot / height),
        ("interval", beats.interval / beats.period),
    ):
        rest = _detrended(series)
        rest = rest if rest.std() >= _LEAST_MOVEMENT else np.zeros_like(rest)
        spectrum = _spectrum(np.interp(grid, time, rest), grid <= time[-1])
        joined += spectrum / 3
        yield f"breath_rate_{name}", 60 * _peak_hz(spectrum)
        yield f"breath_share_{name}", _around_peak(spectrum)
    yield "breath_rate", 60 * _peak_hz(joined)
    yield "breath_rate_centre", 60 * float((joined * _HERTZ_IN_BAND).sum() / max(joined.sum(), 1e-12))
    yield "breath_share", _around_peak(joined)
    edges = np.linspace(*BREATH_BAND_HZ, BREATH_BANDS + 1)
    band = np.clip(np.searchsorted(edges, _HERTZ_IN_BAND, side="right") - 1, 0, BREATH_BANDS - 1)
    shares = np.bincount(band, weights=joined, minlength=BREATH_BANDS)
    yield from ((f"breath_band_{k + 1}", float(share)) for k, share in enumerate(shares))


def _spectrum(values: Float[np.ndarray, " grid"], known: np.ndarray) -> Float[np.ndarray, " band"]:
    """Return each frequency's share of the power in the band of breathing; zeros where nothing moves."""
    values = np.where(known, values, 0.0) * _HANN
    found = np.fft.rfft(values, n=_TRANSFORM)[_BAND]
    power = found.real**2 + found.imag**2
    total = power.sum()
    return power / total if total > 1e-18 else np.zeros_like(power)


def _peak_hz(spectrum: np.ndarray) -> float:
    """Return the frequency of most power; the band's middle where there is none."""
    return float(_HERTZ_IN_BAND[np.argmax(spectrum)]) if spectrum.any() else sum(BREATH_BAND_HZ) / 2


def _around_peak(spectrum: np.ndarray) -> float:
    """Return the share of power within 0.04 Hz of the peak."""
    peak = _HERTZ_IN_BAND[np.argmax(spectrum)]
    return float(spectrum[np.abs(_HERTZ_IN_BAND - peak) <= 0.04].sum())


def _detrended(values: np.ndarray) -> np.ndarray:
    """Return what a straight line through the values leaves."""
    place = np.arange(len(values)) - (len(values) - 1) / 2
    slope = (place * values).sum() / np.square(place).sum()
    return values - values.mean() - slope * place


def _memory(values: np.ndarray) -> float:
    """Return the correlation of neighbours, 0 where nothing varies."""
    rest = values - values.mean()
    total = np.square(rest).sum()
    return float((rest[1:] * rest[:-1]).sum() / total) if total > 1e-18 else 0.0


def _log_share(spread: float, mean: float) -> float:
    return float(np.log(max(spread / mean, _LEAST)))
