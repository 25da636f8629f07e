import numpy as np
import pytest

from pipeline.foundation.schema import QUALITY_COLUMNS
from pipeline.windows.quality import window_quality
from pipeline.windows.resample import samples_per_window

RAILS = (0.0, 1.0)


def score(window: np.ndarray, rate: float = 125.0, rails=RAILS, **options) -> dict[str, float]:
    scores = window_quality(window[None].astype(np.float32), rate, rails, **options)
    return dict(zip(QUALITY_COLUMNS, scores[0].tolist(), strict=True))


def pulse(hz: float, rate: float = 125.0, amplitude: float = 0.2) -> np.ndarray:
    return 0.5 + amplitude * np.sin(2 * np.pi * hz * np.arange(samples_per_window(rate)) / rate)


@pytest.mark.parametrize("rate", [62.4725, 124.945, 125.0, 240.0, 500.0])
def test_a_clean_pulse(rate):
    found = score(pulse(1.3, rate), rate)
    assert found["spectral_peak_hz"] == pytest.approx(1.3, abs=0.02)
    assert found["spectral_concentration"] > 0.99
    assert found["perfusion"] == pytest.approx(0.4, abs=0.01)
    assert found["missing_share"] == found["flat_share"] == found["rail_share"] == 0


def test_noise_has_no_peak():
    noise = np.random.default_rng(0).normal(0.5, 0.1, 3750)
    assert score(noise)["spectral_concentration"] < 0.4


@pytest.mark.parametrize(("hz", "seen"), [(0.2, False), (0.6, True), (3.5, True), (6.0, False)])
def test_only_the_pulse_band_counts(hz, seen):
    found = score(pulse(hz, amplitude=0.3) + pulse(1.5, amplitude=0.1))
    assert (abs(found["spectral_peak_hz"] - hz) < 0.1) == seen


def test_missing_samples_are_a_share_and_nothing_else():
    window = pulse(1.3)
    window[:375] = np.nan
    assert score(window) == {name: 0 for name in QUALITY_COLUMNS} | {"missing_share": pytest.approx(0.1)}


def test_flat_seconds():
    window = pulse(1.3)
    window[125 * 10 : 125 * 16] = 0.4
    assert score(window)["flat_share"] == pytest.approx(6 / 30)


def test_flat_tolerance_is_a_share_of_full_scale():
    trembling = pulse(1.3, amplitude=0.001)
    assert score(trembling)["flat_share"] == 0
    assert score(trembling, flat_tolerance=0.005)["flat_share"] == 1


def test_a_flat_line_has_no_peak():
    found = score(np.full(3750, 0.5))
    assert (found["flat_share"], found["spectral_peak_hz"], found["spectral_concentration"]) == (1, 0, 0)


def test_rail_share_counts_both_rails():
    window = np.clip(pulse(1.3, amplitude=0.8), *RAILS)
    expected = np.isin(window.astype(np.float32), (0, 1)).mean()
    assert expected > 0.5
    assert score(window)["rail_share"] == pytest.approx(expected)


def test_perfusion_rides_over_a_drifting_baseline():
    drift = np.linspace(-0.2, 0.2, 3750)
    assert score(pulse(1.3, amplitude=0.05) + drift)["perfusion"] < 0.16


def test_without_rails_there_is_no_full_scale():
    found = score(pulse(1.3), rails=(-np.inf, np.inf))
    assert found["perfusion"] == found["rail_share"] == 0
    assert found["spectral_peak_hz"] == pytest.approx(1.3, abs=0.02)


def test_bits_depend_on_the_window_alone():
    windows = np.random.default_rng(0).random((41, 3750)).astype(np.float32)
    windows[5, 7] = np.nan
    windows[9] = 0.3
    together = window_quality(windows, 125.0, RAILS)
    order = np.random.default_rng(1).permutation(len(windows))
    np.testing.assert_array_equal(window_quality(windows[order], 125.0, RAILS), together[order])
    alone = np.concatenate([window_quality(windows[i : i + 1], 125.0, RAILS) for i in range(len(windows))])
    np.testing.assert_array_equal(alone, together)
    assert np.isfinite(together).all()
