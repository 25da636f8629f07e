"""Fitting: a law that is known comes back, and rendered windows are those that the cohort would show."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.emulation.check import compare_readouts, readout_table
from pipeline.emulation.fit import EmulatorFitConfig, fit_emulator
from pipeline.emulation.rendered import BurstPlan, RenderedWindows, render_windows
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.schema import WINDOW_US
from pipeline.sources.mimic3 import Mimic3Waveforms
from pipeline.sources.synthetic.cohort import write_cohort
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.plan import CohortSize
from pipeline.testing.emulators import HANDMADE_KEY, handmade_emulator
from pipeline.windows.cutting import WindowConfig, iterate_windows
from pipeline.windows.resample import prepare_ppg_gpt


class Samples:
    """An encoder that needs no weights: some samples of each prepared window, which no other window shares."""

    name, width, sampling_rate_hz, samples_per_window, weights_hash = "samples", 12, 40.0, 1200, "0" * 64

    def embed(self, windows: Tensor) -> Tensor:
        return windows[:, ::100]


def drawn_windows(patients: int, seed: int) -> RenderedWindows:
    """Windows as `render_windows` returns them, drawn from a law that is known."""
    rng = np.random.default_rng(seed)
    emulator, parts = handmade_emulator(), []
    for patient in range(patients):
        step = np.concatenate([first + np.arange(6) for first in range(0, 2400, 240)])
        inputs = rng.random(8) + 0.1 * rng.standard_normal((len(step), 8))
        inputs = inputs.astype(np.float32)
        parts.append(
            RenderedWindows(
                patient=np.full(len(step), patient), record=np.full(len(step), patient),
                start_us=(10_000 + step) * WINDOW_US, inputs=inputs,
                latents=inputs[:, :7] + rng.standard_normal((len(step), 7)).astype(np.float32),
                embeddings=emulator.draw(inputs, step, rng).astype(np.float16),
                concentration=rng.random(len(step), dtype=np.float32),
            )
        )  # fmt: skip
    return RenderedWindows.joined(parts)


def test_a_known_law_comes_back() -> None:
    truth = handmade_emulator()
    fitted = fit_emulator(drawn_windows(400, 0), HANDMADE_KEY, EmulatorFitConfig(epochs=20))
    inputs = np.random.default_rng(2).random((200, 8)).astype(np.float32)
    assert np.corrcoef(fitted.mean(inputs).ravel(), truth.mean(inputs).ravel())[0, 1] > 0.95
    fresh, lasting = (truth.fresh.T @ truth.fresh, truth.lasting.T @ truth.lasting)
    scale = np.abs(fresh + lasting).max()
    np.testing.assert_allclose(fitted.fresh.T @ fitted.fresh, fresh, atol=0.1 * scale)
    np.testing.assert_allclose(fitted.lasting.T @ fitted.lasting, lasting, atol=0.2 * scale)


def test_readouts_of_a_good_emulator_agree_and_of_a_deaf_one_do_not() -> None:
    windows = drawn_windows(900, 1)
    rows = compare_readouts(windows, handmade_emulator())
    assert max(abs(row.difference) for row in rows) < 0.05
    deaf = replace(handmade_emulator(), layers=tuple((0 * w, b) for w, b in handmade_emulator().layers))
    assert max(abs(row.difference) for row in compare_readouts(windows, deaf)) > 0.1
    assert "largest difference" in readout_table(rows)


def test_too_few_windows_are_refused() -> None:
    with pytest.raises(ConfigError, match="raise --patients"):
        fit_emulator(drawn_windows(3, 0).of(np.arange(0, 180, 10)), HANDMADE_KEY)
    with pytest.raises(ValueError, match="burst_windows = 1 must be at least 2"):
        BurstPlan(burst_windows=1)


def test_rendered_bursts_are_the_windows_of_the_written_cohort(tmp_path: Path) -> None:
    plan = BurstPlan(patients=8, bursts=3, burst_windows=2, hours=1.0, seed=7)
    rendered = render_windows(Samples(), plan)
    size = CohortSize(n_patients=8, hours_low=1.0, hours_high=1.0)
    write_cohort(CohortParameters.load(), size, tmp_path, seed=7)
    source, written = Mimic3Waveforms(tmp_path / "waveforms"), {}
    for record in source.catalog().records:
        for raw in iterate_windows(source, [record], WindowConfig(), Counter()):
            prepared = prepare_ppg_gpt(raw.samples, raw.sampling_rate_hz, raw.rails)
            values = Samples().embed(torch.from_numpy(prepared)).numpy()
            written |= dict(zip(raw.start_us.tolist(), values, strict=True))
    starts = rendered.start_us.tolist()
    common = [row for row, start in enumerate(starts) if start in written and start + WINDOW_US in written]
    assert len(common) > 0.6 * len(rendered) > 20
    same, next_ = (
        np.abs(rendered.embeddings[common] - np.stack([written[starts[row] + shift] for row in common]))
        for shift in (0, WINDOW_US)
    )
    # The noise of a sample depends on the chunk that it is rendered in: windows agree but for it.
    assert np.median(same) < 0.02
    assert np.median(next_) > 0.1


def test_the_number_of_workers_changes_nothing() -> None:
    plan = BurstPlan(patients=20, bursts=2, burst_windows=2, hours=0.5, seed=3)
    one, two = render_windows(Samples(), plan), render_windows(Samples(), plan, workers=2)
    np.testing.assert_array_equal(one.embeddings, two.embeddings)
    np.testing.assert_array_equal(one.inputs, two.inputs)
