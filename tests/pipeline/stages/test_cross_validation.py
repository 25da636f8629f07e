"""Cross-validation on a tiny cohort: every patient once, nothing of the tested fold in what is trained, resumable."""

import json
from pathlib import Path

import pandas as pd
import pytest

from pipeline.__main__ import main
from pipeline.cohort.splits import cross_validation_divisions
from pipeline.experiments import experiment
from pipeline.stages import cross_validation as stage

SMALL = {
    "encoder": "ppg_gpt_1m_random", "cohort.size.n_patients": "8", "cohort.size.hours_low": "4",
    "cohort.size.hours_high": "5", "evaluation.bootstrap": "20", "assimilation.network.folds": "0",
}  # fmt: skip
STAGES = ("cohort", "catalog", "embed", "labs", "split", "normalize", "align")
ASKED = "cross-validate --method lines --method mt_assim --folds 3"


def run(command: str, artifacts: Path) -> int:
    sets = [word for field, value in SMALL.items() for word in ("--set", f"{field}={value}")]
    return main([*command.split(), "--experiment", "tiny", "--artifacts", str(artifacts), *sets])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    artifacts = tmp_path_factory.mktemp("made")
    assert [run(command, artifacts) for command in (*STAGES, ASKED)] == [0] * (len(STAGES) + 1)
    return artifacts


def test_every_draw_is_scored_once_a_method_and_the_table_says_how(made: Path) -> None:
    place = made / "tiny" / "cross_validation"
    table = pd.read_parquet(place / "predictions.parquet")
    assert {"locf", "shrunk_locf", "lines", "mt_assim"} <= set(table["method"])
    draws = ["method", "protocol", "patient", "lab", "sampled_at"]
    assert not table.duplicated(draws).any()
    examples = pd.read_parquet(made / "tiny" / "aligned" / "examples.parquet")
    assert set(table["patient"]) == set(examples["patient_id"])
    assert table["method"].value_counts().nunique() == 1
    text = (place / "comparison.txt").read_text()
    assert "Cross-validated over 3 folds of subjects" in text
    assert "Assimilation minus Shrunk LOCF" in text
    assert "What made the estimates: numbers of the first fold's methods" in text
    told = [
        line
        for line in text.splitlines()
        if "numbers" in line and line.startswith(("Lines: ", "Assimilation: "))
    ]
    assert len(told) == 2
    assert any("% of the variance" in line for line in told)  # lines are constants here
    assert not any(patient in text for patient in set(table["patient"]) if len(patient) > 4)  # no id


def test_a_model_knows_its_own_folds_training_patients_alone(made: Path) -> None:
    aligned = pd.read_parquet(made / "tiny" / "aligned" / "sequences.parquet")
    patients = sorted(set(aligned["patient_id"]))
    divisions = cross_validation_divisions(patients, 3, experiment("tiny", SMALL).splits)
    configs = sorted(
        (made / "tiny" / "cross_validation" / "trained").glob("*/mt_assim/fold*_seed0/best/config.json")
    )
    assert len(configs) == 3
    assert [json.loads(path.read_text())["scaler"]["split_hash"] for path in configs] == [
        s.hash for s in divisions
    ]


def test_what_is_finished_is_kept(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.training.method.train", lambda *rest, **named: pytest.fail("trained again"))
    assert run(ASKED, made) == 0
    assert "Cross-validated over 3 folds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("cross-validate --folds 5", "folds = 5 of 8 patients: at least 2 folds"),
        ("cross-validate --method mt_pc", "There is no method 'mt_pc' to train"),
    ],
)
def test_what_cannot_be_is_one_line(
    command: str, said: str, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, made) == 1
    told = capsys.readouterr().err
    assert said in told
    assert told.count("error:") == 1
    assert "Traceback" not in told


def test_without_an_alignment_it_says_what_to_run_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("cross-validate", tmp_path) == 1
    assert "lab_alignment" in capsys.readouterr().err
    assert stage.STAGE == "cross_validation"
