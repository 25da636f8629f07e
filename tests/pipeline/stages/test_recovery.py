"""Both regimes on a handful of patients, to their tables, texts and pictures. Real runs are in docs/recovery.md."""

import dataclasses
import logging
import shutil

import pandas as pd
import pytest

from pipeline.emulation.fit import emulator_key
from pipeline.emulation.model import emulator_folder
from pipeline.evaluation.recovery_by import HOURS_RECORDED, KNOWN_DRAWS
from pipeline.evaluation.recovery_conditions import CONDITIONS, LONG_CONDITIONS
from pipeline.experiments import experiment
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.schema import HOUR_US
from pipeline.report.recovery_text import recovery_text, verdicts
from pipeline.sources.synthetic.plan import CohortSize
from pipeline.stages import recovery
from pipeline.stages.embed import experiment_encoder
from pipeline.stages.recovery import run_long_recovery, run_recovery
from pipeline.stages.recovery_regimes import LongCohorts
from pipeline.testing.emulators import handmade_emulator
from pipeline.testing.notes import lacking, noted_files

pytestmark = pytest.mark.slow
SMALL = {
    "encoder": "ppg_gpt_1m_random",
    "cohort.size.n_patients": "20", "cohort.size.hours_low": "1.5", "cohort.size.hours_high": "2.5",
    "splits.fractions": "[0.5, 0.2, 0.3]", "model.d_model": "8", "model.n_blocks": "1", "model.d_state": "2",
    "model.trunk_width": "8", "model.hidden": "8", "training.epochs": "2", "training.learning_rate": "0.005",
    "evaluation.bootstrap": "1000", "evaluation.level": "0.95",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("recovery")
    nulls = [dataclasses.replace(c, seeds=2 if c.null == "a" else 1) for c in CONDITIONS if c.null]
    config = experiment("recovery", SMALL)
    return config, root, nulls, run_recovery(config, root, nulls)


def without_what_made_it(text):
    """Leave out of a table what is ours of the paper's methods, and what made each method's estimates."""
    blocks = text.split("\n\n")
    return "\n\n".join(b for b in blocks if "model.history_skip" not in b and "numbers" not in b)


def test_nulls_are_judged(run):
    *_, table = run
    assert set(table["condition"]) == {"coupling 0 (null A)", "null B"}
    assert set(table["protocol"]) == {"start", "anchored"}
    for name in (
        "r2_mt_pcs",
        "r2_mt_pcs_twin",
        "r2_lstm",
        "r2_oracle",
        "added",
        "r2_lines",
        "r2_mt_assim",
        "r2_ideal_reader",
        "r2_ideal_on_embedding",
        "r2_ideal_results",
        "loss_encoder",
    ):
        assert table[name].notna().any(), name
    # So few draws give no line, hence no reading: filters and their twin are the same, and nothing is compared.
    assert table["added_assim"].isna().all()
    assert table["same_assim"].all()
    judged = verdicts(table)
    assert len(judged) == 6
    for verdict in judged:  # two draws a lab show nothing: what is judged is the judging
        told, _, same = verdict.text.partition("; the twin's own estimates for ")
        assert bool(same) == ("Assimilation" in told), recovery_text(table)
        found, _, unknown = told.partition("; not estimable for ")
        assert verdict.met == (found.endswith("for none") and not unknown), recovery_text(table)
    for verdict in judged:
        if "null B" in verdict.text:
            assert verdict.text.partition(";")[0].endswith("for none"), recovery_text(table)


def test_the_result_is_on_disk_and_a_second_run_trains_nothing(run):
    config, root, nulls, table = run
    assert pd.read_parquet(root / "recovery.parquet").equals(table)
    told = (root / "recovery.txt").read_text()
    assert without_what_made_it(told) == recovery_text(table)
    assert told.startswith("ST+PCS and MT+PCS show each lab's own layer the history")
    for sentence in ("MT+PCS: a network of", "Kalman filters of 11 numbers each over all results (100 % of"):
        assert " ".join(told.split()).count(sentence) >= len(nulls), "it stands under each condition"
    assert {path.parent.name for path in (root / "conditions").rglob("scores.parquet")} >= {
        "mt_pcs",
        "mt_pcs_1",
    }
    assert not list((root / "conditions").rglob("mt_assim_lines_1"))  # a fit without chance is made once
    assert not list(root.glob("*.svg"))  # recovery of nothing is no picture
    assert list((root / "conditions").rglob("mt_assim_1/scores.parquet"))  # and counts for other seeds
    assert not list((root / "conditions").rglob("mt_assim_1/best"))
    before = {path: path.stat().st_mtime_ns for path in (root / "conditions").rglob("*") if path.is_file()}
    assert before
    assert run_recovery(config, root, nulls).equals(table)
    assert {p: p.stat().st_mtime_ns for p in (root / "conditions").rglob("*") if p.is_file()} == before


def test_trainings_side_by_side_come_to_the_same(run):
    """Two methods are taken away, and trained anew by two processes: equal but for how threads round."""
    config, root, nulls, table = run
    first = sorted((root / "conditions").iterdir())[0]
    kept = {name: pd.read_parquet(first / name / "scores.parquet") for name in ("lines", "mt_assim")}
    for name in (*kept, "judged"):
        shutil.rmtree(first / name)
    again = run_recovery(config, root, nulls, workers=2)
    for name, scores in kept.items():
        pd.testing.assert_frame_equal(pd.read_parquet(first / name / "scores.parquet"), scores, rtol=1e-3)
    pd.testing.assert_frame_equal(again, table, rtol=1e-2, atol=1e-3)
    assert lacking(root) == {}


def test_every_file_carries_its_note(run):
    _, root, *_ = run
    assert len(noted_files(root)) > 15
    assert lacking(root) == {}


SMALL_LONG = LongCohorts(
    rendered=CohortSize(n_patients=14, hours_low=1.5, hours_high=2.5),
    emulated=CohortSize(n_patients=14, hours_low=6.0, hours_high=8.0),
)
FEW = ("lines", "mt_assim_twin", "mt_assim")


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    base = tmp_path_factory.mktemp("long")
    config = experiment(
        "recovery",
        SMALL | {"evaluation.bootstrap": "100", "lines.slow_features": "8", "assimilation.features": "8"},
    )
    encoder = experiment_encoder(config)
    handmade_emulator(width=8, key=emulator_key(encoder, config.window)).save(
        emulator_folder(base, config.encoder)
    )
    conditions = [dataclasses.replace(LONG_CONDITIONS[i], seeds=2) for i in (0, 2, 3)]
    conditions[2] = dataclasses.replace(conditions[2], train_share=2 / 3)
    table = run_long_recovery(config, base / "recovery", SMALL_LONG, conditions, methods=FEW)
    return config, base / "recovery", conditions, table


def test_the_regime_long_judges_rendered_and_emulated_recordings(long_run):
    _, root, conditions, table = long_run
    assert list(dict.fromkeys(table["condition"])) == [condition.name for condition in conditions]
    assert list(dict.fromkeys(table["train_patients"])) == [7, 5]
    told = (root / "recovery_long.txt").read_text()
    assert without_what_made_it(told) == recovery_text(table)
    assert told.count("\nLines: ") == len(conditions)
    assert not list(root.rglob("*.dat"))
    assert (root / "recovery_long_train_patients.svg").read_text().startswith("<svg")


def test_every_draw_knows_its_circumstances(long_run):
    _, root, *_ = long_run
    predictions = pd.concat(
        pd.read_parquet(path) for path in (root / "conditions").rglob("judged/*/predictions.parquet")
    )
    assert predictions[[KNOWN_DRAWS, HOURS_RECORDED]].notna().all().all()
    assert (predictions[KNOWN_DRAWS] >= 1).all()  # a scored draw has an earlier result
    assert predictions[HOURS_RECORDED].between(0, 9).all()
    of_start = predictions.loc[predictions["protocol"] == "start"]
    since = (of_start["sampled_at"] - of_start["t0"]).dt.total_seconds() * 1e6 / HOUR_US
    assert (of_start[HOURS_RECORDED] > since).all()


def test_a_killed_run_goes_on_with_the_next_training(long_run, monkeypatch):
    config, root, conditions, table = long_run
    whole = next(path for path in (root / "conditions").iterdir() if (path / "lines_1").exists())
    shutil.rmtree(whole / "lines_1")
    for judged in (root / "conditions").rglob("judged"):
        shutil.rmtree(judged)
    trained = []
    train = recovery.train

    def noting(method, *rest, **more):
        trained.append(method)
        return train(method, *rest, **more)

    monkeypatch.setattr(recovery, "train", noting)
    again = run_long_recovery(config, root, SMALL_LONG, conditions, methods=FEW)
    assert trained == ["lines"]
    assert again.equals(table)


def test_long_trainings_side_by_side_come_to_the_same(long_run):
    """Of every condition two are taken away; processes that begin at once read the cohort that lies there."""
    config, root, conditions, table = long_run
    for condition in (root / "conditions").iterdir():
        for name in ("judged", "lines", "lines_1"):
            shutil.rmtree(condition / name)
    again = run_long_recovery(config, root, SMALL_LONG, conditions, methods=FEW, workers=2)
    assert len(list((root / "conditions").rglob("lines_1/scores.parquet"))) == len(conditions)
    pd.testing.assert_frame_equal(again, table, rtol=1e-2, atol=1e-3)


def test_a_part_with_too_few_training_patients_is_left_out_and_named(long_run, caplog):
    config, root, conditions, table = long_run
    few = dataclasses.replace(conditions[2], name="emulated, a tenth", train_share=0.1)
    with caplog.at_level(logging.WARNING):
        again = run_long_recovery(config, root, SMALL_LONG, [*conditions, few], methods=FEW)
    assert list(dict.fromkeys(again["condition"])) == list(dict.fromkeys(table["condition"]))
    assert "emulated, a tenth is left out: 1 training patients, of 5 at least" in caplog.text
    with pytest.raises(ConfigError, match="5 are needed: make the cohort larger"):
        run_long_recovery(config, root, SMALL_LONG, [few], methods=FEW)
