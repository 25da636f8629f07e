"""Shares are worked out once for each checkpoint, and kept beside it."""

import pandas as pd
import pytest

from pipeline.prediction import explanations
from pipeline.stages.made_of_kept import kept_made_of
from pipeline.testing.cohort import tiny_cohort
from pipeline.testing.training_runs import CONFIG, run
from pipeline.training.shares import SOURCES


def test_what_is_kept_is_not_worked_out_again(tmp_path, monkeypatch):
    cohort = tiny_cohort(n_patients=10, hours=1.5, draws=4)
    run(cohort, tmp_path, "mt_pcs", CONFIG)
    first = kept_made_of(tmp_path, cohort.aligned, cohort.store, cohort.splits)
    known = first.dropna()
    assert len(known)
    assert known[list(SOURCES)].sum(axis=1).to_numpy() == pytest.approx(1.0)
    whole = explanations.explain(tmp_path, cohort.aligned, cohort.store, cohort.splits).made_of
    pd.testing.assert_frame_equal(
        first, whole, check_dtype=False, check_like=True
    )  # of fewer patients than are asked for: all
    monkeypatch.setattr(explanations, "made_of", lambda *rest, **named: pytest.fail("worked out again"))
    pd.testing.assert_frame_equal(kept_made_of(tmp_path, cohort.aligned, cohort.store, cohort.splits), first)
