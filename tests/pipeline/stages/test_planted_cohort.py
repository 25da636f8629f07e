"""Planted cohorts: parts of one are nested, and one with emulated embeddings is the same patients without waveforms."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.cohort.splits import Splits, split_subjects
from pipeline.emulation.fit import emulator_key
from pipeline.emulation.model import emulator_folder
from pipeline.evaluation.recovery_conditions import Condition
from pipeline.experiments import CohortConfig, ExperimentConfig, experiment
from pipeline.foundation.errors import CheckpointError, LeakError, MissingArtifactError
from pipeline.foundation.schema import QUALITY_COLUMNS
from pipeline.sources.synthetic.plan import CohortSize
from pipeline.stages import planted_cohort as stage
from pipeline.stages.embed import experiment_encoder
from pipeline.stages.planted_cohort import EmbeddedCohort, checked_emulator, divided, embedded_cohort, reduced
from pipeline.testing.emulators import handmade_emulator

NAME = "ppg_gpt_1m+mean"


@pytest.fixture
def config() -> ExperimentConfig:
    size = CohortSize(n_patients=8, hours_low=3.0, hours_high=4.0)
    return dataclasses.replace(
        experiment("recovery"), encoder=f"emulated:{NAME}", cohort=CohortConfig(size=size, seed=7)
    )


def save_emulator(base: Path, config: ExperimentConfig, width: int, of: str = NAME) -> None:
    encoder = experiment_encoder(dataclasses.replace(config, encoder=of))
    handmade_emulator(width=width, key=emulator_key(encoder, config.window)).save(emulator_folder(base, NAME))


def emulated(config: ExperimentConfig, root: Path, width: int) -> EmbeddedCohort:
    save_emulator(root, config, width)
    condition = Condition(name="coupling 1", coupling=1.0)
    emulator = checked_emulator(config, root)
    return embedded_cohort(config, condition, root / "cohort", root / f"store{width}", emulator)


def test_emulated(tmp_path: Path, config: ExperimentConfig) -> None:
    cohort = emulated(config, tmp_path, 8)
    assert not list(tmp_path.rglob("*.dat"))
    assert cohort.embedding.windows_now == 0
    assert cohort.embedding.windows > 8 * 3 * 60
    assert {entry.encoding.encoder_name[:9] for entry in cohort.store.manifest().values()} == {"emulated:"}
    assert sum(cohort.splits.counts.values()) == 8
    assert set(cohort.aligned.examples["patient_id"]) <= set(cohort.truth.draws["patient_id"].astype(str))


def test_every_width_has_the_same_windows(tmp_path: Path, config: ExperimentConfig) -> None:
    """So that encoders are compared on the same draws."""
    few, many = (emulated(config, tmp_path, width) for width in (8, 12))
    for patient in few.splits.patients("train"):
        one, other = few.store.read(patient), many.store.read(patient)
        assert np.array_equal(one.start_us, other.start_us)
        drawn = QUALITY_COLUMNS.index("spectral_concentration")  # after the embeddings, of the same generator
        assert np.array_equal(np.delete(one.quality, drawn, 1), np.delete(other.quality, drawn, 1))
        assert one.quality.shape == other.quality.shape


def test_an_emulator_is_asked_for_by_its_encoders_name(tmp_path: Path, config: ExperimentConfig) -> None:
    assert checked_emulator(dataclasses.replace(config, encoder=NAME), tmp_path) is None
    with pytest.raises(
        MissingArtifactError, match=r"python -m pipeline emulator --set encoder=ppg_gpt_1m\+mean"
    ):
        checked_emulator(config, tmp_path)
    save_emulator(tmp_path, config, 8, of="ppg_gpt_1m+layers")
    with pytest.raises(CheckpointError, match="was fitted for another encoder"):
        checked_emulator(config, tmp_path)


def test_smaller_cohorts_are_nested_and_share_their_test_patients():
    whole = Splits(
        members={
            "train": tuple(f"{i:02d}" for i in range(20)), "validation": ("a",), "calibration": ("b",), "test": ("c",),
        }
    )  # fmt: skip
    half, quarter = reduced(whole, 0.5), reduced(whole, 0.25)
    assert (len(half.patients("train")), len(quarter.patients("train"))) == (10, 5)
    assert set(quarter.patients("train")) < set(half.patients("train")) < set(whole.patients("train"))
    for part in (half, quarter):
        assert part.patients("test") == whole.patients("test")
        assert part.patients("validation") == whole.patients("validation")
    assert reduced(whole, 1.0).hash == whole.hash


def test_fewer_patients_judge_and_they_are_the_same_for_every_size():
    sizes = {"train": 30, "validation": 15, "calibration": 5, "test": 30}
    whole = Splits(
        members={name: tuple(f"{name[:2]}{i:02d}" for i in range(size)) for name, size in sizes.items()}
    )
    third, small = reduced(whole, 1.0, 10), reduced(whole, 0.1, 10)
    assert third.counts == {"train": 30, "validation": 5, "calibration": 35, "test": 10}
    assert small.counts == {"train": 3, "validation": 5, "calibration": 62, "test": 10}
    for name in ("validation", "test"):
        assert small.patients(name) == third.patients(name)
        assert set(third.patients(name)) < set(whole.patients(name))
    assert reduced(whole, 1.0, 30).hash == reduced(whole, 1.0).hash == whole.hash, "few enough judge"


def test_what_is_written_is_read_without_a_change(
    tmp_path: Path, config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trainings side by side read one cohort: a process that wrote would change it under the others' eyes."""
    first = emulated(config, tmp_path, 8)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    condition, emulator = Condition(name="coupling 1", coupling=1.0), checked_emulator(config, tmp_path)
    asked: list[list[str]] = []
    monkeypatch.setattr(stage, "split_subjects", lambda p, c: asked.append(p) or split_subjects(p, c))
    again = embedded_cohort(
        config, condition, tmp_path / "cohort", tmp_path / "store8", emulator, written=True
    )
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
    assert len(asked) == 1, "divided once"
    assert again.splits.hash == first.splits.hash == divided(config, condition).hash
    assert again.embedding == first.embedding
    pd.testing.assert_frame_equal(again.aligned.examples, first.aligned.examples)


