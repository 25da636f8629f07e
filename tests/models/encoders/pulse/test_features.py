"""The hand-made features find what is planted in a clean pulse, and say so where there is no pulse."""

import numpy as np
import pytest
import torch

from models.encoders.pulse.beats import find_beats
from models.encoders.pulse.features import FEATURES, FOUND, MOST_SPREADS, NAMES, PulseFeatures, feature_values
from pipeline.embedding.encoders import encoder_label, make_encoder
from pipeline.foundation.errors import ConfigError
from pipeline.sources.synthetic.ppg import pulse_shapes

RATE_HZ, SECONDS = 40, 30


def beats_at(onsets: np.ndarray, amplitude: np.ndarray, *, rise: float = 0.15, delay: float = 0.3,
             notch: float = 0.5) -> np.ndarray:  # fmt: skip
    """A window of beats of one shape at given seconds, the last onset only ends the one before."""
    time = np.arange(RATE_HZ * SECONDS) / RATE_HZ
    period = np.array([np.diff(onsets).mean()], np.float32)
    shape = pulse_shapes(*(np.array([v], np.float32) for v in (rise, delay, notch)), period)[0]
    beat = np.clip(np.searchsorted(onsets, time, side="right") - 1, 0, len(onsets) - 2)
    phase = np.clip((time - onsets[beat]) / np.diff(onsets)[beat], 0, 1)
    wave = np.interp(phase, np.arange(len(shape)) / len(shape), shape) * amplitude[beat]
    return ((wave - wave.min()) / (wave.max() - wave.min())).astype(np.float32)


def pulse(rate: float = 75, *, variability: float = 0.0, modulation: float = 0.0, breath: float = 15,
          seed: int = 0, **shape: float) -> np.ndarray:  # fmt: skip
    """A clean window: intervals vary at random, amplitude and intervals swing with the breath."""
    count = int(rate / 60 * SECONDS * 1.3) + 4
    rng = np.random.default_rng(seed)
    interval = 60 / rate * (1 + variability * rng.standard_normal(count))
    onsets = np.cumsum(interval) - 1.5
    swing = np.sin(2 * np.pi * breath / 60 * onsets)
    return beats_at(onsets, 1 + modulation * swing, **shape)


def values_of(window: np.ndarray) -> dict[str, float]:
    beats = find_beats(window)
    assert beats is not None
    return dict(feature_values(beats))


def embedded(*windows: np.ndarray) -> torch.Tensor:
    return PulseFeatures().embed(torch.from_numpy(np.stack(windows)))


@pytest.mark.parametrize("rate", [45, 60, 75, 100, 130, 180])
def test_rate(rate: float) -> None:
    assert values_of(pulse(rate, rise=0.1, delay=0.2))["rate"] == pytest.approx(rate, rel=0.01)


def test_a_tall_dicrotic_wave_is_no_beat() -> None:
    assert values_of(pulse(60, rise=0.1, delay=0.36, notch=1.0))["rate"] == pytest.approx(60, rel=0.01)


@pytest.mark.parametrize("rise", [0.08, 0.12, 0.18, 0.25])
def test_rise_time(rise: float) -> None:
    """A raised cosine goes from a tenth to nine tenths of its height in 0.59 of its length."""
    found = values_of(pulse(60, rise=rise, delay=0.36, notch=0.3))
    assert found["rise_time"] == pytest.approx(0.59 * rise, abs=0.012)
    assert found["foot_to_peak_time"] == pytest.approx(rise, abs=0.03)


def test_delay_and_depth_of_the_notch_order_pulses() -> None:
    delays = [values_of(pulse(60, delay=d, notch=0.8)) for d in (0.22, 0.26, 0.30, 0.34)]
    for name in ("notch_delay", "dicrotic_delay"):
        found = [values[name] for values in delays]
        assert found == sorted(found), name
        assert found[-1] - found[0] > 0.05, name
    depths = [values_of(pulse(60, notch=n))["notch_depth"] for n in (0.1, 0.4, 0.7, 1.0)]
    assert depths == sorted(depths)
    assert depths[-1] > depths[0] + 0.05


@pytest.mark.parametrize("variability", [0.02, 0.04, 0.08])
def test_variability(variability: float) -> None:
    spreads = [
        np.exp(values_of(pulse(variability=variability, seed=seed))["interval_spread_log"])
        for seed in range(8)
    ]
    assert np.mean(spreads) == pytest.approx(variability, rel=0.2)


