"""The pulse wave: its shapes, rendering in any pieces, and that clean windows show each lab's latent."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.signal import find_peaks, resample_poly

from pipeline.foundation.schema import LAB_NAMES
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.physiology import Course, plan_course, plan_stay, random_stream
from pipeline.sources.synthetic.ppg import (
    BLOCK_SAMPLES,
    SAMPLING_RATE_HZ,
    plan_beats,
    pulse_shapes,
    render,
)

HOURS = 3


@pytest.fixture(scope="module")
def parameters() -> CohortParameters:
    return CohortParameters.load()


def course_of(parameters: CohortParameters, patient: int) -> tuple[Course, int]:
    stay = plan_stay(parameters, (40.0, 48.0), 5, patient, patient)
    return plan_course(parameters, stay, coupling=1.0, null=None, seed=5, patient=patient), stay.recordings[
        0
    ][0]


def one(value: float) -> np.ndarray:
    return np.array([value], np.float32)


@pytest.mark.parametrize("period", [0.46, 0.8, 1.2])
@pytest.mark.parametrize("notch", [0.0, 1.0])
def test_a_beat_rises_from_its_foot_to_one_peak_and_returns(period: float, notch: float) -> None:
    beat = pulse_shapes(one(0.12), one(0.22), one(notch), one(period))[0]
    assert beat.max() == pytest.approx(1)
    assert beat[0] == pytest.approx(0)
    assert abs(beat[-1]) < 0.02
    assert beat.min() > -0.1
    assert beat.argmax() / beat.size * period == pytest.approx(0.12, abs=0.03)


def test_the_notch_deepens_with_its_parameter() -> None:
    shallow, deep = (pulse_shapes(one(0.14), one(0.27), one(n), one(0.8))[0] for n in (0.05, 0.95))
    assert find_peaks(shallow, prominence=0.03)[0].size == 1
    assert find_peaks(deep, prominence=0.03)[0].size == 2


def test_pieces_join_without_a_seam(parameters: CohortParameters) -> None:
    course, start_us = course_of(parameters, 0)
    track = plan_beats(parameters, course, start_us, 4 * BLOCK_SAMPLES, np.random.default_rng(0))
    quiet = type(track)(**{**vars(track), "noise": 0.0})
    whole = render(quiet, 0, 4 * BLOCK_SAMPLES, 1.0, 0)
    cuts = [0, 1, 777, 3750, 9001, 4 * BLOCK_SAMPLES]
    pieces = [render(quiet, a, b, 1.0, 0) for a, b in pairwise(cuts)]
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=0.02)
    assert np.abs(np.diff(whole)).max() < 0.3


def test_beats_keep_the_planned_heart_rate(parameters: CohortParameters) -> None:
    course, start_us = course_of(parameters, 1)
    samples = 3600 * SAMPLING_RATE_HZ
    track = plan_beats(parameters, course, start_us, samples, np.random.default_rng(0))
    inside = track.onsets[(track.onsets >= 0) & (track.onsets < samples)]
    assert inside.size == pytest.approx((30 / track.period_s[:120]).sum(), rel=0.02)
    assert track.onsets[0] <= 0
    assert track.onsets[-1] > samples
    assert np.diff(track.onsets).min() > 0.2 * SAMPLING_RATE_HZ


def features(window: np.ndarray) -> np.ndarray:
    """Hand-made morphology of one 40 Hz window in 0..1: rate, its spread, swing, upstroke, mean beat."""
    fine = resample_poly(window, 4, 1, padtype="line")
    slope = np.gradient(fine)
    spectrum = np.abs(np.fft.rfft(fine - fine.mean(), 8 * fine.size)) ** 2
    lag = 60 + int(np.argmax(np.fft.irfft(spectrum)[60:320]))
    ups = find_peaks(slope, distance=int(0.6 * lag), height=0.3 * np.percentile(slope, 99.5))[0][1:-1]
    beats = np.stack([fine[up - 32 : up + 112] for up in ups if 32 <= up < fine.size - 112])
    foot, peak = beats[:, :33].min(axis=1), beats[:, 32:80].max(axis=1)
    shape = np.median((beats - foot[:, None]) / (peak - foot)[:, None], axis=0)
    rising = np.interp((0.1, 0.9), shape[10:33] + 1e-6 * np.arange(23), np.arange(23))
    swing = (peak - foot).std() / (peak - foot).mean()
    gaps = np.diff(ups)
    usual = gaps[np.abs(gaps / np.median(gaps) - 1) < 0.4]
    spread = np.log(usual.std() / usual.mean() + 1e-3)
    wander = foot.std() / (peak - foot).mean()
    return np.r_[1 / np.median(gaps), spread, swing, wander, rising[1] - rising[0], shape[::6]]


def windows_of(parameters: CohortParameters, patient: int) -> tuple[np.ndarray, np.ndarray]:
    course, start_us = course_of(parameters, patient)
    samples = 36 * 3600 * SAMPLING_RATE_HZ
    rng = random_stream(5, patient, "records")
    track = plan_beats(parameters, course, start_us, samples, rng)
    rows, latents = [], []
    for first in range(0, samples - BLOCK_SAMPLES, 16 * BLOCK_SAMPLES):
        wave = resample_poly(
            np.round(render(track, first, first + BLOCK_SAMPLES, 254.0, first)), 8, 25, padtype="line"
        )
        rows.append(features((wave - wave.min()) / np.ptp(wave)))
        at = start_us + (first + BLOCK_SAMPLES // 2) * 8_000
        latents.append([np.interp(at, course.grid_us, latent) for latent in course.latents[: len(LAB_NAMES)]])
    return np.array(rows), np.array(latents)


@pytest.mark.slow
def test_each_latent_can_be_read_from_clean_windows_within_a_patient(parameters: CohortParameters) -> None:
    """Ridge on hand-made features, fitted on other patients, levels of each patient removed: R2 above 0.6."""
    data = [windows_of(parameters, patient) for patient in range(24)]
    centred = [(x - x.mean(axis=0), y - y.mean(axis=0)) for x, y in data]
    scale = np.concatenate([x for x, _ in centred]).std(axis=0)
    rows = [(expand(np.clip(x / scale, -4, 4)), y) for x, y in centred]
    explained = np.zeros(len(LAB_NAMES))
    total = np.zeros(len(LAB_NAMES))
    for fold in range(6):
        train = [pair for i, pair in enumerate(rows) if i % 6 != fold]
        x, y = (np.concatenate(parts) for parts in zip(*train, strict=True))
        weights = np.linalg.solve(x.T @ x + 10 * np.eye(x.shape[1]), x.T @ y)
        for x_test, y_test in rows[fold::6]:
            error = y_test - x_test @ weights
            explained += (y_test**2).sum(axis=0) - ((error - error.mean(axis=0)) ** 2).sum(axis=0)
            total += (y_test**2).sum(axis=0)
    assert np.all(explained / total > 0.6), dict(zip(LAB_NAMES, explained / total, strict=True))


def expand(x: np.ndarray) -> np.ndarray:
    """Add the products of all pairs of features."""
    left, right = np.triu_indices(x.shape[1])
    products = x[:, left] * x[:, right]
    return np.concatenate([x, products - products.mean(axis=0)], axis=1)