def test_a_division_is_refused_before_anything_is_written(
    tmp_path: Path, config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(experiment: ExperimentConfig, splits: Splits) -> None:
        assert sum(splits.counts.values()) == 8
        raise LeakError("learned from its judges")

    monkeypatch.setattr(stage, "refuse_division", refuse)
    with pytest.raises(LeakError, match="learned from its judges"):
        embedded_cohort(
            config, Condition(name="coupling 1", coupling=1.0), tmp_path / "cohort", tmp_path / "store"
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("keep_waveforms", "writer", "folder"),
    [(True, "write_cohort", "cohort"), (False, "embed_rendered_once", "store_waveforms")],
)
def test_a_rendered_cohort_has_one_writer(
    tmp_path: Path, config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch, keep_waveforms: bool, writer: str,
    folder: str,
) -> None:  # fmt: skip
    def write(*_: object, **__: object) -> None:
        raise InterruptedError(*(path.name for path in tmp_path.glob(".*.lock")))

    monkeypatch.setattr(stage, writer, write)
    rendered, condition = (
        dataclasses.replace(config, encoder=NAME),
        Condition(name="coupling 1", coupling=1.0),
    )
    with pytest.raises(InterruptedError, match=rf"^\.{folder}\.writing\.lock$"):
        embedded_cohort(
            rendered, condition, tmp_path / "cohort", tmp_path / "store", keep_waveforms=keep_waveforms
        )
    assert list(tmp_path.glob(".*.lock")) == []
