"""Shares add up, the real corpus comes first, and no seed of an experiment or of the probe can be trained on."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.experiments import EXPERIMENTS
from pipeline.foundation.errors import ConfigError
from pipeline.pretraining.data import SYNTHETIC_PROBE_SEED, epoch_windows
from pipeline.pretraining.mix import FIRST_SEED, PROBE_SEED, CorpusMix, corpora, real_waveforms
from pipeline.pretraining.probing.shape import CHOOSING
from pipeline.windows.cutting import WindowConfig

SMALL = CorpusMix(
    synthetic_share=0.3, synthetic_patients=4, synthetic_hours=0.1, families_share=0.2, families_patients=40
)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    pleth = rng.standard_normal((6, 4800)).astype(np.float16)
    names = np.array([f"r{i}" for i in range(6)])
    path = tmp_path / "pleth.npz"
    np.savez(path, pleth=pleth.ravel(), length=np.full(6, 4800), record=names)
    return path


def test_real_ppg_leads_and_every_corpus_gives_its_share(archive: Path, tmp_path: Path) -> None:
    pairs = corpora(real_waveforms(archive), tmp_path / "made", SMALL, validation_share=0.2, seed=0)
    assert [training.name for training, _ in pairs] == ["challenge2015", "synthetic", "pulse_families"]
    assert [training.share for training, _ in pairs] == pytest.approx([0.5, 0.3, 0.2])
    windows, _ = epoch_windows([training for training, _ in pairs], 0, 0, 20, WindowConfig())
    assert len(windows) == 10 + 6 + 4


def test_without_real_ppg_the_rest_fills_the_epoch(tmp_path: Path) -> None:
    pairs = corpora(None, tmp_path / "made", SMALL, validation_share=0.2, seed=0)
    assert [training.share for training, _ in pairs] == pytest.approx([0.6, 0.4])
    nothing = CorpusMix(synthetic_share=0.0)
    with pytest.raises(ConfigError, match="nothing to train on"):
        corpora(None, tmp_path / "none", nothing, validation_share=0.2, seed=0)


def test_of_made_up_ppg_only_a_few_hours_are_held_out(tmp_path: Path) -> None:
    many = CorpusMix(synthetic_share=0.0, families_share=0.5, families_patients=4000)
    ((training, held_out),) = corpora(None, tmp_path, many, validation_share=0.1, seed=0)
    assert len(held_out.records) == round(6 * 3600 / 156)
    assert len(training.records) + len(held_out.records) == 4000


def test_no_seed_that_anything_is_judged_on_can_be_trained_on() -> None:
    judged = {build().cohort.seed for build in EXPERIMENTS.values()} | {CHOOSING.seed, SYNTHETIC_PROBE_SEED}
    assert PROBE_SEED == SYNTHETIC_PROBE_SEED
    assert all(seed < FIRST_SEED or seed == PROBE_SEED for seed in judged)
    for seed in judged:
        with pytest.raises(ValueError, match=f"synthetic_seed = {seed}"):
            CorpusMix(synthetic_seed=seed)
        with pytest.raises(ValueError, match=f"families_seed = {seed}"):
            CorpusMix(families_seed=seed)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"synthetic_share": -0.1}, r"synthetic_share = -0\.1"),
        ({"families_share": 1.0}, r"families_share = 1\.0"),
        ({"synthetic_share": 0.6, "families_share": 0.4}, "leave nothing"),
        ({"synthetic_patients": 1}, "synthetic_patients = 1"),
        ({"synthetic_hours": 0.0}, r"synthetic_hours = 0\.0"),
        ({"families_patients": 0}, "families_patients = 0"),
    ],
)
def test_impossible_mixes_are_refused(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CorpusMix(**wrong)
