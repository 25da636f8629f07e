import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

from pipeline.windows.resample import (
    prepare_ppg_gpt,
    rate_ratio,
    replace_rails,
    resample,
    samples_per_window,
    scale_to_unit,
)

NO_RAILS = (-np.inf, np.inf)


def walks(n: int, rate: float, seed: int = 0, offset: float = 0.0) -> np.ndarray:
    steps = np.random.default_rng(seed).normal(size=(n, samples_per_window(rate)))
    return (steps.cumsum(axis=1) * 0.05 + offset).astype(np.float32)


@pytest.mark.parametrize(
    "rate", [20.0, 40.0, 62.4725, 64.0, 77.3, 100.0, 124.945, 125.0, 240.0, 250.0, 500.0, 2000.0]
)
def test_equals_scipy(rate):
    """To float32 rounding, at the record's ends too, and however far from zero the signal lies."""
    samples = walks(3, rate, offset=5.0)
    ratio = rate_ratio(rate, 40)
    expected = resample_poly(
        samples.astype(float), ratio.numerator, ratio.denominator, axis=1, padtype="line"
    )
    span = np.ptp(samples, axis=1).max()
    np.testing.assert_allclose(resample(samples, rate, 40), expected[:, :1200], atol=1e-6 * span, rtol=2e-7)


@pytest.mark.parametrize("target", [50, 125])
def test_other_encoders_rates(target):
    samples = walks(2, 250.0)
    ratio = rate_ratio(250.0, target)
    expected = resample_poly(
        samples.astype(float), ratio.numerator, ratio.denominator, axis=1, padtype="line"
    )
    np.testing.assert_allclose(resample(samples, 250.0, target), expected, atol=2e-5)


@pytest.mark.parametrize(
    ("rate", "ratio"),
    [(125.0, "8/25"), (240.0, "1/6"), (500.0, "2/25"), (124.945, "8000/24989"), (62.4725, "16000/24989")],
)
def test_ratio_is_exact_for_the_rates_in_use(rate, ratio):
    assert str(rate_ratio(rate, 40)) == ratio


@pytest.mark.parametrize(
    ("rate", "samples"), [(125.0, 3750), (124.945, 3748), (62.4725, 1874), (240.0, 7200), (20.1, 603)]
)
def test_whole_samples_of_a_window(rate, samples):
    assert samples_per_window(rate) == samples


@pytest.mark.parametrize("rate", [125.0, 124.945, 240.0])
def test_bits_depend_on_the_window_alone(rate):
    """Not on neighbours, place, number of windows, nor on memory layout."""
    samples = walks(70, rate)
    rails = (float(np.quantile(samples, 0.02)), float(np.quantile(samples, 0.98)))
    together = prepare_ppg_gpt(samples, rate, rails)
    order = np.random.default_rng(1).permutation(len(samples))
    np.testing.assert_array_equal(prepare_ppg_gpt(samples[order], rate, rails), together[order])
    alone = np.concatenate([prepare_ppg_gpt(samples[i : i + 1], rate, rails) for i in range(len(samples))])
    np.testing.assert_array_equal(alone, together)
    transposed = np.asfortranarray(samples)
    np.testing.assert_array_equal(prepare_ppg_gpt(transposed, rate, rails), together)


def test_a_window_continues_along_the_line_through_its_ends():
    """A straight line has no kink at its ends; zero padding would bend it by half."""
    line = np.linspace(3, 9, 3750, dtype=np.float32)[None, :]
    resampled = resample(line, 125.0, 40)[0]
    expected = 3 + (np.arange(1200) * 25 / 8) * (6 / 3749)
    np.testing.assert_allclose(resampled, expected, atol=0.02)


def test_rails_become_the_extremes_of_the_rest():
    window = np.array([[0, 1, 4, 2, 5, 3, 0, 5]], np.float32)
    assert replace_rails(window, (0.0, 5.0)).tolist() == [[1, 1, 4, 2, 4, 3, 1, 4]]
    assert replace_rails(window, NO_RAILS).tolist() == window.tolist()


def test_a_window_all_at_the_rails_stays_as_it_is():
    window = np.array([[0, 5, 0, 5], [1, 2, 0, 5]], np.float32)
    assert replace_rails(window, (0.0, 5.0)).tolist() == [[0, 5, 0, 5], [1, 2, 1, 2]]


def test_the_input_is_not_changed():
    window = np.array([[0, 1, 4, 2, 5]], np.float32)
    replace_rails(window, (0.0, 5.0))
    assert window.tolist() == [[0, 1, 4, 2, 5]]


def test_a_flat_window_becomes_zero():
    assert not prepare_ppg_gpt(np.full((2, 3750), 0.7, np.float32), 125.0, NO_RAILS).any()


def test_no_windows_are_no_windows():
    assert prepare_ppg_gpt(np.empty((0, 3750), np.float32), 125.0, NO_RAILS).shape == (0, 1200)


@settings(max_examples=25, deadline=None)
@given(
    rate=st.sampled_from([64.0, 125.0, 124.945]),
    scale=st.floats(1e-3, 1e4),
    offset=st.floats(-1e4, 1e4),
    seed=st.integers(0, 99),
)
def test_prepared_windows_span_zero_to_one(rate, scale, offset, seed):
    prepared = prepare_ppg_gpt(walks(2, rate, seed) * np.float32(scale) + np.float32(offset), rate, NO_RAILS)
    assert prepared.dtype == np.float32
    assert prepared.min(axis=1).tolist() == [0, 0]
    assert prepared.max(axis=1).tolist() == [1, 1]


def test_scale_to_unit():
    scaled = scale_to_unit(np.array([[2, 4, 3], [7, 7, 7]], np.float32))
    assert scaled.tolist() == [[0, 1, 0.5], [0, 0, 0]]
