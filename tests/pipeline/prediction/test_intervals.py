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
    GIVEN,
    INTERVAL_STATE,
    NO_EARLIER_RESULT,
    NO_ESTIMATE,
    NOT_CALIBRATED,
    UNBOUNDED,
    Intervals,
    conformal_half_width,
    fit_intervals,
    least_patients,
)


def test_one_score_a_patient_is_plain_split_conformal():
    scores = np.arange(1.0, 20.0)  # 19 patients: rank ceil(20 * 0.9) = 18
    assert conformal_half_width(scores, np.arange(19), 0.9) == 18.0


def test_nine_patients_just_suffice_at_ninety_percent():
    assert conformal_half_width(np.arange(9.0), np.arange(9), 0.9) == 8.0
    assert math.isnan(conformal_half_width(np.arange(8.0), np.arange(8), 0.9))


@pytest.mark.parametrize("level", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1 / 3])
def test_the_least_number_of_patients_is_where_a_width_appears(level):
    least = least_patients(level)
    assert math.isfinite(conformal_half_width(np.arange(float(least)), np.arange(least), level))
    assert math.isnan(conformal_half_width(np.arange(least - 1.0), np.arange(least - 1), level))


def test_every_patient_weighs_the_same_however_often_drawn():
    # Patient 0 has 1000 tiny scores, the other 19 one of 1..19 each: 1 + rank must reach 21 * 0.5 = 10.5
    scores = np.concatenate([np.full(1000, 0.1), np.arange(1.0, 20.0)])
    patient = np.concatenate([np.zeros(1000, dtype=int), np.arange(1, 20)])
    assert conformal_half_width(scores, patient, 0.5) == 10.0


def test_no_patient_at_all_has_no_width():
    assert math.isnan(conformal_half_width(np.array([]), np.array([]), 0.9))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 50)), min_size=1, max_size=80))
def test_half_width_is_the_least_score_with_enough_mass(rows):
    patient, scores = np.array([row[0] for row in rows]), np.array([float(row[1]) for row in rows])
    names = np.unique(patient)
    found = conformal_half_width(scores, patient, 0.8)
    need = (len(names) + 1) * 0.8 - 1e-9

    def mass(limit):
        return sum((scores[patient == name] <= limit).mean() for name in names)

    if math.isnan(found):
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


def test_apply_fills_bounds(calibrated_predictions, fitted):
    filled = fitted.apply(calibrated_predictions)
    assert list(filled.index) == list(calibrated_predictions.index)
    assert (filled["lower"] >= 0).all()
    assert (filled["upper"] > filled["estimate"]).all()
    assert set(filled[INTERVAL_STATE]) == {GIVEN}


def test_only_calibration_patients_and_measured_draws_are_used(calibrated_predictions, fitted):
    spoiled = calibrated_predictions.copy()
    spoiled.loc[spoiled["split"] == "test", "estimate"] += 1000
    dense = calibrated_predictions.assign(scoring="dense", estimate=1e6)
    pd.testing.assert_frame_equal(fit_intervals(pd.concat([spoiled, dense])).widths, fitted.widths)


def test_too_few_patients_give_no_interval_and_a_reason(make_predictions):
    table = make_predictions(n_patients=10, splits=("test", "calibration"), methods=("locf",))
    filled = fit_intervals(table).apply(table)
    assert filled[["lower", "upper"]].isna().all(axis=None)
    assert set(filled[INTERVAL_STATE]) == {"too few calibration patients: 5 of at least 9"}


def test_no_calibration_patient_gives_no_interval(predictions):
    filled = fit_intervals(predictions).apply(predictions)
    assert filled[["lower", "upper"]].isna().all(axis=None)
    assert set(filled[INTERVAL_STATE]) == {"too few calibration patients: 0 of at least 9"}


def test_what_was_not_calibrated_has_its_own_state(calibrated_predictions, fitted):
    rows = calibrated_predictions.query("method == 'mt_pcs' and protocol == 'start'").head(4)
    other = rows.assign(seed=7)
    assert set(fitted.apply(other)[INTERVAL_STATE]) == {NOT_CALIBRATED}
    no_lab = rows.assign(lab="hemoglobin")  # method, protocol and seed are calibrated, this lab had no draw
    assert set(fitted.apply(no_lab)[INTERVAL_STATE]) == {"too few calibration patients: 0 of at least 9"}
    mixed = rows.reset_index(drop=True)
    mixed.loc[0, "estimate"] = math.nan
    mixed.loc[1, ["last_lab", "hours_since_last_lab"]] = math.nan
    filled = fitted.apply(mixed)
    assert list(filled[INTERVAL_STATE]) == [NO_ESTIMATE, NO_EARLIER_RESULT, GIVEN, GIVEN]
    assert list(filled["upper"].notna()) == [False, False, True, True]


