"""Networks' estimates taken apart; those of fitted methods are in test_closed_form."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.prediction.explanations import explain
from pipeline.testing.cohort import tiny_cohort
from pipeline.testing.training_runs import CONFIG, LINES, run
from pipeline.training.shares import SOURCES


@pytest.fixture(scope="module")
def cohort():
    return tiny_cohort(n_patients=30, hours=1.5, draws=4)


def taken_apart(cohort, folder):
    return explain(folder, cohort.aligned, cohort.store, cohort.splits, device="cpu").made_of


def test_lines_beside_a_network_that_learned_nothing_make_the_estimates(cohort, tmp_path):
    still = replace(
        CONFIG, epochs=1, learning_rate=1e-9, warmup_start=1e-9, final_lr=1e-9, fit_lines=True, selection="last"
    )  # fmt: skip
    run(cohort, tmp_path, "mt_pcs", still, **LINES)
    table = taken_apart(cohort, tmp_path)
    said = table.dropna()
    assert len(said)
    np.testing.assert_allclose(said[list(SOURCES)].sum(axis=1), 1.0, atol=1e-3)
    assert said["network"].abs().max() < 1e-3
    assert said["lines"].max() > 0.1
    assert said["history"].abs().max() > 0.01


@pytest.mark.parametrize("method", ["mt_pcs", "lstm"])
def test_a_network_alone_makes_all_of_its_own(cohort, tmp_path, method):
    run(cohort, tmp_path, method, replace(CONFIG, epochs=1))
    said = taken_apart(cohort, tmp_path).dropna()
    assert len(said)
    np.testing.assert_allclose(said["network"], 1.0)
    assert (said[["lines", "reading", "history"]] == 0).all(axis=None)
