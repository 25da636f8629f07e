"""``config`` prints every field, and what differs from the defaults, to people and to programs."""

import json

import pytest

from pipeline.__main__ import main
from pipeline.experiments import experiment
from pipeline.foundation.overrides import dotted
from pipeline.foundation.provenance import config_hash, to_plain


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["config", *words]) == 0
    return capsys.readouterr().out


def test_the_whole_configuration_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "--experiment", "tiny", "--set", "training.epochs=5")
    differing, whole = text.split("Whole configuration:")
    assert [line.split()[0] for line in whole.split("\n") if line.strip()] == list(dotted(experiment("tiny")))
    assert "training.epochs" in differing
    assert "5   (default 40, set by --set)" in differing
    assert "16   (default 256, set by the experiment)" in differing
    assert "labs.duplicates" not in differing


def test_programs_get_json(capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads(printed(capsys, "--experiment", "paper", "--json", "--set", "labs.duplicates=max"))
    config = experiment("paper", {"labs.duplicates": "max"})
    assert content["config"] == to_plain(config)
    assert content["config_hash"] == config_hash(config)
    assert content["differs_from_defaults"]["labs.duplicates"] == {
        "value": "max", "default": "median", "set_by": "--set",
    }  # fmt: skip
    assert content["differs_from_defaults"]["seeds"]["set_by"] == "the experiment"


def test_no_folder_has_to_be_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert "experiment default" in printed(capsys, "--waveforms", "/nowhere")


def test_a_bad_override_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--set", "name=../x"]) == 1
    assert "must be a name, not a path" in capsys.readouterr().err
