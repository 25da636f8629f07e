"""Cohorts of the regime long, and epochs of at most so many steps."""

import dataclasses
from pathlib import Path

import pytest

from pipeline.emulation.fit import emulator_key
from pipeline.emulation.model import emulator_folder
from pipeline.evaluation.recovery_conditions import LONG_CONDITIONS, Condition
from pipeline.experiments import ExperimentConfig, experiment
from pipeline.foundation.errors import MissingArtifactError
from pipeline.sources.synthetic.plan import CohortSize
from pipeline.stages.embed import experiment_encoder
from pipeline.stages.recovery_regimes import FEW_PIECES, LongCohorts, LongRegime, within_steps
from pipeline.testing.emulators import handmade_emulator

ENCODER = "ppg_gpt_1m+mean"
COHORTS = LongCohorts(
    rendered=CohortSize(n_patients=4, hours_low=0.2, hours_high=0.3),
    emulated=CohortSize(n_patients=8, hours_low=5.0, hours_high=6.0),
)


@pytest.fixture
def config() -> ExperimentConfig:
    return experiment("recovery", {"encoder": ENCODER, "splits.fractions": "[0.5, 0.25, 0.25]"})


@pytest.fixture
def regime(tmp_path: Path, config: ExperimentConfig) -> LongRegime:
    encoder = experiment_encoder(config)
    emulator = handmade_emulator(width=8, key=emulator_key(encoder, config.window))
    emulator.save(emulator_folder(tmp_path, ENCODER))
    return LongRegime(config, tmp_path / "recovery", COHORTS, emulates=True)


def test_sizes_are_those_of_the_docs() -> None:
    sizes = LongCohorts()
    assert (sizes.rendered.n_patients, sizes.rendered.hours_low, sizes.rendered.hours_high) == (160, 48, 96)
    assert (sizes.emulated.n_patients, sizes.emulated.hours_low, sizes.emulated.hours_high) == (
        1000,
        168,
        168,
    )


def test_a_missing_emulator_is_asked_for_before_any_work(tmp_path: Path, config: ExperimentConfig) -> None:
    with pytest.raises(MissingArtifactError, match="python -m pipeline emulator"):
        LongRegime(config, tmp_path / "recovery", COHORTS, emulates=True)
    assert not (tmp_path / "recovery").exists()
    LongRegime(config, tmp_path / "recovery", COHORTS, emulates=False)


def test_conditions_of_one_cohort_share_its_embeddings(regime: LongRegime) -> None:
    whole, part = (
        regime.cohort(condition)
        for condition in LONG_CONDITIONS
        if condition.emulated and condition.train_share in (1, 0.16)
    )
    assert whole.store.root == part.store.root
    assert set(part.splits.patients("train")) < set(whole.splits.patients("train"))
    assert part.splits.patients("test") == whole.splits.patients("test")
    assert len(list(regime.root.iterdir())) == 1
    assert not list(regime.root.rglob("*.dat"))
    assert regime.experiment(LONG_CONDITIONS[2]).encoder == f"emulated:{ENCODER}"


def test_training_patients_are_foretold(regime: LongRegime) -> None:
    for condition in (LONG_CONDITIONS[2], LONG_CONDITIONS[3]):
        assert regime.train_patients(condition) == regime.cohort(condition).splits.counts["train"]


def test_epochs_hold_at_most_so_many_steps(regime: LongRegime) -> None:
    cohort = regime.cohort(Condition(name="emulated", coupling=1.0, emulated=True))
    training = regime.base.training
    assert within_steps(training, cohort, most=2_000_000) == training  # hours are few enough
    pieces = cohort.aligned.pieces
    pieces = pieces.loc[pieces["patient_id"].isin(cohort.splits.patients("train"))]
    means = pieces.groupby("protocol")["n_steps"].mean()
    cut = within_steps(training, cohort, most=int(2.5 * FEW_PIECES * means.sum()))
    assert (cut.batch_pieces, cut.batches_per_epoch) == (FEW_PIECES, 2)
    assert dataclasses.replace(cut, batch_pieces=training.batch_pieces, batches_per_epoch=None) == training
    assert within_steps(training, cohort, most=1).batches_per_epoch == 1


def test_rendered_waveforms_are_gone(tmp_path: Path, config: ExperimentConfig) -> None:
    random = dataclasses.replace(config, encoder="ppg_gpt_1m_random")
    regime = LongRegime(random, tmp_path / "recovery", COHORTS, emulates=False)
    cohorts = [regime.cohort(condition) for condition in LONG_CONDITIONS if not condition.emulated]
    assert cohorts[0].store.root == cohorts[1].store.root
    assert cohorts[0].embedding.windows_now > 0
    assert cohorts[1].embedding.windows_now == 0
    assert [cohort.truth.coupling for cohort in cohorts] == [1.0, 0.0]
    assert not list(tmp_path.rglob("*.dat"))
