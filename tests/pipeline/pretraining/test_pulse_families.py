"""Other pulse families: seeded, finite, wide, and each parameter by itself."""

from collections import Counter

import numpy as np
import pytest

from pipeline.pretraining.data import divide
from pipeline.pretraining.pulse_families import (
    RANGES,
    SHAPE_NAMES,
    PulseFamilies,
    draw_shares,
    in_range,
    render_patient,
)
from pipeline.pretraining.pulse_shapes import BINS, FAMILIES, beat_shapes
from pipeline.windows.cutting import WindowConfig

SEED = 20_150_101


def shape(**values: float) -> dict[str, np.ndarray]:
    """One row of each parameter, in the middle of its range unless given."""
    p = {name: np.atleast_1d(in_range(name, np.array(0.5))) for name in SHAPE_NAMES}
    return p | {"period_s": np.array([0.8])} | {name: np.array([value]) for name, value in values.items()}


def samples_of(source: PulseFamilies, patient: int) -> np.ndarray:
    (stretch,) = source.stretches(source.catalog().records[patient], Counter())
    return stretch.samples


def test_patient_is_the_same_however_many_there_are() -> None:
    few, many = PulseFamilies(patients=3, seed=SEED), PulseFamilies(patients=30, seed=SEED)
    assert np.array_equal(samples_of(few, 2), samples_of(many, 2))
    assert not np.array_equal(samples_of(few, 1), samples_of(few, 2))
    other = samples_of(PulseFamilies(patients=3, seed=SEED + 1), 2)
    assert other.size != samples_of(few, 2).size or not np.array_equal(other, samples_of(few, 2))


def test_records_are_finite_pulses_of_their_length() -> None:
    source = PulseFamilies(patients=60, seconds=90.0, seed=SEED)
    for record in source.catalog().records:
        (stretch,) = source.stretches(record, Counter())
        assert stretch.samples.size == int(90 * stretch.sampling_rate_hz)
        assert np.isfinite(stretch.samples).all()
        assert stretch.samples.std() > 0


def test_nearly_all_windows_are_usable() -> None:
    training, validation = divide(
        "families", PulseFamilies(patients=40, seed=SEED), 1.0, validation_share=0.25, seed=0
    )
    assert (len(training.records), len(validation.records)) == (30, 10)
    windows = training.epoch(0, 0, None, WindowConfig(), Counter())
    assert windows.shape[0] >= 4 * 30 * 0.95
    assert (windows.min(), windows.max()) == (0, 1)


def test_parameters_are_drawn_over_their_ranges_and_by_themselves() -> None:
    rng = np.random.default_rng(0)
    draws = [draw_shares(rng) for _ in range(4000)]
    shares = np.array([[draw[name] for name in RANGES] for draw in draws])
    assert (shares.min(axis=0) < 0.01).all()
    assert (shares.max(axis=0) > 0.99).all()
    together = np.corrcoef(shares.T) - np.eye(len(RANGES))
    assert np.abs(together).max() < 0.08
    for name, (low, high, _) in RANGES.items():
        ends = in_range(name, np.array([0.0, 0.5, 1.0]))
        assert np.allclose(ends[[0, 2]], [low, high])
        assert low < ends[1] < high


@pytest.mark.parametrize("family", FAMILIES)
def test_beats_go_from_foot_to_one_peak_of_one(family: str) -> None:
    rng = np.random.default_rng(1)
    n = 200
    p = {name: in_range(name, rng.random(n)) for name in SHAPE_NAMES}
    p["period_s"] = 60 / in_range("heart_rate_bpm", rng.random(n))
    p["rise_s"] = np.minimum(p["rise_s"], 0.45 * p["period_s"])
    beats = beat_shapes(family, p)
    assert beats.shape == (n, BINS)
    assert np.isfinite(beats).all()
    assert np.allclose(beats.max(axis=1), 1)
    assert np.abs(beats[:, [0, -1]]).max() < 1e-4
    assert beats.min() > -0.6


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "harmonics"])
def test_each_parameter_moves_what_its_name_says(family: str) -> None:
    def peak(beat: np.ndarray) -> float:
        return float(beat.argmax())

    early, late = (beat_shapes(family, shape(rise_s=rise, reflection=0.1))[0] for rise in (0.08, 0.2))
    assert peak(late) > peak(early) + 0.05 * BINS
    deep, shallow = (
        beat_shapes(family, shape(notch_depth=depth, rise_s=0.12, reflection_delay_s=0.3, reflection=0.5))[0]
        for depth in (1.0, 0.0)
    )
    before, after = (
        slice(int(low / 0.8 * BINS), int(high / 0.8 * BINS)) for low, high in ((0.2, 0.4), (0.36, 0.5))
    )
    rises = [beat[after].max() - beat[before].min() for beat in (deep, shallow)]
    assert rises[0] > rises[1] + 0.01
    soon, later = (
        beat_shapes(family, shape(reflection_delay_s=delay, rise_s=0.1, reflection=0.6, notch_depth=0.8))[0]
        for delay in (0.2, 0.36)
    )
    assert np.abs(soon - later).max() > 0.1


def test_rhythms_differ_in_how_irregular_they_are() -> None:
    """Among many patients some have nearly even beats and some very uneven ones."""
    from scipy.signal import find_peaks

    spreads = []
    for patient in range(60):
        wave = render_patient(90.0, 62.5, np.random.default_rng(patient))
        scaled = (wave - wave.min()) / (wave.max() - wave.min())
        peaks, _ = find_peaks(scaled, prominence=0.3, distance=20)
        if len(peaks) > 20:
            gaps = np.diff(peaks)
            spreads.append(gaps.std() / gaps.mean())
    assert np.quantile(spreads, 0.1) < 0.05
    assert np.quantile(spreads, 0.95) > 0.15


@pytest.mark.parametrize("wrong", [{"patients": 1}, {"seconds": 30.0}, {"seed": -1}])
def test_impossible_sources_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PulseFamilies(**({"patients": 4, "seed": SEED} | wrong))
