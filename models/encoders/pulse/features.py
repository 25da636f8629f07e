"""Hand-made pulse features as an encoder: rate and its variability, beat shape, the amplitude's swing, breath.

The baseline that every network encoder has to beat on real windows. On planted windows it is the test of what an
embedding loses, and no fair rival: planted pulses are made of such features.

No package of pulse analysis is used. NeuroKit2 (0.3.0), the best kept one, has Elgendi's detector of systolic peaks
for PPG and variability of intervals, but no measure of the beat's shape. Its ``ppg_process`` takes 90 ms for a window
of 30 s (this encoder: 2 ms), its import 0.8 s, and it wants setuptools below 82 beside PyWavelets, which the locked
environment contradicts. So SciPy's ``find_peaks`` and filters find the beats, and the measures over them are ours;
their sources stand where they are made.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy
import torch
from jaxtyping import Float
from torch import Tensor

from models.encoders.pulse.beats import RATE_HZ, Beats, find_beats
from models.encoders.pulse.rhythm import breath_features, modulation_features, rhythm_features
from models.encoders.pulse.shape import shape_features

DEFINITION_VERSION = 1
"""Raise when any feature comes to mean, or to round, something else: it is part of the store's key."""
MOST_SPREADS = 5.0
"""Values lie within so many spreads of the typical one: a misread beat is no reason for a regression to jump."""


@dataclass(frozen=True)
class Feature:
    """One number of the embedding.

    Attributes
    ----------
    name : as the functions of ``rhythm`` and ``shape`` yield it
    typical, spread : the embedding is (value - typical) / spread, in what unit the value has: seconds (times; corrected
        ones over the root of the period in seconds), per minute (rates), shares and logarithms of shares otherwise
    """

    name: str
    typical: float
    spread: float


FEATURES = (
    Feature("rate", 90.0, 20.0),
    Feature("period", 0.7, 0.1),
    Feature("root_period", 0.82, 0.09),
    Feature("interval_spread_log", -4.0, 0.9),
    Feature("interval_detrended_spread_log", -4.0, 0.9),
    Feature("interval_step_log", -3.9, 0.9),
    Feature("interval_robust_spread_log", -4.1, 0.6),
    Feature("interval_spread", 0.02, 0.02),
    Feature("interval_memory", 0.3, 0.3),
    Feature("regularity", 0.95, 0.06),
    Feature("likeness", 0.97, 0.05),
    Feature("amplitude", 0.7, 0.1),
    Feature("amplitude_spread", 0.13, 0.08),
    Feature("amplitude_spread_log", -2.0, 0.6),
    Feature("amplitude_range", 0.2, 0.1),
    Feature("amplitude_step_log", -1.9, 0.7),
    Feature("foot_spread", 0.05, 0.07),
    Feature("foot_detrended_spread_log", -3.0, 0.9),
    Feature("amplitude_memory", 0.3, 0.3),
    Feature("rise_time", 0.09, 0.03),
    Feature("rise_time_corrected", 0.11, 0.03),
    Feature("foot_to_peak_time", 0.16, 0.05),
    Feature("half_rise_time", 0.04, 0.01),
    Feature("half_to_peak_time_corrected", 0.1, 0.03),
    Feature("steepest_slope_time", 0.09, 0.03),
    Feature("width_25", 0.39, 0.08),
    Feature("width_25_corrected", 0.49, 0.09),
    Feature("width_50", 0.23, 0.05),
    Feature("width_50_corrected", 0.28, 0.05),
    Feature("width_75", 0.15, 0.03),
    Feature("width_75_corrected", 0.18, 0.03),
    Feature("width_90", 0.09, 0.02),
    Feature("width_90_corrected", 0.11, 0.02),
    Feature("mean_height", 0.42, 0.05),
    Feature("systolic_area_share", 0.3, 0.07),
    Feature("notch_delay", 0.16, 0.04),
    Feature("notch_delay_corrected", 0.2, 0.04),
    Feature("notch_height", 0.4, 0.1),
    Feature("notch_bend", 0.4, 0.3),
    Feature("dicrotic_delay", 0.27, 0.06),
    Feature("dicrotic_delay_corrected", 0.33, 0.07),
    Feature("dicrotic_height", 0.4, 0.2),
    Feature("dicrotic_bend", -0.2, 0.3),
    Feature("notch_depth", 0.16, 0.08),
    Feature("dicrotic_rise", 0.0, 1.0),
    Feature("contour_0.06", 0.93, 0.07),
    Feature("contour_0.12", 0.98, 0.04),
    Feature("contour_0.18", 0.9, 0.1),
    Feature("contour_0.24", 0.6, 0.2),
    Feature("contour_0.30", 0.5, 0.1),
    Feature("contour_0.36", 0.4, 0.1),
    Feature("contour_0.42", 0.3, 0.1),
    Feature("contour_0.48", 0.2, 0.1),
    Feature("contour_0.54", 0.14, 0.08),
    Feature("contour_0.60", 0.08, 0.06),
    Feature("contour_0.66", 0.05, 0.06),
    Feature("contour_0.72", 0.1, 0.2),
    Feature("breath_rate_amplitude", 16.0, 6.0),
    Feature("breath_share_amplitude", 0.8, 0.3),
    Feature("breath_rate_foot", 16.0, 7.0),
    Feature("breath_share_foot", 0.6, 0.2),
    Feature("breath_rate_interval", 17.0, 8.0),
    Feature("breath_share_interval", 0.5, 0.2),
    Feature("breath_rate", 17.0, 6.0),
    Feature("breath_rate_centre", 17.0, 3.0),
    Feature("breath_share", 0.6, 0.2),
    Feature("breath_band_1", 0.1, 0.1),
    Feature("breath_band_2", 0.1, 0.1),
    Feature("breath_band_3", 0.1, 0.2),
    Feature("breath_band_4", 0.1, 0.2),
    Feature("breath_band_5", 0.1, 0.1),
    Feature("breath_band_6", 0.03, 0.05),
    Feature("breath_band_7", 0.02, 0.03),
    Feature("breath_band_8", 0.01, 0.02),
)
"""Medians and half the middle 68 % of planted windows (seed 7) and of half of BIDMC's patients, rounded. They only set
scale and neutral value."""
FOUND = "beats_found"
"""The last number of the embedding: share of the window that the found beats cover, 0 where none were found."""
NAMES = (*(feature.name for feature in FEATURES), FOUND)


