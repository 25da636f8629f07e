"""Alarms: thresholds, ranking, what is skipped."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.evaluation.alarms import ALARM_COLUMNS, ALARMS, Alarm, alarm_table, weighted_auroc


def test_events_lie_strictly_beyond_the_threshold():
    high, low = (
        Alarm(lab="potassium", threshold=5.5, above=True),
        Alarm(lab="sodium", threshold=130.0, above=False),
    )
    assert list(high.events(np.array([5.4, 5.5, 5.6]))) == [False, False, True]
    assert list(low.events(np.array([129.0, 130.0]))) == [True, False]
    assert high.name == "potassium > 5.5 mmol/L"


def test_the_nine_alarms():
    assert [alarm.name for alarm in ALARMS] == [
        "potassium > 5.5 mmol/L", "potassium < 3.5 mmol/L", "calcium < 8 mg/dL", "sodium < 130 mmol/L",
        "sodium > 150 mmol/L", "glucose < 70 mg/dL", "glucose > 180 mg/dL", "lactate > 2 mmol/L",
        "lactate > 4 mmol/L"]  # fmt: skip


def test_weighted_auroc_by_hand():
    events, score = np.array([True, False, True, False]), np.array([0.9, 0.1, 0.4, 0.4])
    weights = np.array([[1.0, 1, 1, 1], [1, 2, 0, 1], [1, 0, 1, 0]])
    # pairs in order of 4: 0.9 beats both, 0.4 beats 0.1 and ties with 0.4; then all of 3; then no pair
    assert weighted_auroc(events, score, weights) == pytest.approx([3.5 / 4, 1.0, np.nan], nan_ok=True)


def test_weighted_auroc_is_scikit_learns():
    rng = np.random.default_rng(0)
    events, score = rng.random(200) < 0.2, np.round(rng.normal(size=200), 1)
    weights = rng.integers(0, 4, size=(3, 200)).astype(float)
    expected = [roc_auc_score(events, score, sample_weight=row) for row in weights]
    assert weighted_auroc(events, score, weights) == pytest.approx(expected)


@pytest.fixture(scope="module")
def table(predictions):
    return alarm_table(predictions, replicates=50)


def test_both_directions_rank_well_when_the_estimate_does(table):
    scored = table.query("method == 'mt_pcs' and protocol == 'start' and skipped == False")
    assert {"<", ">"} <= {name.split()[1] for name in scored["alarm"]}
    assert (scored["auroc"] > 0.8).all()
    assert (scored["auprc"] > scored["prevalence"]).all()
    assert (scored["auroc_lower"] < scored["auroc"]).all()


def test_rare_alarms_are_skipped_without_their_counts(table):
    assert tuple(table.columns) == ALARM_COLUMNS
    skipped = table.query("skipped == True")
    assert len(skipped) > 0
    assert skipped[["n_events", "prevalence", "auroc", "auprc"]].isna().all(axis=None)
    assert (table.query("skipped == False")["n_events"] >= 10).all()
