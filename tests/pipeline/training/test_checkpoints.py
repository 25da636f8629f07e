import hashlib
import json
import stat

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.regressor.config import LabRegressorConfig
from models.regressor.lab_regressor import LabRegressor
from models.regressor.lstm import WindowLSTM, WindowLSTMConfig
from pipeline.foundation.errors import CheckpointError
from pipeline.testing.cohort import tiny_cohort
from pipeline.training.checkpoints import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    checkpoint_folders,
    load_model,
    save_checkpoint,
)
from pipeline.training.resume import load_resume, progress_of, read_resume, save_resume

SHAPE = LabRegressorConfig(
    embed_width=4, d_model=8, n_blocks=1, d_state=2, trunk_width=4, task_labs=("sodium",)
)


@pytest.fixture(scope="module")
def scaler():
    return tiny_cohort(n_patients=6).scaler


@pytest.fixture
def saved(tmp_path, scaler):
    model = LabRegressor(SHAPE)
    save_checkpoint(
        tmp_path / "best", model, method="st_pcs", scaler=scaler,
        experiment={"training": {"seed": 3}}, provenance={"licence": "ODbL"},
    )  # fmt: skip
    return tmp_path / "best", model


def edited(folder, **changes):
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(config | changes))
    return folder


def with_weights(folder, weights):
    save_file(weights, folder / WEIGHTS_FILE)
    digest = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    return edited(folder, weights_sha256=digest)


def test_a_checkpoint_comes_back_as_it_was(saved, scaler):
    folder, model = saved
    loaded = load_model(folder)
    assert loaded.labs == ("sodium",)
    assert loaded.method == "st_pcs"
    assert loaded.scaler == scaler
    assert loaded.experiment == {"training": {"seed": 3}}
    assert loaded.provenance["licence"] == "ODbL"
    assert "torch" in loaded.provenance["versions"]
    assert not loaded.model.training
    assert loaded.model.config == SHAPE
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.model.state_dict()[name])


def test_the_lstm_comes_back_too(tmp_path, scaler):
    model = WindowLSTM(WindowLSTMConfig(embed_width=4, hidden=8))
    save_checkpoint(tmp_path, model, method="lstm", scaler=scaler, experiment={}, provenance={})
    loaded = load_model(tmp_path)
    assert isinstance(loaded.model, WindowLSTM)
    assert len(loaded.labs) == 5


def test_only_the_owner_may_read_it(saved):
    folder, _ = saved
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


def test_a_missing_or_future_checkpoint_is_explained(saved, tmp_path):
    with pytest.raises(CheckpointError, match="train first"):
        load_model(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="format version 99"):
        load_model(edited(saved[0], format_version=99))


def test_weights_of_another_run_are_refused(saved, scaler, tmp_path):
    folder, _ = saved
    other = tmp_path / "other"
    save_checkpoint(other, LabRegressor(SHAPE), method="st_pcs", scaler=scaler, experiment={}, provenance={})
    (folder / WEIGHTS_FILE).write_bytes((other / WEIGHTS_FILE).read_bytes())
    with pytest.raises(CheckpointError, match="sha256"):
        load_model(folder)


def test_config_and_weights_that_do_not_fit_are_refused(saved):
    folder, _ = saved
    config = json.loads((folder / CONFIG_FILE).read_text())
    config["model"]["config"]["d_model"] = 16
    with pytest.raises(CheckpointError, match=r"do not fit the config.*instead of"):
        load_model(edited(folder, model=config["model"]))


def test_missing_and_unknown_weights_are_named(saved):
    folder, _ = saved
    weights = load_file(folder / WEIGHTS_FILE)
    weights["surplus"] = weights.pop("log_variance")
    with pytest.raises(CheckpointError, match=r"missing \['log_variance'\].*unknown \['surplus'\]"):
        load_model(with_weights(folder, weights))


