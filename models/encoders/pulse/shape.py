"""What the average beat looks like: upstroke, widths, areas, dicrotic notch and wave, contour.

Times are in seconds. Those of systole are given over the square root of the period as well, as Bazett corrected
them for the heart rate (Heart, 1920). The notch is where the contour bends upwards most after the peak, and the
dicrotic wave where it bends down most after the notch: the e and f waves of the second derivative (Takazawa and
others, Hypertension, 1998), which a beat without a visible notch has too.
"""

from collections.abc import Iterator

import numpy as np

from models.encoders.pulse.beats import FIRST_PHASE, PHASE_STEP, PHASES, Beats

WIDTH_LEVELS = (0.25, 0.5, 0.75, 0.9)
CONTOUR = tuple(round(0.06 * k, 2) for k in range(1, 13))
"""Places after the upstroke, seconds over the root of the period in seconds, at which the contour's height is told."""
_NOTCH_FROM, _NOTCH_TO = 0.07, 0.42
"""Where the notch is looked for after the peak, in the same unit."""
_WAVE_TO = 0.25
NOTCH = (
    "notch_delay", "notch_delay_corrected", "notch_height", "notch_bend", "dicrotic_delay", "dicrotic_delay_corrected",
    "dicrotic_height", "dicrotic_bend", "notch_depth", "dicrotic_rise",
)  # fmt: skip
"""Delays from the peak; depth below the line from peak to dicrotic wave; rise: steepest way up from the notch."""
_ORIGIN = round(-FIRST_PHASE / PHASE_STEP)
"""Index of the upstroke."""


def shape_features(beats: Beats) -> Iterator[tuple[str, float]]:
    """Yield the name and value of each feature of the average beat; NaN where it is not defined."""
    period, root = beats.period, np.sqrt(beats.period)
    wave, foot, peak = _levelled(beats.shape)
    at = {
        level: (_crossing(wave, level, peak, foot), _crossing(wave, level, peak, PHASES - 1))
        for level in (0.1, *WIDTH_LEVELS)
    }
    seconds = PHASE_STEP * period
    rise = (at[0.9][0] - at[0.1][0]) * seconds
    yield "rise_time", rise
    yield "rise_time_corrected", rise / root
    yield "foot_to_peak_time", (peak - foot) * seconds
    yield "half_rise_time", (at[0.5][0] - at[0.1][0]) * seconds
    yield "half_to_peak_time_corrected", (peak - at[0.5][0]) * seconds / root
    yield "steepest_slope_time", _steepest(wave, foot, peak) * seconds
    for level in WIDTH_LEVELS:
        width = (at[level][1] - at[level][0]) * seconds
        yield f"width_{level:.0%}".replace("%", ""), width
        yield f"width_{level:.0%}_corrected".replace("%", ""), width / root
    stop = min(foot + round(1 / PHASE_STEP), PHASES)
    yield "mean_height", float(wave[foot:stop].mean())
    yield "systolic_area_share", float(wave[foot:peak].sum() / max(wave[foot:stop].sum(), 1e-9))
    yield from _notch_features(wave, peak, stop, root / (PHASE_STEP * period), seconds, root)
    places = _ORIGIN + np.array(CONTOUR) * root / seconds
    heights = np.interp(places, np.arange(PHASES), wave)
    yield from ((f"contour_{k:.2f}", float(h)) for k, h in zip(CONTOUR, heights, strict=True))


def _levelled(shape: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Return the average beat with foot 0, peak 1 and the next foot 0, and the places of foot and peak."""
    cycle = round(1 / PHASE_STEP)
    peak = _ORIGIN + int(np.argmax(shape[_ORIGIN : _ORIGIN + cycle // 2]))
    foot = int(np.argmin(shape[: _ORIGIN + 1]))
    last = min(foot + cycle, PHASES - 1)
    line = shape[foot] + (shape[last] - shape[foot]) * (np.arange(PHASES) - foot) / (last - foot)
    wave = shape - line
    return wave / (wave[peak] if wave[peak] > 1e-6 else 1.0), foot, peak


def _notch_features(
    wave: np.ndarray, peak: int, stop: int, steps_per_unit: float, seconds: float, root: float
) -> Iterator[tuple[str, float]]:
    bend = np.gradient(np.gradient(_smooth(wave)))
    notch = _extreme(bend, peak + _NOTCH_FROM * steps_per_unit, peak + _NOTCH_TO * steps_per_unit, stop)
    if notch is None:
        yield from ((name, np.nan) for name in NOTCH)
        return
    dicrotic = _extreme(-bend, notch + 1.0, notch + _WAVE_TO * steps_per_unit, stop)
    dicrotic = notch if dicrotic is None else dicrotic
    delay, later = (notch - peak) * seconds, (dicrotic - peak) * seconds
    chord = (
        np.interp(notch, (peak, dicrotic), (wave[peak], wave[dicrotic])) if dicrotic > notch else wave[notch]
    )
    per_corrected = steps_per_unit**2 / 100  # bends per unit of corrected time, at most some tens
    slope = np.diff(wave[notch : dicrotic + 1])
    values = (delay, delay / root, wave[notch], bend[notch] * per_corrected, later, later / root,
              wave[dicrotic], bend[dicrotic] * per_corrected, chord - wave[notch],
              float(slope.max()) * steps_per_unit if len(slope) else 0.0)  # fmt: skip
    yield from zip(NOTCH, map(float, values), strict=True)


def _extreme(values: np.ndarray, first: float, last: float, stop: int) -> int | None:
    """Return the place of the highest value between two places."""
    low, high = round(first), min(round(last), stop - 1)
    return None if high <= low else low + int(np.argmax(values[low : high + 1]))


def _smooth(wave: np.ndarray) -> np.ndarray:
    """Return the running mean of five phases, with repeated ends."""
    long = np.concatenate([wave[:1], wave[:1], wave, wave[-1:], wave[-1:]])
    return (long[:-4] + long[1:-3] + long[2:-2] + long[3:-1] + long[4:]) / 5


def _crossing(wave: np.ndarray, level: float, start: int, stop: int) -> float:
    """Return where the wave first falls below `level` on the way from `start` to `stop`, between phases."""
    step = 1 if stop >= start else -1
    way = wave[start : stop + step : step] if stop + step >= 0 else wave[start::-1]
    below = np.flatnonzero(way < level)
    if not len(below) or below[0] == 0:
        return float(stop)
    k = int(below[0])
    share = (way[k - 1] - level) / (way[k - 1] - way[k])
    return start + step * (k - 1 + float(share))


def _steepest(wave: np.ndarray, foot: int, peak: int) -> float:
    """Return how many phases the whole height would take at the upstroke's steepest slope."""
    slope = np.diff(wave[foot : peak + 1])
    return 1.0 / max(float(slope.max()), 0.01) if len(slope) else np.nan
