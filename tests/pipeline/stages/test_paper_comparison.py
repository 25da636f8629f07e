"""Table 1 from nothing, in the protocols of the paper and of its authors' code, on a handful of patients."""

import shutil

import pandas as pd
import pytest

from pipeline.experiments import PAPER_METHODS, experiment
from pipeline.foundation.schema import FITTED_METHODS, METHOD_LABELS
from pipeline.foundation.workspace import Workspace
from pipeline.report.paper_table import TABLE1_METHODS
from pipeline.stages import paper_comparison, reproduce_table1

SMALL = {
    "cohort.size.n_patients": "8", "cohort.size.hours_low": "2.5", "cohort.size.hours_high": "3.0",
    "model.d_model": "8", "model.n_blocks": "1", "model.d_state": "2", "model.trunk_width": "8",
    "model.hidden": "8", "training.epochs": "1", "training.tensorboard": "false", "evaluation.bootstrap": "20",
    "splits.fractions": "[0.5, 0.25, 0.25]",
}  # fmt: skip


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.slow) for name in ("paper", "authors")]
)
def run(request, tmp_path_factory):
    seeds = {"seeds": "[0, 1]"} if request.param == "paper" else {}
    config = experiment(request.param, SMALL | seeds)
    workspace = Workspace(root=tmp_path_factory.mktemp(request.param))
    return config, workspace, reproduce_table1(workspace, config)


def test_every_row_of_the_paper_is_there_with_its_own_figures(run):
    config, workspace, text = run
    table = pd.read_parquet(workspace.root / "table1.parquet")
    assert set(table["scoring"]) == {"measured", "dense"}
    assert set(table["protocol"]) == {"start"}  # as the paper has it: from the recording's start
    assert set(table["method"]) == set(TABLE1_METHODS) - set(FITTED_METHODS)
    trained = table.loc[table["method"].isin(PAPER_METHODS) & (table["n_labs"] > 0)]
    assert (trained["n_seeds"] == len(config.seeds)).all()
    assert set(trained["method"]) == set(PAPER_METHODS)
    assert table.loc[table["method"] == "mt_pcs", "paper_institutional_r2"].notna().all()
    assert METHOD_LABELS["mt_pcs"] in text
    assert "Synthetic cohort" in text


def test_a_protocol_that_flatters_says_so(run):
    config, _, text = run
    assert ("Flatters" in text) == (config.name == "authors")
    assert ("Subjects are divided here" in text) == (config.name == "authors")
    assert "interpolated points are scored too" in text


def test_several_seeds_show_their_spread(run):
    config, workspace, text = run
    table = pd.read_parquet(workspace.root / "table1.parquet")
    spread = table.loc[(table["method"] == "mt_pcs") & (table["n_labs"] > 1), "mae_seed_sd"]
    assert spread.notna().all() == (len(config.seeds) > 1)
    assert ("\N{PLUS-MINUS SIGN}" in text.split("Estimate minus truth")[0]) == (len(config.seeds) > 1)


def test_what_is_finished_is_not_trained_again(run):
    config, workspace, text = run
    before = {path: path.stat().st_mtime_ns for path in workspace.root.rglob("*.safetensors")}
    assert reproduce_table1(workspace, config) == text
    assert {path: path.stat().st_mtime_ns for path in workspace.root.rglob("*.safetensors")} == before


def test_a_method_trained_beside_the_papers_is_trained_with_them(run, tmp_path, monkeypatch):
    """Else its checkpoint of another configuration had the scores refused, after all the others were trained."""
    config, made, _ = run
    workspace = Workspace(root=shutil.copytree(made.root, tmp_path / "copy"))
    trained = []
    monkeypatch.setattr(paper_comparison, "train", lambda *_, method: trained.append(method))
    for stage in ("predictions", "evaluation", "table1"):
        monkeypatch.setattr(paper_comparison, stage, lambda *_: None)
    reproduce_table1(workspace, config)
    assert trained == list(PAPER_METHODS)
    trained.clear()
    (workspace.checkpoint("mt_learned", 0) / "best").mkdir(parents=True)
    (workspace.checkpoint("mt_learned", 0) / "best" / "config.json").write_text("{}")
    workspace.summary("train_mt_learned").write_text("{}")
    reproduce_table1(workspace, config)
    assert trained == [*PAPER_METHODS, "mt_learned"]
