"""The command line: every stage is there, and a user's mistake ends in one line on standard error."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.encoders.ppg_gpt import PPGGPT
from models.encoders.projection import Projection
from pipeline.__main__ import STAGES, main


@pytest.mark.parametrize(
    "name", [*STAGES, "train", "train_encoder", "all", "predict", "store", "config", "table1", "recovery"]
)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    assert name in capsys.readouterr().out


def test_a_missing_upstream_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["train", "--method", "mt_pcs", "--experiment", "tiny", "--artifacts", str(tmp_path)])
    error = capsys.readouterr().err
    assert status == 1
    assert "'*train_mt_pcs'" in error
    assert "Traceback" not in error


def test_waveforms_without_labs_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--experiment", "tiny", "--artifacts", str(tmp_path / "a"), "--waveforms", str(tmp_path)]
    assert main(["labs", *arguments]) == 1
    assert "--labs DIR, or UNIPHY_LABS" in capsys.readouterr().err


def test_an_empty_waveform_folder_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "waves").mkdir()
    arguments = [
        "--experiment",
        "tiny",
        "--artifacts",
        str(tmp_path / "a"),
        "--waveforms",
        str(tmp_path / "waves"),
    ]
    assert main(["catalog", *arguments]) == 1
    assert "no waveform record" in capsys.readouterr().err


def test_a_bad_override_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["catalog", "--experiment", "tiny", "--artifacts", str(tmp_path), "--set", "training.epoch=1"])
        == 1
    )
    assert "no field 'epoch'" in capsys.readouterr().err


def test_store_commands_need_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "ls", "--store", str(tmp_path / "absent")]) == 1
    assert "no embedding store" in capsys.readouterr().err


OTHERS = [*STAGES, "all", "table1", "result-delay", "cross-validate", "predict --checkpoint c --out o.csv", "config",
          "recovery", "probe", "emulator", "rehearse", "store ls --store s", "lab-baselines --labs l"]  # fmt: skip


@pytest.mark.parametrize("command", OTHERS)
def test_under_torchrun_only_trainings_run(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(command.split()) == 1
    name = command.split()[0]
    told = capsys.readouterr().err
    assert told.startswith(f"error: torchrun started 2 processes of '{name}'")
    assert told.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_alone_under_torchrun_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert main(["config", "--experiment", "tiny"]) == 0


@pytest.mark.parametrize("place", ["/proc/nobody", "file/below"])
@pytest.mark.parametrize("command", ["cohort", "catalog", "embed", "all", "table1", "recovery", "emulator"])
def test_a_place_that_cannot_be_written_is_one_line_before_any_work(
    command: str,
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("no folder")
    for module, name in WORK.items():
        monkeypatch.setattr(f"{module}.{name}", lambda *rest, **named: pytest.fail("work began"))
    artifacts = place if place.startswith("/") else str(tmp_path / place)
    experiment = "recovery" if command == "recovery" else "tiny"
    assert main([command, "--experiment", experiment, "--artifacts", artifacts]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"error: cannot write {artifacts}/")
    assert told.count("\n") == 1


WORK = {
    "pipeline.stages.ingest": "write_cohort", "pipeline.stages.planted_cohort": "write_cohort",
    "pipeline.stages.embed": "experiment_encoder", "pipeline.emulation.rendered": "render_windows",
}  # fmt: skip


@pytest.mark.parametrize("command", ["all", "table1"])
@pytest.mark.parametrize("field", ["training.device", "embedding.device"])
def test_a_gpu_that_is_not_there_is_refused_before_any_work(
    command: str, field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--experiment", "tiny", "--artifacts", str(tmp_path), "--set", f"{field}=cuda:99"]
    assert main([command, *arguments]) == 1
    error = capsys.readouterr().err
    assert field in error
    assert "cuda:99" in error
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["all", "table1"])
@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        ("ppg_gpt_1m+median", "there is no +median"),
        ("pulse_features+mean", "+mean is for PPG-GPT alone"),
        ("ppg_gpt_9m", "there is no encoder 'ppg_gpt_9m'"),
        ("ppg_gpt_1m+to256", "there is no projection ppg_gpt_1m+to256.safetensors"),
        ("PATH+mean+to16", "is a projection of weights_hash"),
    ],
)
def test_an_encoder_that_cannot_be_built_is_refused_before_any_work(
    command: str, encoder: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once the cohort was written first, minutes of work."""
    weights, artifacts = tmp_path / "mine.safetensors", tmp_path / "artifacts"
    model, other = (PPGGPT.random("1m", seed=seed) for seed in (3, 4))
    save_file(model.state_dict(), weights)
    about = {"weights_hash": other.weights_hash, "readout": "mean", "licence": "none", "fitted_on": "{}"}
    projection = Projection(torch.zeros(128), torch.zeros(128, 16), about)
    weights.with_name("mine+mean+to16.safetensors").write_bytes(projection.to_bytes())
    named = encoder.replace("PATH", str(weights))
    assert (
        main([command, "--experiment", "tiny", "--artifacts", str(artifacts), "--set", f"encoder={named}"])
        == 1
    )
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not artifacts.exists()


@pytest.mark.parametrize(("raised", "status"), [(KeyboardInterrupt, 130), (BrokenPipeError, 141)])
def test_who_stops_it_or_has_read_enough_sees_no_traceback(
    raised: type[BaseException],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def stop(parsed: object) -> None:
        raise raised

    monkeypatch.setattr("pipeline.commands.doctor._doctor", stop)
    monkeypatch.setattr("pipeline.__main__.os.dup2", lambda *handles: None)  # pytest reads this output on
    assert main(["doctor"]) == status
    told = capfd.readouterr().err
    assert told == (
        "stopped; what was finished is kept: the same command goes on from there\n" if status == 130 else ""
    )
