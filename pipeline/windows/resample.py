"""Windows at the encoder's rate: each window resampled from its own samples alone, then scaled to [0, 1].

Polyphase resampling with the filter of ``scipy.signal.resample_poly`` (Kaiser 5.0, ten zero crossings a side)
and its ``padtype="line"``: beyond its ends a window continues along the line through its first and last
sample. A block of outputs is one matrix product of a strided slice of the windows, so no sample is copied
per output.

A matrix product adds in an order that depends on its shape, the processor and the threads, yet the bits of a
window must depend on nothing but its own samples. So samples and filter are rounded to whole numbers small
enough for every sum to be exact in float64 (about 2^51 against 2^53): then no order can change a bit, on any
machine.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float

from pipeline.foundation.schema import WINDOW_SECONDS

PPG_GPT_RATE_HZ = 40
_BATCH = 64
"""Windows worked on at once: their float64 copies stay in the second-level cache."""
_KAISER: Any = ("kaiser", 5.0)  # the stubs know only names of windows
_SAMPLE_SCALE = 2.0**23
"""Steps over a window's range: as fine as float32."""
_WEIGHT_SCALE = 2.0**26
_MAX_DENOMINATOR = 50_000
"""Bounds the filter; the ratio of 124.945 Hz to 40 Hz is exact at 24,989."""


def samples_per_window(sampling_rate_hz: float) -> int:
    """Whole samples of a 30 s window at `sampling_rate_hz` (3748 at 124.945 Hz)."""
    return int(WINDOW_SECONDS * sampling_rate_hz + 1e-6)


def prepare_ppg_gpt(
    samples: Float[np.ndarray, "n m"], sampling_rate_hz: float, rails: tuple[float, float]
) -> Float[np.ndarray, "n 1200"]:
    """Windows as PPG-GPT wants them: 40 Hz, without rails, scaled to [0, 1].

    Rails go first, at the source's own rate, where a rail sample is one digital code; the filter would smear
    it.

    Parameters
    ----------
    samples : physical units, no NaN
    sampling_rate_hz : rate of `samples`
    rails : physical values of the lowest and highest digital code

    Returns
    -------
    float32 in [0, 1]; a flat window is 0

    Source: scaling as in the authors' public cohort code; resampling per window is our decision.
    """
    return scale_to_unit(resample(replace_rails(samples, rails), sampling_rate_hz, PPG_GPT_RATE_HZ))


def resample(
    samples: Float[np.ndarray, "n m"], sampling_rate_hz: float, target_rate_hz: int
) -> Float[np.ndarray, "n k"]:
    """Resample 30 s windows to ``30 * target_rate_hz`` float32, as ``resample_poly(padtype="line")`` does."""
    width = WINDOW_SECONDS * target_rate_hz
    if rate_ratio(sampling_rate_hz, target_rate_hz) == 1:
        return samples[:, :width]
    result = np.empty((len(samples), width), np.float32)
    for first in range(0, len(samples), _BATCH):
        batch = slice(first, first + _BATCH)
        result[batch] = _resample_batch(samples[batch], float(sampling_rate_hz), target_rate_hz)
    return result


def replace_rails(samples: Float[np.ndarray, "n m"], rails: tuple[float, float]) -> Float[np.ndarray, "n m"]:
    """Replace samples at the rails by the extremes of the window's other samples.

    A window that touches the rails with every sample is returned as it is.
    """
    low, high = np.float32(rails[0]), np.float32(rails[1])
    railed = (samples.min(axis=1) <= low) | (samples.max(axis=1) >= high)
    if not railed.any():
        return samples
    rows = samples[railed]
    above, below = rows > low, rows < high
    lowest = np.where(above & below, rows, np.inf).min(axis=1, keepdims=True)
    highest = np.where(above & below, rows, -np.inf).max(axis=1, keepdims=True)
    mended = np.isfinite(lowest)
    result = samples.copy()
    result[railed] = np.where(mended, np.clip(rows, lowest, highest), rows)
    return result


