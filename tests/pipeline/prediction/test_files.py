"""One file a method and seed; nothing is read of a run that did not end, of an earlier one, or with a gap."""

import stat

import pandas as pd
import pytest

from pipeline.foundation.errors import ConfigError, MissingArtifactError
from pipeline.foundation.schema import DENSE_SUM_COLUMNS, PREDICTION_COLUMNS
from pipeline.foundation.workspace import Workspace
from pipeline.prediction.files import INDEX, PredictionWriter, read_dense_sums, read_predictions


@pytest.fixture
def workspace(tmp_path):
    return Workspace(root=tmp_path / "demo")


def sums(method, seed):
    row = ("start", seed, "test", "p", "sodium", 3, 1.0, 0.5, 0.7, 139.0, 2.0, "ab")
    return pd.DataFrame([(method, *row)], columns=list(DENSE_SUM_COLUMNS))


def write(workspace, table, *, dense=()):
    writer = PredictionWriter(workspace)
    writer.write_measured(table)
    for part in dense:
        writer.write_dense(part)
    writer.finish()


def test_what_is_written_is_read_back(workspace, make_predictions):
    table = make_predictions(n_patients=4, methods=("locf", "mt_pcs"), seeds=(0, 2))
    write(workspace, table, dense=[sums("locf", 0), sums("mt_pcs", 2)])
    names = {path.name for path in workspace.predictions.iterdir()}
    assert names == {
        INDEX, "locf-seed0.parquet", "locf-seed2.parquet", "mt_pcs-seed0.parquet", "mt_pcs-seed2.parquet",
        "dense_sums-locf-seed0.parquet", "dense_sums-mt_pcs-seed2.parquet",
    }  # fmt: skip
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in workspace.predictions.iterdir())
    found = read_predictions(workspace, asset="report")
    assert tuple(found.columns) == PREDICTION_COLUMNS
    keys = ["method", "seed", "protocol", "lab", "patient", "sampled_at"]
    both = [frame.sort_values(keys, ignore_index=True) for frame in (found, table)]
    pd.testing.assert_frame_equal(*both, check_dtype=False)
    assert set(read_predictions(workspace, asset="report", methods=("locf",))["method"]) == {"locf"}
    dense = read_dense_sums(workspace, asset="report")
    assert dense is not None
    assert list(zip(dense["method"], dense["seed"], strict=True)) == [("locf", 0), ("mt_pcs", 2)]


def test_without_dense_scoring_there_are_no_sums(workspace, make_predictions):
    write(workspace, make_predictions(n_patients=2, methods=("locf",)))
    assert read_dense_sums(workspace, asset="evaluation") is None


def test_what_an_earlier_run_left_is_gone(workspace, make_predictions):
    table = make_predictions(n_patients=2, methods=("locf", "mt_pcs"))
    write(workspace, table, dense=[sums("locf", 0)])
    former = workspace.root / "predictions.parquet"
    former.write_bytes(b"of an earlier version")
    write(workspace, table[table["method"] == "locf"])
    assert {path.name for path in workspace.predictions.iterdir()} == {INDEX, "locf-seed0.parquet"}
    assert not former.exists()


def test_a_run_that_did_not_end_is_not_read(workspace, make_predictions):
    table = make_predictions(n_patients=2, methods=("locf",))
    write(workspace, table)
    PredictionWriter(workspace).write_measured(table)
    with pytest.raises(MissingArtifactError, match=r"'predictions' has not run.*--select '\*evaluation'"):
        read_predictions(workspace, asset="evaluation")


def test_a_missing_file_is_named_with_its_method_and_the_remedy(workspace, make_predictions):
    write(workspace, make_predictions(n_patients=2, methods=("locf", "mt_pcs")), dense=[sums("mt_pcs", 0)])
    (workspace.predictions / "mt_pcs-seed0.parquet").unlink()
    (workspace.predictions / "dense_sums-mt_pcs-seed0.parquet").unlink()
    words = (
        r"mt_pcs-seed0.parquet is missing.*lists mt_pcs, seed 0.*python -m pipeline score --experiment demo"
    )
    with pytest.raises(MissingArtifactError, match=words):
        read_predictions(workspace, asset="report")
    with pytest.raises(MissingArtifactError, match=f"dense_sums-{words}"):
        read_dense_sums(workspace, asset="report")
    assert len(read_predictions(workspace, asset="report", methods=("locf",)))


def test_an_experiment_of_an_earlier_version_is_told_what_to_run(workspace):
    workspace.root.mkdir()
    (workspace.root / "predictions.parquet").write_bytes(b"")
    words = r"predictions.parquet is of an earlier version.*nothing is trained anew: python -m pipeline score --exp"
    for read in (read_predictions, read_dense_sums):
        with pytest.raises(MissingArtifactError, match=words):
            read(workspace, asset="evaluation")


@pytest.mark.parametrize(
    "content", ["", "[]", '{"measured": [["locf"]]}', '{"measured": 3, "dense": []}', "\x00"]
)
def test_a_damaged_list_is_no_traceback(workspace, make_predictions, content):
    write(workspace, make_predictions(n_patients=2, methods=("locf",)))
    (workspace.predictions / INDEX).write_text(content)
    with pytest.raises(
        ConfigError, match=r"index.json is not the list of predictions.*python -m pipeline score"
    ):
        read_predictions(workspace, asset="report")
