"""A rehearsal from end to end at its smallest: measured, resumable, in a folder of its own."""

import dataclasses
import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.__main__ import main
from pipeline.cohort.aligned import AlignedCohort
from pipeline.emulation.fit import emulator_key
from pipeline.experiments import ExperimentConfig, experiment
from pipeline.foundation.errors import ConfigError
from pipeline.rehearsal.measure import measured_here
from pipeline.rehearsal.plan import Rehearsal, RehearsalSize
from pipeline.rehearsal.run import other_sizes, rehearse, stages_of
from pipeline.rehearsal.sample import part_of, sampled_patients
from pipeline.rehearsal.table import growth_table, rehearsal_table
from pipeline.stages import provenance
from pipeline.stages.embed import experiment_encoder
from pipeline.testing.emulators import handmade_emulator
from pipeline.testing.notes import lacking, noted_files
from pipeline.training.run import TrainingRun

SIZE = RehearsalSize(patients=16, days=0.25, sample_steps=20_000, records=4, files=8)


def tiny(scorings: tuple[str, ...] = ("measured", "dense")) -> ExperimentConfig:
    """The smallest experiment, trained as `default` is, without lines: it learns nothing here that matters."""
    config = experiment("tiny")
    training = dataclasses.replace(config.training, fit_lines=False, batch_pieces=4)
    return dataclasses.replace(config, training=training, scorings=scorings, encoder="ppg_gpt_1m_long+mean")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a handmade emulator of the experiment's encoder."""
    folder = tmp_path_factory.mktemp("artifacts")
    config = tiny()
    key = emulator_key(experiment_encoder(config), config.window)
    handmade_emulator(width=8, key=key).save(folder / "emulators" / config.encoder)
    return folder


def planned(base: Path, size: RehearsalSize = SIZE) -> Rehearsal:
    config = tiny()
    return Rehearsal(experiment=config, size=size, base=base, emulator=base / "emulators" / config.encoder)


@pytest.fixture(scope="module")
def done(base: Path) -> Rehearsal:
    """The rehearsal, run once; another experiment's artefacts lie beside it."""
    (base / "tiny").mkdir()
    (base / "tiny" / "kept").write_text("another experiment's")
    rehearsal = planned(base)
    provenance._tell_once.cache_clear()
    with pytest.MonkeyPatch.context() as watch:
        watch.setattr(provenance, "_tell_once", lambda workspace, what: pytest.fail(what))
        list(rehearse(rehearsal, measured_here))
    return rehearsal


def test_its_stages_leave_records_and_every_file_its_note(done: Rehearsal) -> None:
    """None of them finds anything "made before provenance records": the fixture would have failed."""
    assert len(noted_files(done.root)) > 20
    assert lacking(done.root) == {}
    stages = {path.stem for path in (done.root / "provenance").iterdir()}
    assert {"ppg_embeddings", "waveform_catalog", "predictions", "evaluation", "report"} <= stages
    generated = json.loads((done.root / "provenance" / "ppg_embeddings.json").read_text())
    assert generated["config"]["encoder"] == "emulated:ppg_gpt_1m_long+mean"


def test_every_stage_is_measured(done: Rehearsal) -> None:
    rows = {row.stage: row for row in rehearse(done)}
    assert list(rows) == list(stages_of(done))
    assert all(row.peak_mb and row.peak_mb > 50 for row in rows.values())
    assert rows["generate"].written_mb > 16 * 600 * 8 * 2 / 1e6
    assert rows["generate"].counts["patients"] == 16
    assert rows["train (sample)"].whole_seconds > 0
    assert rows["dense sums"].counts["points"] > 16 * 10
    assert rows["catalog"].counts == {"records": 4, "left_out": 0}
    assert rows["plan embedding"].counts["patients"] == 1
    table = rehearsal_table(list(rows.values()))
    assert "| evaluate |" in table
    assert "one method and seed" in table


def test_training_validation_and_saving_are_timed_apart(done: Rehearsal) -> None:
    rows = {row.stage: row for row in rehearse(done)}
    trained, validated = rows["train (sample)"], rows["validate (sample)"]
    times = (trained.seconds, validated.seconds, trained.counts["saving_seconds"])
    assert min(times) > 0
    assert sum(times) <= trained.wall_seconds
    assert trained.counts["steps_per_second"] == pytest.approx(
        trained.counts["steps"] / trained.seconds, abs=0.1
    )
    assert validated.counts["steps_per_second"] > 0
    scored = rows["score (sample)"]
    assert 0 < scored.seconds <= scored.wall_seconds
    explained = rows["explain (sample)"]
    assert explained.counts["patients"] == scored.counts["patients"]
    assert explained.counts["shares"] > 0
    assert explained.counts["survival_rows"] > 0
    share = explained.counts["patients_of_all"] / explained.counts["patients"]
    assert explained.whole_seconds == pytest.approx(explained.seconds * share, abs=0.051)  # rounded


