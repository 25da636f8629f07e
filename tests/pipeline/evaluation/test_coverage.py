"""Coverage counts the draws that have an interval, in every bin of hours, and tells why others have none."""

import math

import numpy as np
import pytest

from pipeline.evaluation.coverage import (
    COVERAGE_COLUMNS,
    REASON_NOT_RECORDED,
    coverage,
    gap_labels,
    gap_names,
    reliability,
)
from pipeline.prediction.intervals import INTERVAL_STATE, fit_intervals


@pytest.fixture(scope="module")
def fitted(calibrated_predictions):
    return fit_intervals(calibrated_predictions)


def test_test_patients_are_covered_and_every_draw_is_in_one_bin(calibrated_predictions, fitted):
    table = coverage(fitted.apply(calibrated_predictions), 0.9)
    assert set(table["missing_reason"]) == {""}
    assert tuple(table.columns) == COVERAGE_COLUMNS
    assert 0.8 < table.query("gap == 'all'")["coverage_patient_macro"].mean() < 1.0
    whole = table.query("gap == 'all'").groupby(["method", "protocol", "lab"])["n_labs"].sum()
    bins = table.query("gap != 'all'").groupby(["method", "protocol", "lab"])["n_labs"].sum()
    assert whole.equals(bins)


def test_what_has_no_interval_is_neither_inside_nor_outside_one(make_predictions):
    table = make_predictions(n_patients=10, splits=("test", "calibration"), methods=("locf",))
    cells = coverage(fit_intervals(table).apply(table), 0.9)
    assert (cells["missing_share"] == 1).all()
    assert set(cells["missing_reason"]) == {"too few calibration patients: 5 of at least 9"}
    assert cells[["coverage", "coverage_patient_macro", "mean_width"]].isna().all(axis=None)
    assert (cells["n_labs"] > 0).all()


def test_coverage_is_of_the_draws_that_have_an_interval(calibrated_predictions, fitted):
    one = calibrated_predictions.query("method == 'mt_pcs' and protocol == 'start' and lab == 'sodium'")
    filled = fitted.apply(one.query("split == 'test'"))
    whole = coverage(filled, 0.9, gap_edges_hours=()).iloc[0]
    inside = (filled["truth"] >= filled["lower"]) & (filled["truth"] <= filled["upper"])
    filled.loc[inside, ["lower", "upper"]] = np.nan
    filled.loc[inside, INTERVAL_STATE] = "why"
    found = coverage(filled, 0.9, gap_edges_hours=()).iloc[0]
    assert found["coverage"] == 0.0
    assert found["missing_share"] == pytest.approx(inside.mean())
    assert (found["missing_reason"], found["n_labs"]) == ("why", whole["n_labs"])


def test_infinite_bounds_of_an_earlier_version_count_as_no_interval(predictions):
    old = predictions.assign(lower=-math.inf, upper=math.inf)
    cells = coverage(old, 0.9, gap_edges_hours=())
    assert cells["coverage"].isna().all()
    assert set(cells["missing_reason"]) == {REASON_NOT_RECORDED}


def test_edges_belong_to_the_bin_that_ends_there():
    assert gap_names((2.0, 4.0)) == ["0-2 h", "2-4 h", "> 4 h"]
    assert list(gap_labels(np.array([0.0, 2.0, 2.5, 4.0, 99.0]), (2.0, 4.0))) == [
        "0-2 h", "0-2 h", "2-4 h", "2-4 h", "> 4 h"]  # fmt: skip


def test_reliability_rises_with_the_level(calibrated_predictions):
    one = calibrated_predictions.query("method == 'mt_pcs' and protocol == 'start'")
    table = reliability(one, levels=(0.5, 0.9)).groupby("nominal")["coverage_patient_macro"].mean()
    assert table[0.5] < table[0.9]