def test_weights_that_are_not_finite_are_refused_when_saved_and_when_loaded(saved, scaler, tmp_path):
    folder, model = saved
    weights = load_file(folder / WEIGHTS_FILE)
    weights["log_variance"] = torch.tensor([float("nan")])
    with pytest.raises(CheckpointError, match="log_variance"):
        load_model(with_weights(folder, weights))
    with torch.no_grad():
        model.log_variance.fill_(float("inf"))
    with pytest.raises(CheckpointError, match="diverged"):
        save_checkpoint(tmp_path / "x", model, method="st_pcs", scaler=scaler, experiment={}, provenance={})
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "damage",
    [{"model": {"kind": "transformer", "config": {}}}, {"model": {"kind": "lab_regressor", "config": {"d_modell": 3}}},
     {"scaler": {"low": {}}}, {"weights_sha256": 0}],
)  # fmt: skip
def test_other_damage_is_one_clear_error(saved, damage):
    with pytest.raises(CheckpointError):
        load_model(edited(saved[0], **damage))


def test_a_config_that_is_cut_short_is_one_clear_error(saved):
    folder, _ = saved
    text = (folder / CONFIG_FILE).read_text()
    for broken in (text[:50], "[]", "{}"):
        (folder / CONFIG_FILE).write_text(broken)
        with pytest.raises(CheckpointError):
            load_model(folder)


def test_weights_cut_short_are_one_clear_error(saved):
    folder, _ = saved
    data = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError):
        load_model(folder)


def test_checkpoints_are_found_in_a_run_and_in_a_run_a_lab(saved, scaler, tmp_path):
    folder, model = saved
    assert checkpoint_folders(folder) == [folder]
    assert checkpoint_folders(tmp_path) == [folder]
    single = tmp_path / "runs"
    for lab in ("sodium", "lactate"):
        save_checkpoint(
            single / lab / "best", model, method="st_pcs", scaler=scaler, experiment={}, provenance={}
        )
    assert [f.parent.name for f in checkpoint_folders(single)] == ["sodium", "lactate"]
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint_folders(tmp_path / "empty")


def test_resume_restores_weights_moments_and_progress(tmp_path):
    torch.manual_seed(0)
    model = LabRegressor(SHAPE)
    optimizer = torch.optim.AdamW(model.parameters())
    sum(p.square().sum() for p in model.parameters()).backward()
    optimizer.step()
    save_resume(tmp_path / "r", model, optimizer, {"epoch": 3, "rows": [{"loss": 0.1 + 0.2}]})
    fresh = LabRegressor(SHAPE)
    other = torch.optim.AdamW(fresh.parameters())
    held = read_resume(tmp_path / "r")
    assert progress_of(held, tmp_path / "r") == {"epoch": 3, "rows": [{"loss": 0.1 + 0.2}]}
    load_resume(held, tmp_path / "r", fresh, other)
    for a, b in zip(model.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a, b)
        for key, value in optimizer.state[a].items():
            assert torch.equal(value, other.state[b][key])


def test_resuming_from_damage_or_another_model_is_one_clear_error(tmp_path):
    model = LabRegressor(SHAPE)
    optimizer = torch.optim.AdamW(model.parameters())
    save_resume(tmp_path / "r", model, optimizer, {})
    wider = LabRegressor(LabRegressorConfig(embed_width=4, d_model=16, n_blocks=1, d_state=2))
    with pytest.raises(CheckpointError, match="do not fit"):
        load_resume(read_resume(tmp_path / "r"), tmp_path / "r", wider, optimizer)
    for damage in (b"not safetensors", b"short", read_resume(tmp_path / "r")[:60]):
        with pytest.raises(CheckpointError, match="train anew"):
            progress_of(damage, tmp_path / "r")
    assert read_resume(tmp_path / "absent") == b""
    with pytest.raises(CheckpointError, match="train anew"):
        read_resume(tmp_path)