def scale_to_unit(samples: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
    """Per-window min-max to [0, 1]; divisor 1 where the window is flat."""
    low = samples.min(axis=1, keepdims=True)
    span = samples.max(axis=1, keepdims=True) - low
    return (samples - low) / np.where(span > 0, span, np.float32(1))


def rate_ratio(sampling_rate_hz: float, target_rate_hz: int) -> Fraction:
    """Output samples for one input sample (8/25 from 125 Hz to 40 Hz).

    Rates are decimal fractions as written in a header; a ratio with a larger denominator than the filter
    allows is approximated to better than one part in 10^8, under a hundredth of a sample in 30 s.
    """
    rate = Fraction(sampling_rate_hz).limit_denominator(10_000)
    return (Fraction(target_rate_hz) / rate).limit_denominator(_MAX_DENOMINATOR)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """How to resample from one rate to another.

    Attributes
    ----------
    length, before : samples of a padded window, and those before the window's own
    blocks : for each block of outputs its first padded sample, and its filter as whole numbers (_WEIGHT_SCALE is one)
    gain : what each output makes of a constant
    """

    length: int
    before: int
    blocks: list[tuple[int, np.ndarray]]
    gain: np.ndarray


@lru_cache(maxsize=16)
def _plan(sampling_rate_hz: float, target_rate_hz: int) -> _Plan:
    """Cut the filter into blocks.

    Output j lies at input position j / ratio; with h the filter at the common multiple of both rates, its weight of
    input i is ``h[half + j * down - i * up]``.
    """
    from scipy.signal import firwin  # half a second that Dagster's definitions need not wait for

    ratio = rate_ratio(sampling_rate_hz, target_rate_hz)
    up, down = ratio.numerator, ratio.denominator
    half = 10 * max(up, down)
    taps = np.rint(np.asarray(firwin(2 * half + 1, 1 / max(up, down), window=_KAISER)) * up * _WEIGHT_SCALE)
    before = half // up + 1
    blocks = []
    for outputs in _output_blocks(WINDOW_SECONDS * target_rate_hz):
        first = -((half - outputs[0] * down) // up)
        last = (half + outputs[-1] * down) // up
        lags = half + outputs[None, :] * down - np.arange(first, last + 1)[:, None] * up
        inside = (lags >= 0) & (lags <= 2 * half)
        blocks.append((int(first) + before, np.where(inside, taps[np.clip(lags, 0, 2 * half)], 0)))
    return _Plan(
        length=max(before + samples_per_window(sampling_rate_hz), *(first + len(w) for first, w in blocks)),
        before=before,
        blocks=blocks,
        gain=np.concatenate([weights.sum(axis=0) for _, weights in blocks]) / _WEIGHT_SCALE,
    )


def _output_blocks(n: int) -> np.ndarray:
    """Group outputs in blocks of about 20: larger ones multiply by more zeros, smaller ones call more often."""
    size = max(size for size in range(1, 26) if n % size == 0)
    return np.arange(n).reshape(-1, size)


def _resample_batch(samples: np.ndarray, sampling_rate_hz: float, target_rate_hz: int) -> np.ndarray:
    plan = _plan(sampling_rate_hz, target_rate_hz)
    low = samples.min(axis=1, keepdims=True).astype(np.float64)
    span = samples.max(axis=1, keepdims=True) - low
    step = np.where(span > 0, span, 1) / _SAMPLE_SCALE
    padded = _whole_numbers(samples, low, step, plan)
    result = np.empty((len(samples), WINDOW_SECONDS * target_rate_hz))
    size = plan.blocks[0][1].shape[1]
    for i, (first, weights) in enumerate(plan.blocks):
        result[:, i * size : (i + 1) * size] = padded[:, first : first + len(weights)] @ weights
    result *= step / _WEIGHT_SCALE
    # The filter's gain for a constant is a little off 1 (fourth or fifth digit), from output to output: `low` takes
    # it as well, but a flat window stays flat.
    result += low * np.where(span > 0, plan.gain, 1)
    return result


def _whole_numbers(samples: np.ndarray, low: np.ndarray, step: np.ndarray, plan: _Plan) -> np.ndarray:
    """Count steps above `low`, continued on both sides along the line through the first and last sample."""
    n, before = samples.shape[1], plan.before
    padded = np.empty((len(samples), plan.length))
    own = padded[:, before : before + n]
    np.subtract(samples, low, out=own)
    own *= 1 / step
    slope = (own[:, -1:] - own[:, :1]) / (n - 1)
    padded[:, :before] = own[:, :1] + slope * np.arange(-before, 0)
    padded[:, before + n :] = own[:, -1:] + slope * np.arange(1, plan.length - before - n + 1)
    return np.rint(padded, out=padded)
