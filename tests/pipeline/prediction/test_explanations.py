"""Both explanations of a method from one reading of its checkpoint; what they say is in training's tests."""

import pytest

from pipeline.prediction.explanations import explain
from pipeline.testing.cohort import tiny_cohort
from pipeline.testing.training_runs import CONFIG, run
from pipeline.training.initial_state import SURVIVAL_COLUMNS
from pipeline.training.shares import SHARE_COLUMNS


@pytest.fixture(scope="module")
def cohort():
    return tiny_cohort(n_patients=10, hours=1.5, draws=4)


def explained(cohort, folder, split="test"):
    return explain(folder, cohort.aligned, cohort.store, cohort.splits, split=split, device="cpu")


@pytest.mark.parametrize("method", ["mt_pcs", "st_pcs"])
def test_both_tables_have_one_row_each(cohort, tmp_path, method):
    run(cohort, tmp_path, method, CONFIG)
    found = explained(cohort, tmp_path)
    assert not found.made_of.empty
    assert not found.made_of.duplicated(["protocol", "lab"]).any()
    assert not found.initial_state.empty
    assert not found.initial_state.duplicated(["layer", "hours"]).any()
    assert ("shared" in set(found.initial_state["layer"])) == (method == "mt_pcs")


def test_a_twin_alone_in_its_split_has_tables_without_rows(cohort, tmp_path):
    run(cohort, tmp_path, "mt_pcs_twin", CONFIG)
    assert len(cohort.splits.patients("calibration")) == 1
    found = explained(cohort, tmp_path, "calibration")
    assert tuple(found.made_of.columns) == SHARE_COLUMNS
    assert tuple(found.initial_state.columns) == SURVIVAL_COLUMNS
    assert found.made_of.empty
    assert found.initial_state.empty
