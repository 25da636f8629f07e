"""Preparing raw PPG windows for encoders that want them band-passed and standardised, each by itself."""

from fractions import Fraction

import numpy as np
from jaxtyping import Float
from scipy.ndimage import uniform_filter1d
from scipy.signal import cheby2, resample_poly, sosfiltfilt

PASS_BAND_HZ = (0.5, 12.0)
SMOOTHING_SECONDS = 0.05
SMOOTHED_FROM_HZ = 75.0


def bandpass_windows(
    samples: Float[np.ndarray, "n m"], sampling_rate_hz: float, target_hz: float, segments: int = 1
) -> Float[np.ndarray, "n out"]:
    """Band-pass, smooth, resample and standardise 30 s windows, without a look beyond a window's ends.

    Chebyshev II of order 4, 20 dB, 0.5-12 Hz, forward and backward; from 75 Hz on a moving average of 50 ms;
    polyphase resampling, padded along the line through the window's ends; z-score. Source: PaPaGei's
    preparation, which Pulse-PPG's evaluation shares; the order of the steps is ours.

    Parameters
    ----------
    samples : raw, in any unit
    target_hz : 30 times this is the number of samples returned
    segments : equal parts of a window, each standardised by itself; a flat one becomes zeros
    """
    if sampling_rate_hz <= 2 * PASS_BAND_HZ[1]:
        raise ValueError(f"sampling_rate_hz is {sampling_rate_hz}; it must exceed {2 * PASS_BAND_HZ[1]:g}.")
    sections = cheby2(4, 20, PASS_BAND_HZ, btype="bandpass", fs=sampling_rate_hz, output="sos")
    x = samples.astype(np.float64)
    x -= x[:, :1]  # a flat window is exactly zero from here on
    scale = np.abs(x).max(axis=-1, initial=0.0)[:, None, None]
    x = sosfiltfilt(sections, x, axis=-1)
    if sampling_rate_hz >= SMOOTHED_FROM_HZ:
        x = uniform_filter1d(x, max(1, round(SMOOTHING_SECONDS * sampling_rate_hz)), axis=-1, mode="nearest")
    ratio = Fraction(target_hz / sampling_rate_hz).limit_denominator(1000)
    x = resample_poly(x, ratio.numerator, ratio.denominator, axis=-1, padtype="line")
    x = _to_length(x, round(30 * target_hz)).reshape(len(samples), segments, -1)
    deviation = x.std(axis=-1, keepdims=True)
    flat = deviation <= 1e-9 * scale
    x = (x - x.mean(axis=-1, keepdims=True)) / np.where(flat, 1.0, deviation)
    return np.where(flat, 0.0, x).reshape(len(samples), -1).astype(np.float32)


def _to_length(x: Float[np.ndarray, "n m"], length: int) -> Float[np.ndarray, "n out"]:
    """Cut the end off, or repeat the last sample: at 124.945 Hz a window has a sample too few or many."""
    missing = length - x.shape[1]
    return np.pad(x, ((0, 0), (0, missing)), mode="edge") if missing > 0 else x[:, :length]
