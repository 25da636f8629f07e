"""How trustworthy a window is: the scores that stand beside its embedding, never a reason to drop it.

Every score is computed row by row, so that a window's scores do not depend on its neighbours.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.fft import rfft

from pipeline.foundation.schema import QUALITY_COLUMNS, WINDOW_SECONDS

PULSE_BAND_HZ = (0.5, 3.7)
"""30 to 222 beats a minute."""
PEAK_HALF_WIDTH_HZ = 0.2
_FFT_ROWS = 16
"""A multiple of the rows that scipy transforms at once, on any processor."""
_PULSE_SECONDS = 3
"""Long enough to hold one beat at 30 a minute, short enough to ride over a drifting baseline."""


def window_quality(
    samples: Float[np.ndarray, "n m"],
    sampling_rate_hz: float,
    rails: tuple[float, float],
    *,
    flat_tolerance: float = 0.0,
) -> Float[np.ndarray, "n q"]:
    """Score each 30 s window.

    Parameters
    ----------
    samples : physical units; a window with NaN gets its missing share and otherwise zeros
    sampling_rate_hz : rate of `samples`
    rails : physical values of the lowest and highest digital code; infinite where unknown
    flat_tolerance : a second is flat where its range is at most this share of full scale (0: perfectly
        constant)

    Returns
    -------
    float32, one column for each of ``schema.QUALITY_COLUMNS``. Perfusion is the median over 3 s blocks of the
    range over full scale, 0 where full scale is unknown. Peak and concentration are of the Hann-windowed
    power spectrum.
    """
    scores = np.zeros((len(samples), len(QUALITY_COLUMNS)), np.float32)
    scores[:, 0] = np.isnan(samples).mean(axis=1)
    complete = scores[:, 0] == 0
    if not complete.any():
        return scores
    windows = samples if complete.all() else samples[complete]
    low, high = np.float32(rails[0]), np.float32(rails[1])
    full_scale = float(rails[1]) - float(rails[0])
    highest, lowest = _extremes_by_second(windows, sampling_rate_hz)
    tolerance = flat_tolerance * full_scale if np.isfinite(full_scale) else 0.0
    scores[complete, 1] = (highest - lowest <= tolerance).mean(axis=1)
    scores[complete, 2] = rail_share(windows, low, high, highest, lowest)
    scores[complete, 3] = _perfusion(highest, lowest, full_scale)
    scores[complete, 4], scores[complete, 5] = _spectral_peak(windows, sampling_rate_hz)
    return scores


def rail_share(
    samples: Float[np.ndarray, "n m"],
    low: np.float32,
    high: np.float32,
    highest: Float[np.ndarray, "n seconds"],
    lowest: Float[np.ndarray, "n seconds"],
) -> Float[np.ndarray, " n"]:
    """Share of samples at the rails; looks closely only at windows whose extremes touch them."""
    share = np.zeros(len(samples), np.float32)
    touched = (highest.max(axis=1) >= high) | (lowest.min(axis=1) <= low)
    if touched.any():
        rows = samples[touched]
        share[touched] = ((rows <= low) | (rows >= high)).mean(axis=1)
    return share


def _extremes_by_second(samples: np.ndarray, sampling_rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Highest and lowest sample of each second, (n, 30) each; a fraction of a sample goes to the last one."""
    step = int(sampling_rate_hz)
    starts = np.arange(WINDOW_SECONDS) * step
    blocks = samples[:, : WINDOW_SECONDS * step].reshape(len(samples), WINDOW_SECONDS, step)
    highest, lowest = blocks.max(axis=2), blocks.min(axis=2)
    rest = samples[:, starts[-1] + step :]
    if rest.shape[1]:
        highest[:, -1] = np.maximum(highest[:, -1], rest.max(axis=1))
        lowest[:, -1] = np.minimum(lowest[:, -1], rest.min(axis=1))
    return highest, lowest


def _perfusion(highest: np.ndarray, lowest: np.ndarray, full_scale: float) -> np.ndarray:
    if not 0 < full_scale < np.inf:
        return np.zeros(len(highest), np.float32)
    shape = (len(highest), WINDOW_SECONDS // _PULSE_SECONDS, _PULSE_SECONDS)
    ranges = highest.reshape(shape).max(axis=2) - lowest.reshape(shape).min(axis=2)
    return np.median(ranges, axis=1) / np.float32(full_scale)


@lru_cache(maxsize=16)
def _spectrum_plan(n_samples: int, sampling_rate_hz: float) -> tuple[np.ndarray, slice, float, int]:
    """Hann window, bins of the pulse band, width of a bin in Hz, and bins in half a peak."""
    bin_hz = sampling_rate_hz / n_samples
    first = int(np.ceil(PULSE_BAND_HZ[0] / bin_hz - 1e-6))
    last = int(np.floor(PULSE_BAND_HZ[1] / bin_hz + 1e-6))
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_samples) / n_samples)).astype(np.float32)
    return hann, slice(first, last + 1), bin_hz, int(PEAK_HALF_WIDTH_HZ / bin_hz + 1e-6)


def _spectral_peak(samples: np.ndarray, sampling_rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequency of the highest peak in the pulse band, and the share of the band's power around it."""
    hann, band, bin_hz, half_width = _spectrum_plan(samples.shape[1], sampling_rate_hz)
    # scipy transforms several rows at once and may round the last few differently: whole groups of rows, then
    padded = np.zeros((-(-len(samples) // _FFT_ROWS) * _FFT_ROWS, samples.shape[1]), np.float32)
    centred = padded[: len(samples)]
    np.subtract(samples, samples.mean(axis=1, keepdims=True), out=centred)
    centred *= hann
    spectrum: Any = rfft(padded, axis=1)
    spectrum = spectrum[: len(samples), band]
    power = np.square(spectrum.real, dtype=np.float64) + np.square(spectrum.imag, dtype=np.float64)
    peak = power.argmax(axis=1)
    cumulative = np.concatenate([np.zeros((len(power), 1)), power.cumsum(axis=1)], axis=1)
    rows = np.arange(len(power))
    above = np.minimum(peak + half_width + 1, power.shape[1])
    near = cumulative[rows, above] - cumulative[rows, np.maximum(peak - half_width, 0)]
    total = cumulative[:, -1]
    concentration = np.divide(near, total, out=np.zeros_like(total), where=total > 0)
    return np.where(total > 0, (band.start + peak) * bin_hz, 0), concentration
