"""The study runs end to end, goes on where it stopped, and refuses what it cannot do before any work."""

from pathlib import Path

import pandas as pd
import pytest

from pipeline.__main__ import main
from pipeline.experiments import experiment
from pipeline.stages.scale_study import ScaleStudy, run_scale_study

SMALL = {"evaluation.bootstrap": "100"}
ENCODERS = ("ppg_gpt_1m_random+mean", "ppg_gpt_1m_random+layers")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ScaleStudy, str]:
    root = tmp_path_factory.mktemp("study")
    study = ScaleStudy(encoders=ENCODERS[:1], patients=24, hours=(1.5, 2.5))
    return root, study, run_scale_study(experiment("recovery", SMALL), root, study)


@pytest.mark.slow
def test_outcome(run: tuple[Path, ScaleStudy, str]) -> None:
    root, _, text = run
    table = pd.read_parquet(root / "scale_study.parquet")
    assert set(table["encoder"]) == {ENCODERS[0]}
    assert (table["width"] == 128).all()
    assert (table["windows_per_second"] > 0).all()
    assert table["r2_mt_pcs"].notna().any()
    assert (root / "scale_study.txt").read_text() == text
    assert "seed 7" in text


@pytest.mark.slow
def test_a_longer_list_does_only_what_is_new(run: tuple[Path, ScaleStudy, str]) -> None:
    root, *_ = run
    before = {p: p.stat().st_mtime_ns for p in (root / "encoders").rglob("*") if p.is_file()}
    assert before
    both = ScaleStudy(encoders=ENCODERS, patients=24, hours=(1.5, 2.5))
    text = run_scale_study(experiment("recovery", SMALL), root, both)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    table = pd.read_parquet(root / "scale_study.parquet")
    assert list(dict.fromkeys(table["encoder"])) == list(both.encoders)
    assert len(list((root / "encoders").iterdir())) == 2
    assert run_scale_study(experiment("recovery", SMALL), root, both) == text


def test_the_recipes() -> None:
    base = experiment("recovery")
    lines = ScaleStudy(encoders=("a",)).experiment(base, "a")
    assert lines.training.fit_lines
    assert (lines.training.epochs, lines.training.batches_per_epoch) == (1, 1)
    whole = ScaleStudy(encoders=("a",), recipe="mt_pcs", seed=8).experiment(base, "a")
    assert (whole.training, whole.model, whole.encoder) == (base.training, base.model, "a")
    assert (whole.cohort.seed, whole.cohort.coupling) == (8, 1.0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--encoder", "ppg_gpt_9m"], "there is no encoder 'ppg_gpt_9m'"),
        (["--encoder", "pulse_features", "--encoder", "pulse_features"], "must be different names"),
        (
            ["--encoder", "pulse_features", "--encoder", "emulated:pulse_features"],
            "before all of them or none",
        ),
        (
            ["--encoder", "emulated:pulse_features"],
            "python -m pipeline emulator --set encoder=pulse_features",
        ),
        (["--encoder", "emulated:ppg_gpt_1m+median"], "there is no +median"),
        (["--encoder", "ppg_gpt_1m+median"], "there is no +median"),
        (["--encoder", "ppg_gpt_1m_random+to64"], "has no projection"),
        (["--encoder", "pulse_features", "--patients", "0"], "n_patients must lie in"),
        (["--encoder", "pulse_features", "--hours", "4", "2"], "0 < hours_low <= hours_high"),
        (["--encoder", "pulse_features", "--seed", "20150003"], "may have been pretrained on"),
        (["--encoder", "pulse_features", "--recipe", "nets"], "recipe = 'nets' must be one of lines, mt_pcs"),
    ],
)
def test_bad_input_is_refused_before_a_cohort_is_written(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scale-study", "--artifacts", str(tmp_path), *arguments]) == 1
    assert said in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.dat"))
    assert not list(tmp_path.rglob("cohort_*"))
