"""A folder of another source is refused, not replaced; sources of no known kind are refused before any work."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from pipeline.__main__ import main
from pipeline.foundation.artefact_notes import parquet_note
from pipeline.foundation.errors import ConfigError, OtherSourceError
from pipeline.foundation.workspace import Workspace
from pipeline.sources.detect import DESCRIPTION
from pipeline.sources.synthetic.cohort import write_cohort
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.plan import CohortSize
from pipeline.stages import sources
from pipeline.store.embeddings import EmbeddingStore

SMALL = [
    "--set",
    "cohort.size.n_patients=4",
    "--set",
    "cohort.size.hours_low=0.5",
    "--set",
    "cohort.size.hours_high=1",
]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Waveforms and labs of a hospital's own, with its licence."""
    root = tmp_path_factory.mktemp("hospital") / "data"
    size = CohortSize(n_patients=4, hours_low=0.5, hours_high=1.0)
    write_cohort(CohortParameters.load(), size, root, seed=7)
    for folder in ("waveforms", "clinical"):
        (root / folder / DESCRIPTION).write_text(json.dumps({"licence": f"this hospital's {folder}"}))
    return root


def typed(command: str, artifacts: Path, *more: str) -> int:
    return main([command, "--artifacts", str(artifacts), *more])


def test_waveforms_mean_the_default_experiment_however_they_are_named(
    hospital: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waveforms = str(hospital / "waveforms")
    assert typed("catalog", tmp_path / "flag", "--waveforms", waveforms) == 0
    monkeypatch.setenv("UNIPHY_WAVEFORMS", waveforms)
    assert typed("catalog", tmp_path / "variable") == 0
    for way in ("flag", "variable"):
        assert [path.name for path in (tmp_path / way).iterdir()] == ["default"]


def test_the_demos_catalogue_is_not_replaced(
    hospital: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed("cohort", tmp_path, "--experiment", "demo", *SMALL) == 0
    assert typed("catalog", tmp_path, "--experiment", "demo", *SMALL) == 0
    before = (tmp_path / "demo" / "catalog.parquet").read_bytes()
    waveforms = hospital / "waveforms"
    assert typed("catalog", tmp_path, "--experiment", "demo", "--waveforms", str(waveforms)) == 1
    error = capsys.readouterr().err
    assert f"from the synthetic cohort, and this run's waveforms are from {waveforms}" in error
    assert "--artifacts" in error
    assert (tmp_path / "demo" / "catalog.parquet").read_bytes() == before
    assert typed("split", tmp_path, "--experiment", "demo", "--waveforms", str(waveforms), *SMALL) == 1


def test_a_hospitals_artefacts_are_not_taken_for_the_cohorts(
    hospital: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--waveforms", str(hospital / "waveforms"), "--labs", str(hospital / "clinical")]
    assert typed("catalog", tmp_path, *own) == typed("labs", tmp_path, *own) == 0
    capsys.readouterr()
    assert typed("split", tmp_path, "--experiment", "default") == 1
    assert "and this run's waveforms are from the synthetic cohort" in capsys.readouterr().err
    elsewhere = shutil.copytree(hospital / "clinical", tmp_path / "other labs")
    assert typed("labs", tmp_path, *own[:2], "--labs", str(elsewhere)) == 1
    assert "artefacts whose labs are from" in capsys.readouterr().err
    assert typed("split", tmp_path, *own[:2]) == 0  # labs are not named, and not read


def test_data_that_moved_are_taken_again_once_the_note_is_deleted(hospital: Path, tmp_path: Path) -> None:
    first, moved = (shutil.copytree(hospital / "waveforms", tmp_path / name) for name in ("first", "moved"))
    assert typed("catalog", tmp_path, "--waveforms", str(first)) == 0
    assert typed("catalog", tmp_path, "--waveforms", str(moved)) == 1
    (tmp_path / "default" / "sources.json").unlink()
    assert typed("catalog", tmp_path, "--waveforms", str(moved)) == 0


def test_a_store_that_lies_apart_takes_no_other_source(
    hospital: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another source's run found the patients of the first vanished, and retired them."""
    first, other = (shutil.copytree(hospital / "waveforms", tmp_path / name) for name in ("first", "other"))
    for folder in sorted(other.glob("p*/p*"))[1:]:
        shutil.rmtree(folder)
    store = ("--embeddings", str(tmp_path / "store"), "--set", "encoder=pulse_features")
    runs = ((first, "a", 0), (other, "b", 1), (first, "c", 0))
    for waveforms, place, status in runs:
        where = (tmp_path / place, "--waveforms", str(waveforms), *store)
        assert typed("catalog", *where) == 0
        capsys.readouterr()
        assert typed("embed", *where) == status
        told = capsys.readouterr()
    assert "4 patients" in told.out or "patients: 4" in told.out
    own = Workspace.from_environment("default", embeddings=str(tmp_path / "store"))
    entries = EmbeddingStore.open(own.store).manifest().values()
    assert [entry.retired for entry in entries] == [False] * 4


def test_an_old_catalogue_of_another_source_is_found_out(hospital: Path, tmp_path: Path) -> None:
    pd.DataFrame({"path": ["p00/p000001/elsewhere.hea"]}).to_parquet(tmp_path / "catalog.parquet")
    own = Workspace(root=tmp_path, waveforms=hospital / "waveforms")
    with pytest.raises(OtherSourceError, match="waveforms are from another source"):
        sources.refuse_another_source(own)
    there = next((hospital / "waveforms").rglob("*.hea")).relative_to(hospital / "waveforms")
    pd.DataFrame({"path": [str(there)]}).to_parquet(tmp_path / "catalog.parquet")
    sources.refuse_another_source(own)


def test_a_patients_number_in_a_path_is_not_shown(tmp_path: Path) -> None:
    workspace = Workspace(root=tmp_path)
    for name in ("p010013", "10013"):
        workspace.sources.write_text(json.dumps({"waveforms": f"/data/{name}/waves"}))
        with pytest.raises(OtherSourceError, match="from /data/…/waves, and") as caught:
            sources.refuse_another_source(workspace)
        assert "10013" not in str(caught.value).replace(str(tmp_path), "")


@pytest.mark.parametrize("content", ["{", "[]", "[1]", "null", '{"waveforms": 3}'])
def test_a_damaged_note_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "sources.json").write_text(content)
    with pytest.raises(OtherSourceError, match=r"sources\.json cannot be read"):
        sources.refuse_another_source(Workspace(root=tmp_path))


def test_labs_alone_are_read_cleaned_and_counted(
    hospital: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed("labs", tmp_path, "--labs", str(hospital / "clinical")) == 0
    assert "sodium results:" in capsys.readouterr().out
    events = tmp_path / "demo" / "lab_events.parquet"
    assert len(pd.read_parquet(events)) > 0
    assert parquet_note(events)["licences"] == ["this hospital's clinical"]


def test_labs_of_no_known_kind_stop_the_whole_job_before_any_work(
    hospital: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nothing").mkdir()
    waveforms = ["--waveforms", str(hospital / "waveforms")]
    for command in ("all", "table1", "catalog"):
        assert typed(command, tmp_path / "a", *waveforms, "--labs", str(tmp_path / "nothing")) == 1
        assert "holds no lab table" in capsys.readouterr().err
    for command in ("all", "table1"):
        assert typed(command, tmp_path / "a", *waveforms) == 1
        assert "real waveforms need the labs" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_a_file_is_no_waveform_folder(tmp_path: Path) -> None:
    (tmp_path / "waves.txt").write_text("")
    with pytest.raises(ConfigError, match="is no folder"):
        sources.check_sources(Workspace(root=tmp_path, waveforms=tmp_path / "waves.txt"))


def test_an_output_that_cannot_be_written_stops_predict_before_any_work(
    hospital: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.parquet").mkdir()
    own = ["--waveforms", str(hospital / "waveforms"), "--labs", str(hospital / "clinical")]
    for out, problem in (
        (tmp_path / "file" / "x.parquet", "a part of the path is a file"),
        (tmp_path / "folder.parquet", "a folder"),
    ):
        assert typed("predict", tmp_path / "a", *own, "--checkpoint", "none", "--out", str(out)) == 1
        assert problem in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