@pytest.mark.parametrize("modulation", [0.05, 0.2, 0.35])
def test_modulation(modulation: float) -> None:
    """The spread of a sine is 0.71 of its height."""
    spread = values_of(pulse(80, modulation=modulation))["amplitude_spread"]
    assert spread == pytest.approx(modulation / np.sqrt(2), rel=0.15, abs=0.005)


@pytest.mark.parametrize("breath", [9, 15, 24])
def test_breath(breath: float) -> None:
    assert values_of(pulse(90, modulation=0.2, breath=breath))["breath_rate"] == pytest.approx(breath, abs=1)


def test_scale_and_offset_of_a_window_do_not_matter() -> None:
    window = pulse(modulation=0.2, variability=0.03)
    assert embedded(window, 7 * window - 3) == pytest.approx(embedded(window, window), abs=1e-3)


def single_beat() -> np.ndarray:
    window = np.zeros(1200, np.float32)
    window[400:440] = np.hanning(40)
    return window


@pytest.mark.parametrize(
    "window",
    [np.zeros(1200), np.full(1200, 1e6), np.linspace(0, 1, 1200), single_beat(), np.arange(1200) >= 600],
    ids=["flat", "flat and high", "ramp", "single beat", "step"],
)
def test_without_beats_every_feature_is_neutral(window: np.ndarray) -> None:
    (row,) = embedded(window.astype(np.float32))
    assert torch.equal(row, torch.zeros(len(NAMES)))
    (pulsing,) = embedded(pulse())
    assert pulsing[NAMES.index(FOUND)] > 0.85


def test_noise_gives_finite_numbers_within_bounds() -> None:
    rng = np.random.default_rng(0)
    white = rng.random((40, 1200)).astype(np.float32)
    wander = np.cumsum(rng.standard_normal((40, 1200)), axis=1).astype(np.float32)
    spikes = (rng.random((40, 1200)) < 0.01).astype(np.float32)
    found = embedded(*white, *wander, *spikes, *np.eye(40, 1200, 500, dtype=np.float32))
    assert found.isfinite().all()
    assert found.abs().max() <= MOST_SPREADS
    assert torch.equal(found, found.half().float().clamp(-MOST_SPREADS, MOST_SPREADS)) or (
        (found - found.half().float()).abs().max() < 0.01
    ), "float16, as the store keeps it, loses nothing that counts"


def test_a_row_is_its_windows_own_among_any_neighbours() -> None:
    windows = [pulse(60 + 3 * k, modulation=0.01 * k, variability=0.002 * k, seed=k) for k in range(20)]
    windows += [np.zeros(1200, np.float32), single_beat()]
    whole = embedded(*windows)
    order = np.random.default_rng(0).permutation(len(windows))
    assert torch.equal(embedded(*[windows[k] for k in order]), whole[torch.from_numpy(order)])
    assert torch.equal(torch.cat([embedded(window) for window in windows]), whole)


def test_every_feature_is_defined_once_and_is_what_the_beats_give() -> None:
    assert len({*NAMES}) == len(NAMES) == PulseFeatures.width
    assert {feature.name for feature in FEATURES} == set(values_of(pulse(modulation=0.2, variability=0.02)))
    assert all(feature.spread > 0 for feature in FEATURES)


def test_the_hash_is_of_definition_and_package(monkeypatch: pytest.MonkeyPatch) -> None:
    before = PulseFeatures().weights_hash
    for target, value in (
        ("models.encoders.pulse.features.DEFINITION_VERSION", 99),
        ("models.encoders.pulse.features.FEATURES", FEATURES[1:]),
        ("scipy.__version__", "0"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, value)
            assert PulseFeatures().weights_hash != before, target
    assert PulseFeatures().weights_hash == before


def test_by_name_alone() -> None:
    encoder = make_encoder("pulse_features", device="cpu")
    assert encoder_label(encoder) == "pulse_features"
    assert (
        encoder_label(make_encoder("pulse_features", precision="bfloat16", device="cpu")) == "pulse_features"
    )
    for name in ("pulse_features+mean", "pulse_features_long"):
        with pytest.raises(ConfigError, match="pulse_features"):
            make_encoder(name, device="cpu")
