"""The check trains on both embeddings of one cohort, pairs their draws, and refuses before any work."""

from pathlib import Path

import pandas as pd
import pytest

from pipeline.__main__ import main
from pipeline.emulation.fit import emulator_key
from pipeline.experiments import ExperimentConfig, experiment
from pipeline.foundation.errors import MissingArtifactError
from pipeline.stages.embed import experiment_encoder
from pipeline.stages.emulation_check import EmulationCheck, run_emulation_check
from pipeline.stages.scale_study import ScaleStudy
from pipeline.store.embeddings import EmbeddingStore
from pipeline.testing.emulators import handmade_emulator
from pipeline.testing.notes import lacking

STUDY = ScaleStudy(encoders=("pulse_features",), patients=14, hours=(4.0, 5.0))
CHECK = EmulationCheck(study=STUDY, divisions=2, draws=2)


def config() -> ExperimentConfig:
    return experiment("recovery", {"evaluation.bootstrap": "20", "encoder": "pulse_features"})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """The folder of results, the emulator's, and the printed text."""
    base = tmp_path_factory.mktemp("check")
    encoder = experiment_encoder(config())
    key = emulator_key(encoder, config().window)
    handmade_emulator(width=encoder.width, key=key).save(base / "emulator")
    text = run_emulation_check(config(), base / "out", CHECK, base / "emulator", fit="fit it")
    return base / "out", base / "emulator", text


@pytest.mark.slow
def test_both_are_judged_on_the_same_draws(run: tuple[Path, Path, str]) -> None:
    root, _, text = run
    table = pd.read_parquet(root / "emulator_check.parquet")
    known = table.loc[table["rendered"].notna()]
    assert len(known) > 0
    assert known["difference"].to_numpy() == pytest.approx((known["emulated"] - known["rendered"]).to_numpy())
    readouts = pd.read_parquet(root / "emulator_check_readouts.parquet")
    assert set(readouts["latent"]) >= {"glucose", "tone"}
    assert readouts["spread"].min() > 0, "each draw of the emulator has a luck of its own"
    assert (root / "emulator_check.txt").read_text() == text
    assert (
        "pulse_features; 14 planted patients of 4 to 5 h, seed 7, coupling 1; method: fitted lines; 2 divisions"
        in text
    )
    assert lacking(root) == {}


@pytest.mark.slow
def test_each_division_holds_out_other_patients_alike_for_all(run: tuple[Path, Path, str]) -> None:
    root, _, _ = run
    tables = [pd.read_parquet(path) for path in sorted((root / "runs").rglob("predictions.parquet"))]
    assert len(tables) == 2 * (1 + 2), "two divisions, rendered and two draws"
    ours = [table.loc[table["method"] == "mt_pcs"] for table in tables]
    held_out = {frozenset(table["patient"]) for table in ours}
    assert len(held_out) == 2
    for patients in held_out:
        alike = [table for table in ours if frozenset(table["patient"]) == patients]
        assert len(alike) == 3
        assert len({tuple(table["truth"]) for table in alike}) == 1


@pytest.mark.slow
def test_draws_are_of_the_same_windows_and_differ(run: tuple[Path, Path, str]) -> None:
    root, _, _ = run
    folders = [path for path in (root / "stores").glob("*/*") if path.is_dir() and path.suffix != ".staging"]
    stores = [EmbeddingStore.open(folder) for folder in folders]
    assert len(stores) == 1 + 2
    events = pd.read_parquet(next((root / "runs").rglob("predictions.parquet")))
    patient = str(events["patient"].iloc[0])
    windows = [store.read(patient) for store in stores]
    assert len({tuple(one.start_us[:]) for one in windows}) == 1
    assert len({bytes(one.embeddings[:].tobytes()) for one in windows}) == 3


@pytest.mark.slow
def test_what_is_done_is_kept(run: tuple[Path, Path, str]) -> None:
    root, emulator, text = run
    before = {p: p.stat().st_mtime_ns for p in (root / "runs").rglob("*") if p.is_file()}
    assert before
    assert run_emulation_check(config(), root, CHECK, emulator, fit="fit it") == text
    assert {p: p.stat().st_mtime_ns for p in (root / "runs").rglob("*") if p.is_file()} == before


def test_a_missing_emulator_is_refused_before_a_cohort_is_written(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match="no emulator is fitted; run: fit it"):
        run_emulation_check(config(), tmp_path / "out", CHECK, tmp_path / "none", fit="fit it")
    assert not list(tmp_path.rglob("cohort_*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "python -m pipeline emulator --experiment recovery"),
        (["--patients", "0"], "emulator-check: CohortSize.n_patients must lie in"),
        (["--seed", "20150003"], "may have been pretrained on"),
        (["--recipe", "nets"], "recipe = 'nets' must be one of lines, mt_pcs"),
        (["--divisions", "0"], "emulator-check: divisions = 0 must lie in 1..100"),
        (["--draws", "-1"], "emulator-check: draws = -1 must lie in 1..100"),
        (["--set", "encoder=ppg_gpt_9m"], "there is no encoder 'ppg_gpt_9m'"),
    ],
)
def test_the_command_line_refuses_before_any_work(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["emulator-check", "--artifacts", str(tmp_path), *arguments]) == 1
    assert said in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.dat"))
