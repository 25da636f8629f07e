"""The command line: every stage is there, and a user's mistake ends in one line on standard error."""

from pathlib import Path

import pytest

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
