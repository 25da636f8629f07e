"""Folders come from arguments, then from the environment; what is missing is named with its remedy."""

from pathlib import Path

import pytest

from pipeline.foundation.errors import ConfigError, MissingArtifactError
from pipeline.foundation.workspace import Workspace, require

VARIABLES = ("UNIPHY_WAVEFORMS", "UNIPHY_LABS", "UNIPHY_ARTIFACTS", "UNIPHY_EMBEDDINGS")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def test_arguments_win_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIPHY_ARTIFACTS", str(tmp_path / "environment"))
    assert Workspace.from_environment("demo").root == tmp_path / "environment" / "demo"
    assert Workspace.from_environment("demo", artifacts=str(tmp_path)).root == tmp_path / "demo"


def test_no_waveforms_means_the_synthetic_cohort() -> None:
    assert Workspace.from_environment("demo").is_synthetic


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'waveforms' names .*absent"):
        Workspace(root=tmp_path, waveforms=tmp_path / "absent")


def test_the_message_names_what_the_user_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = str(tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"^--labs names .*absent"):
        Workspace.from_environment("demo", labs=absent)
    with pytest.raises(ConfigError, match=r"^'waveforms' of the resource names .*absent"):
        Workspace.from_environment("demo", waveforms=absent, argument="'{}' of the resource")
    monkeypatch.setenv("UNIPHY_WAVEFORMS", absent)
    with pytest.raises(ConfigError, match=r"^UNIPHY_WAVEFORMS names .*absent"):
        Workspace.from_environment("demo")


def test_arguments_lead_back_to_the_same_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my waves").mkdir()
    given = Workspace.from_environment("demo", waveforms=str(tmp_path / "my waves"), artifacts=str(tmp_path))
    assert given.arguments() == [f"--waveforms '{tmp_path}/my waves'", f"--artifacts {tmp_path}"]
    monkeypatch.setenv("UNIPHY_WAVEFORMS", str(tmp_path / "my waves"))
    monkeypatch.setenv("UNIPHY_ARTIFACTS", str(tmp_path))
    assert Workspace.from_environment("demo").arguments() == []


def test_a_missing_artefact_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match=r"dagster asset materialize --select '\*train_mt_pcs'"):
        require(tmp_path / "aligned", made_by="lab_alignment", asset="train_mt_pcs")


def test_every_artefact_lies_under_the_root(tmp_path: Path) -> None:
    workspace = Workspace(root=tmp_path)
    paths = [value for name in dir(Workspace) if isinstance(value := getattr(workspace, name, None), Path)]
    assert len(paths) > 10
    assert all(path == tmp_path or tmp_path in path.parents for path in paths)


def test_embeddings_may_lie_elsewhere_each_experiment_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIPHY_EMBEDDINGS", "s3://bucket/uniphy/")
    assert Workspace.from_environment("demo").store == "s3://bucket/uniphy/demo"
    elsewhere = Workspace.from_environment("demo", embeddings=str(tmp_path))
    assert elsewhere.store == tmp_path / "demo"
    with pytest.raises(MissingArtifactError, match="'ppg_embeddings' has not run"):
        require(elsewhere.store, made_by="ppg_embeddings", asset="lab_alignment")