class PulseFeatures:
    """Each window's hand-made features, 75 wide. Satisfies `models.encoders.base.Encoder`.

    0 is the typical value of each feature. That is what stands for a feature that a window does not have, and for all
    of them where fewer than four beats are found (a flat window); `FOUND` tells both apart. No number is ever
    NaN, or further than `MOST_SPREADS` from 0.
    """

    name = "pulse_features"
    width = len(NAMES)
    sampling_rate_hz = RATE_HZ
    samples_per_window = round(30 * RATE_HZ)

    @property
    def weights_hash(self) -> str:
        """SHA-256 (hex) of the definition: its version, its features, and the version of SciPy."""
        definition = f"{DEFINITION_VERSION}|{FEATURES!r}|{MOST_SPREADS}|scipy {scipy.__version__}"
        return hashlib.sha256(definition.encode()).hexdigest()

    def embed(self, windows: Float[Tensor, "n samples"]) -> Float[Tensor, "n width"]:
        """Return the features of prepared windows, float32 on the CPU: one window after another, none moves another."""
        if windows.shape[1] != self.samples_per_window:
            raise ValueError(
                f"windows have {windows.shape[1]} samples; {self.name} needs {self.samples_per_window} (30 s, 40 Hz)."
            )
        rows = windows.detach().cpu().numpy().astype(np.float64)
        out = np.zeros((len(rows), self.width), np.float32)
        for row, window in enumerate(rows):
            beats = find_beats(window)
            if beats is not None:
                out[row] = _standardised(feature_values(beats), beats)
        return torch.from_numpy(out)


def feature_values(beats: Beats) -> Mapping[str, float]:
    """Return every feature but `FOUND` in its own unit; NaN where the beats do not have it."""
    return dict(
        [
            *rhythm_features(beats),
            ("likeness", beats.likeness),
            *modulation_features(beats),
            *shape_features(beats),
            *breath_features(beats),
        ]
    )


def _standardised(values: Mapping[str, float], beats: Beats) -> np.ndarray:
    places = np.array([values[feature.name] for feature in FEATURES])
    scaled = (places - _TYPICAL) / _SPREAD
    scaled = np.where(np.isfinite(scaled), np.clip(scaled, -MOST_SPREADS, MOST_SPREADS), 0.0)
    return np.append(scaled, min(float(beats.interval.sum()) / 30, 1.0))


_TYPICAL = np.array([feature.typical for feature in FEATURES])
_SPREAD = np.array([feature.spread for feature in FEATURES])
