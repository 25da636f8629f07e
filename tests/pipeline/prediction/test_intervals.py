"""Conformal intervals: rank by hand, coverage by simulation, no width where none is known."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.foundation.errors import ConfigError, LeakError
from pipeline.prediction.intervals import (
    COVERAGE_COLUMNS,
    Intervals,
    conformal_half_width,
    coverage,
    fit_intervals,
    gap_labels,
    gap_names,
    reliability,
)


def test_one_score_a_patient_is_plain_split_conformal():
    scores = np.arange(1.0, 20.0)  # 19 patients: rank ceil(20 * 0.9) = 18
    assert conformal_half_width(scores, np.arange(19), 0.9) == 18.0


def test_nine_patients_just_suffice_at_ninety_percent():
    assert conformal_half_width(np.arange(9.0), np.arange(9), 0.9) == 8.0
    assert conformal_half_width(np.arange(8.0), np.arange(8), 0.9) == math.inf


def test_every_patient_weighs_the_same_however_often_drawn():
    # Patient 0 has 1000 tiny scores, the other 19 one of 1..19 each: 1 + rank must reach 21 * 0.5 = 10.5
    scores = np.concatenate([np.full(1000, 0.1), np.arange(1.0, 20.0)])
    patient = np.concatenate([np.zeros(1000, dtype=int), np.arange(1, 20)])
    assert conformal_half_width(scores, patient, 0.5) == 10.0


def test_no_patient_at_all_is_unbounded():
    assert conformal_half_width(np.array([]), np.array([]), 0.9) == math.inf


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 50)), min_size=1, max_size=80))
def test_half_width_is_the_least_score_with_enough_mass(rows):
    patient, scores = np.array([row[0] for row in rows]), np.array([float(row[1]) for row in rows])
    names = np.unique(patient)
    found = conformal_half_width(scores, patient, 0.8)
    need = (len(names) + 1) * 0.8 - 1e-9

    def mass(limit):
        return sum((scores[patient == name] <= limit).mean() for name in names)

    if math.isinf(found):
        assert mass(scores.max()) < need
    else:
        assert mass(found) >= need
        assert all(mass(score) < need for score in scores[scores < found])


def test_coverage_over_new_patients_keeps_the_promise():
    """Patients with an own offset and unequal counts: a new patient is covered in 90 of 100 calibrations."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(300):
        counts = rng.integers(1, 15, size=31)
        patient = np.repeat(np.arange(31), counts)
        scores = np.abs(rng.normal(size=31)[patient] + 0.3 * rng.normal(size=patient.size))
        width = conformal_half_width(scores[patient < 30], patient[patient < 30], 0.9)
        covered.append((scores[patient == 30] <= width).mean())
    assert 0.87 <= np.mean(covered) <= 0.96


@pytest.fixture(scope="module")
def fitted(calibrated_predictions):
    return fit_intervals(calibrated_predictions)


def test_apply_fills_bounds_and_covers_test_patients(calibrated_predictions, fitted):
    filled = fitted.apply(calibrated_predictions)
    assert list(filled.index) == list(calibrated_predictions.index)
    assert (filled["lower"] >= 0).all()
    assert (filled["upper"] > filled["estimate"]).all()
    table = coverage(filled, 0.9)
    assert tuple(table.columns) == COVERAGE_COLUMNS
    assert 0.8 < table.query("gap == 'all'")["coverage_patient_macro"].mean() < 1.0
    whole = table.query("gap == 'all'").groupby(["method", "protocol", "lab"])["n_labs"].sum()
    bins = table.query("gap != 'all'").groupby(["method", "protocol", "lab"])["n_labs"].sum()
    assert whole.equals(bins)


def test_only_calibration_patients_and_measured_draws_are_used(calibrated_predictions, fitted):
    spoiled = calibrated_predictions.copy()
    spoiled.loc[spoiled["split"] == "test", "estimate"] += 1000
    dense = calibrated_predictions.assign(scoring="dense", estimate=1e6)
    pd.testing.assert_frame_equal(fit_intervals(pd.concat([spoiled, dense])).widths, fitted.widths)


def test_too_few_patients_give_unbounded_intervals(make_predictions):
    table = make_predictions(n_patients=10, splits=("test", "calibration"), methods=("locf",))
    filled = fit_intervals(table).apply(table)
    assert np.isneginf(filled["lower"]).all()
    assert np.isposinf(filled["upper"]).all()
    cells = coverage(filled, 0.9)
    assert (cells["unbounded_share"] == 1).all()
    assert cells["mean_width"].isna().all()


def test_no_calibration_patient_gives_unbounded_intervals(predictions):
    assert np.isposinf(fit_intervals(predictions).apply(predictions)["upper"]).all()


def test_bins_by_hours_since_the_last_lab(calibrated_predictions):
    binned = fit_intervals(calibrated_predictions, gap_edges_hours=(6.0,))
    assert set(binned.widths["gap"]) == {"0-6 h", "> 6 h"}
    arguments = {"method": "mt_pcs", "protocol": "start", "lab": "sodium"}
    early = binned.half_width(**arguments, hours_since_last_lab=6.0)
    late = binned.half_width(**arguments, hours_since_last_lab=6.1)
    assert early != late
    row = calibrated_predictions.query("method == 'mt_pcs' and protocol == 'start' and lab == 'sodium'").iloc[
        [0]
    ]
    expected = early if row["hours_since_last_lab"].iloc[0] <= 6 else late
    assert (binned.apply(row)["upper"] - row["estimate"]).iloc[0] == pytest.approx(expected)


def test_edges_belong_to_the_bin_that_ends_there():
    assert gap_names((2.0, 4.0)) == ["0-2 h", "2-4 h", "> 4 h"]
    assert list(gap_labels(np.array([0.0, 2.0, 2.5, 4.0, 99.0]), (2.0, 4.0))) == [
        "0-2 h", "0-2 h", "2-4 h", "2-4 h", "> 4 h"]  # fmt: skip


def test_json_round_trip_keeps_unbounded_widths(make_predictions):
    table = make_predictions(n_patients=24, splits=("test", "calibration"), methods=("locf",))
    fitted = fit_intervals(table, gap_edges_hours=(1.0, 8.0))
    assert np.isinf(fitted.widths["half_width"]).any()
    assert np.isfinite(fitted.widths["half_width"]).any()
    back = Intervals.from_json(fitted.to_json())
    pd.testing.assert_frame_equal(back.widths, fitted.widths)
    assert (back.level, back.gap_edges_hours) == (0.9, (1.0, 8.0))
    assert "Infinity" not in fitted.to_json()


@pytest.mark.parametrize("text", ["", "[]", json.dumps({"level": 0.9})])
def test_damaged_json_gets_one_error(text):
    with pytest.raises(ConfigError, match="intervals cannot be read"):
        Intervals.from_json(text)


def test_a_test_patient_in_calibration_is_refused(predictions):
    leaking = pd.concat([predictions, predictions.assign(split="calibration")])
    with pytest.raises(LeakError):
        fit_intervals(leaking)


def test_reliability_rises_with_the_level(calibrated_predictions):
    one = calibrated_predictions.query("method == 'mt_pcs' and protocol == 'start'")
    table = reliability(one, levels=(0.5, 0.9)).groupby("nominal")["coverage_patient_macro"].mean()
    assert table[0.5] < table[0.9]


def test_level_outside_zero_one_is_refused(predictions):
    with pytest.raises(ValueError, match="level"):
        fit_intervals(predictions, level=90.0)
