"""What `predict` can know to be wrong it says before it reads a record."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pipeline.__main__ import main
from pipeline.experiments import experiment
from pipeline.foundation.errors import CheckpointError, ConfigError
from pipeline.foundation.workspace import Workspace
from pipeline.stages import predict as stage
from pipeline.stages import predict_new_patients
from pipeline.testing.clinical_folders import write_mimic_tables
from pipeline.testing.cohort import TINY_MODEL, tiny_cohort
from pipeline.testing.waveform_folders import write_npy_record
from pipeline.training.config import TrainingConfig
from pipeline.training.method import train


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Trained methods by name: MT+PCS, its twin, and the LSTM that looks ahead."""
    root = tmp_path_factory.mktemp("checkpoints")
    cohort = tiny_cohort(n_patients=6, hours=1.5, draws=4)
    config = TrainingConfig(epochs=1, warmup_epochs=0.0, tensorboard=False, device="cpu", lstm_centred=True)
    for method in ("mt_pcs", "mt_pcs_twin", "lstm"):
        train(
            method, cohort.aligned, cohort.store, cohort.scaler, cohort.splits, dict(TINY_MODEL), config, root / method
        )  # fmt: skip
    return root


@pytest.fixture
def workspace(tmp_path):
    """Folders of a known kind with nothing to estimate from."""
    (tmp_path / "waveforms").mkdir()
    write_npy_record(tmp_path / "waveforms", np.zeros(1200, dtype=np.float32))
    (tmp_path / "labs").mkdir()
    write_mimic_tables(tmp_path / "labs")
    return Workspace(root=tmp_path / "new", waveforms=tmp_path / "waveforms", labs=tmp_path / "labs")


def refused(workspace, checkpoint, out, error, told):
    with pytest.raises(error, match=told):
        predict_new_patients(workspace, experiment("tiny"), str(checkpoint), str(out))
    assert not workspace.root.exists()
    assert not out.exists()


def test_an_unknown_ending_is_refused_before_any_work(checkpoints, workspace, tmp_path):
    refused(workspace, checkpoints / "mt_pcs", tmp_path / "out.xlsx", ConfigError, r"in \.parquet or \.csv")
    refused(
        workspace, tmp_path / "no checkpoint", tmp_path / "out.txt", ConfigError, r"in \.parquet or \.csv"
    )


def test_the_command_says_so_in_one_line(tmp_path, capsys):
    arguments = [
        "--checkpoint",
        str(tmp_path),
        "--out",
        str(tmp_path / "out.txt"),
        "--artifacts",
        str(tmp_path),
    ]
    assert main(["predict", *arguments]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: --out ")
    assert told.count("\n") == 1


@pytest.mark.parametrize("method", ["mt_pcs_twin", "lstm"])
def test_what_cannot_run_at_the_bedside_is_refused_before_any_work(checkpoints, workspace, tmp_path, method):
    refused(
        workspace, checkpoints / method, tmp_path / "out.csv", ConfigError, "another patient or the future"
    )


def test_a_missing_checkpoint_is_refused_before_any_work(workspace, tmp_path):
    refused(workspace, tmp_path / "nothing", tmp_path / "out.csv", CheckpointError, "no checkpoint")


def test_damaged_intervals_are_refused_before_any_work(checkpoints, workspace, tmp_path):
    path = checkpoints / "mt_pcs" / "intervals.json"
    row = {"method": "mt_pcs", "protocol": "start", "seed": 0, "lab": "sodium", "gap": "all",
           "half_width": float("inf"), "n_labs": 40, "n_patients": 12}  # fmt: skip
    path.write_text(json.dumps({"level": 0.9, "gap_edges_hours": [], "widths": [row]}))
    try:
        told = r"intervals\.json: .*Infinity is no number.*run it again"
        refused(workspace, checkpoints / "mt_pcs", tmp_path / "out.csv", ConfigError, told)
    finally:
        path.unlink()


def test_a_field_that_the_checkpoint_decides_is_refused(checkpoints, workspace, tmp_path):
    set_for_this_run = experiment("tiny", {"encoder_precision": "float32"})
    with pytest.raises(
        ConfigError, match=r"encoder_precision is set to 'float32', and the checkpoint decides it"
    ):
        predict_new_patients(
            workspace, set_for_this_run, str(checkpoints / "mt_pcs"), str(tmp_path / "out.csv")
        )
    assert not workspace.root.exists()


@pytest.mark.parametrize("missing", ["waveforms", "labs"])
def test_new_patients_without_data_are_refused_and_both_flags_named(missing, workspace):
    with pytest.raises(ConfigError, match=r"--waveforms DIR and --labs DIR"):
        stage._require_both_sources(replace(workspace, **{missing: None}))