def test_json_round_trip_keeps_missing_widths(make_predictions):
    table = make_predictions(n_patients=24, splits=("test", "calibration"), methods=("locf",))
    few = (
        table["lab"].eq("sodium")
        & table["split"].eq("calibration")
        & ~table["patient"].isin(table["patient"].unique()[:3])
    )
    fitted = fit_intervals(table.loc[~few])
    assert np.isnan(fitted.widths["half_width"]).any()
    assert np.isfinite(fitted.widths["half_width"]).any()
    back = Intervals.from_json(fitted.to_json())
    pd.testing.assert_frame_equal(back.widths, fitted.widths)
    assert back.level == 0.9
    assert "Infinity" not in fitted.to_json()
    assert "NaN" not in fitted.to_json()
    for row in json.loads(fitted.to_json())["widths"]:  # a person who opens the file reads why
        told = f"too few calibration patients: {row['n_patients']} of at least 9"
        assert row["state"] == (told if row["half_width"] is None else GIVEN)


def test_a_file_of_an_earlier_version_is_read_and_the_new_one_has_its_keys(make_predictions):
    fitted = fit_intervals(make_predictions(n_patients=24, splits=("test", "calibration"), methods=("locf",)))
    content = json.loads(fitted.to_json())
    old = content | {"widths": [{k: v for k, v in row.items() if k != "state"} for row in content["widths"]]}
    pd.testing.assert_frame_equal(Intervals.from_json(json.dumps(old)).widths, fitted.widths)
    assert set(content) == {"level", "gap_edges_hours", "widths"}  # what the earlier version asks for
    assert {"half_width", "n_patients", "lab", "gap"} <= set(content["widths"][0])


def test_widths_by_bins_of_an_earlier_version_are_refused():
    with pytest.raises(ConfigError, match=r"gap_edges_hours = \[6.0\].*run it again"):
        Intervals.from_json(json.dumps(one_width() | {"gap_edges_hours": [6.0]}))


def one_width(**changed):
    row = {"method": "mt_pcs", "protocol": "start", "seed": 0, "lab": "sodium", "gap": "all", "half_width": 1.5,
           "n_labs": 40, "n_patients": 12}  # fmt: skip
    return {"level": 0.9, "gap_edges_hours": [], "widths": [row | changed]}


@pytest.mark.parametrize("text", ["", "[]", json.dumps({"level": 0.9})])
def test_damaged_json_gets_one_error(text):
    with pytest.raises(ConfigError, match="intervals cannot be read"):
        Intervals.from_json(text)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (one_width(half_width=math.inf), "Infinity is no number"),
        (one_width(half_width=math.nan), "NaN is no number"),
        (one_width(half_width=-1.0), "-1.0 of mt_pcs, start, sodium is infinite or negative"),
        (one_width(half_width=None), "null although enough patients"),
        (one_width(half_width="wide"), "cannot be read"),
        (one_width(n_patients=None), "cannot be read"),
        (one_width() | {"level": 90}, "between 0 and 1"),
        (one_width() | {"widths": one_width()["widths"] * 2}, "there twice"),
    ],
)
def test_numbers_that_cannot_be_are_refused_with_the_files_name(content, told, tmp_path):
    path = tmp_path / "intervals.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=told) as caught:
        Intervals.load(path)
    assert str(caught.value).startswith(str(path))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        Intervals.load(path)


def test_a_test_patient_in_calibration_is_refused(predictions):
    leaking = pd.concat([predictions, predictions.assign(split="calibration")])
    with pytest.raises(LeakError):
        fit_intervals(leaking)


def test_level_outside_zero_one_is_refused(predictions):
    with pytest.raises(ValueError, match="level"):
        fit_intervals(predictions, level=90.0)


def test_a_spread_without_bound_gives_no_bound_and_says_so():
    keys = {"method": "mt_assim", "protocol": "start", "seed": 0, "lab": "glucose"}
    widths = pd.DataFrame([keys | {"half_width": 2.0, "n_labs": 20, "n_patients": 20, "unit": "spreads"}])
    rows = pd.DataFrame(
        [
            keys | {"estimate": 100.0, "last_lab": 90.0, "spread": spread, "log_scale": True}
            for spread in (0.1, 1e3)
        ]
    )
    found = Intervals(widths=widths, level=0.9).apply(rows)
    assert found[INTERVAL_STATE].tolist() == [GIVEN, UNBOUNDED]
    assert np.isfinite(found.loc[0, ["lower", "upper"]].to_numpy(dtype=float)).all()
    assert found.loc[1, ["lower", "upper"]].isna().all()


def test_a_method_that_claims_to_know_all_has_no_width():
    scores = np.full(20, np.inf)
    assert math.isnan(conformal_half_width(scores, np.arange(20), 0.9))