def test_slow_saving_is_neither_training_nor_validation(
    done: Rehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = TrainingRun._save

    def slow(self: TrainingRun, *arguments: object) -> None:
        time.sleep(5)
        save(self, *arguments)

    monkeypatch.setattr(TrainingRun, "_save", slow)
    again = measured_here("train (sample)", partial(stages_of(done)["train (sample)"], done))
    validated = json.loads((done.root / "sample.json").read_text())["validation_seconds"]
    assert again.counts["saving_seconds"] >= 10  # best and last
    assert 0 < again.seconds < 5
    assert 0 < validated < 5
    assert again.seconds + validated + again.counts["saving_seconds"] <= again.wall_seconds


def test_the_jobs_own_artefacts_come_out(done: Rehearsal) -> None:
    evaluation = pd.read_parquet(done.workspace.evaluation)
    assert set(evaluation["scoring"]) == {"measured", "dense"}
    assert {"mt_pcs", "mt_pcs_twin", "locf"} <= set(evaluation["method"])
    ranked = evaluation.loc[(evaluation["aggregation"] == "pooled") & (evaluation["scoring"] == "measured")]
    mean = ranked.groupby("method")["mae"].mean()
    assert mean["mt_pcs"] < mean["lstm"], "planted errors are as large as they were planted"
    assert done.workspace.report.stat().st_size > 100_000
    assert "emulated:" in done.workspace.report.read_text()


def test_it_touches_nothing_beside_its_folder(done: Rehearsal) -> None:
    assert (done.base / "tiny" / "kept").read_text() == "another experiment's"
    assert sorted(path.name for path in done.base.iterdir()) == ["emulators", "rehearsal", "tiny"]


def test_what_is_done_is_kept_and_what_is_missing_runs_again(done: Rehearsal) -> None:
    files = {name: done.row_file(name) for name in stages_of(done)}
    before = {name: path.stat().st_mtime_ns for name, path in files.items()}
    files["split"].unlink()
    list(rehearse(done))  # in a process of its own
    after = {name: path.stat().st_mtime_ns for name, path in files.items()}
    assert {name for name in files if before[name] != after[name]} == {"split"}


def test_another_rehearsal_in_the_same_folder_is_refused(done: Rehearsal) -> None:
    other = planned(done.base, dataclasses.replace(SIZE, seed=1))
    with pytest.raises(ConfigError, match=r"another seed: remove it first with .* --clean"):
        next(rehearse(other))


def test_growth_is_shown_beside_another_size(done: Rehearsal) -> None:
    rows = list(rehearse(done))
    more = planned(done.base, dataclasses.replace(SIZE, patients=64))
    found = other_sizes(more)
    assert list(found) == [16]
    table = growth_table(
        64,
        [
            dataclasses.replace(row, wall_seconds=row.wall_seconds * 4, cpu_seconds=row.cpu_seconds * 3)
            for row in rows
        ],
        found,
    )
    assert "| 16 patients | 64 patients |" in table
    assert "x 4.0, x 3.0" in table


def test_a_part_of_the_cohort_has_the_whole_ones_targets(done: Rehearsal) -> None:
    whole = AlignedCohort.load(done.workspace.aligned)
    chosen = sampled_patients(whole, list(whole.sequences["patient_id"]), 2000, 0)
    assert 1 <= len(chosen) < 16
    part = part_of(whole, chosen)
    place = {piece: row for row, piece in enumerate(whole.pieces["piece_id"])}
    for row, piece in enumerate(part.pieces["piece_id"]):
        one, other = part.piece_targets(row), whole.piece_targets(place[piece])
        np.testing.assert_array_equal(one.value, other.value)
        np.testing.assert_array_equal(one.weight, other.weight)
    assert set(part.examples["patient_id"]) <= set(chosen)


def test_clean_removes_a_rehearsal_and_nothing_else(base: Path, tmp_path: Path) -> None:
    foreign = planned(tmp_path)
    foreign.root.mkdir(parents=True)
    (foreign.root / "somebody's").write_text("file")
    with pytest.raises(ConfigError, match="is no rehearsal's folder"):
        foreign.clean()
    with pytest.raises(ConfigError, match="is no rehearsal's folder"):
        foreign.claim("x")
    (foreign.root / "somebody's").unlink()
    foreign.claim("x")
    assert foreign.clean()
    assert not foreign.root.exists()
    assert not foreign.clean()


def test_the_command_line_refuses_before_any_work(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["rehearse", "--experiment", "tiny", "--artifacts", str(tmp_path)]
    assert main(arguments) == 1
    fit = (
        f"no emulator is fitted; run: python -m pipeline emulator --experiment tiny --artifacts {tmp_path}\n"
    )
    assert capsys.readouterr().err.endswith(fit)
    assert main([*arguments, "--sample-steps", "3000000"]) == 1
    assert "sample_steps = 3000000 must lie in 1000..2000000" in capsys.readouterr().err
    assert main([*arguments, "--set", "training.device=cuda:99"]) == 1
    assert 'training.device = "cuda:99"' in capsys.readouterr().err or torch.cuda.is_available()
    assert main([*arguments, "--days", "9"]) == 1
    assert "days = 9.0 must lie in 0.25..7" in capsys.readouterr().err
    assert (
        main(
            [
                *arguments,
                "--set",
                "encoder=ppg_gpt_1m",
                "--emulator",
                str(base / "emulators" / tiny().encoder),
            ]
        )
        == 1
    )
    assert "was fitted for another encoder" in capsys.readouterr().err
    assert not (tmp_path / "rehearsal").exists()
    assert main([*arguments, "--clean"]) == 0
