import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cohort.normalization import LabScaler, ScalerConfig, fit_lab_scaler
from pipeline.cohort.splits import SplitConfig, Splits, split_subjects
from pipeline.foundation.errors import CheckpointError, LeakError
from pipeline.foundation.schema import LAB_NAMES, LABS
from pipeline.testing.handmade import lab_events

SPLITS = Splits(members={"train": ("1", "2"), "validation": ("3",), "calibration": ("4",), "test": ("5",)})
EVENTS = lab_events(
    [(f"{p}", "sodium", v, 0, 0) for p, v in ((1, 130), (2, 150), (3, 100), (4, 190), (5, 199))]
    + [("1", "potassium", 4, 0, 0), ("1", "potassium", 4, 1, 1)]
)


def test_minimum_and_maximum_are_the_training_patients():
    scaler = fit_lab_scaler(EVENTS, SPLITS)
    assert (scaler.low["sodium"], scaler.high["sodium"]) == (130, 150)
    assert scaler.n_patients == 2
    assert scaler.fitted_on == "train"
    assert scaler.scale(np.array([140.0, 199.0]), ("sodium",) * 2).tolist() == [0.5, 3.45]


def test_held_out_patients_change_nothing():
    fewer = lab_events([("1", "sodium", 130, 0, 0), ("2", "sodium", 150, 0, 0)])
    assert fit_lab_scaler(fewer, SPLITS).low["sodium"] == fit_lab_scaler(EVENTS, SPLITS).low["sodium"]


def test_a_lab_without_two_values_keeps_the_accepted_range():
    scaler = fit_lab_scaler(EVENTS, SPLITS)
    for lab in LABS:
        if lab.name != "sodium":
            assert (scaler.low[lab.name], scaler.high[lab.name]) == (lab.low, lab.high)


def test_without_any_lab_the_scaler_is_still_defined():
    assert fit_lab_scaler(lab_events(), SPLITS).n_patients == 0


def test_authors_variant_sees_everyone_and_clips():
    scaler = fit_lab_scaler(EVENTS, SPLITS, ScalerConfig(fitted_on="everything", clip=True))
    assert (scaler.low["sodium"], scaler.high["sodium"]) == (100, 199)
    assert scaler.scale(np.array([90.0, 210.0]), ("sodium",) * 2).tolist() == [0, 1]


def test_another_division_is_refused():
    scaler = fit_lab_scaler(EVENTS, SPLITS)
    scaler.check(SPLITS)
    with pytest.raises(LeakError, match="fitted under another division"):
        scaler.check(split_subjects(["1", "2", "3", "4", "5"], SplitConfig(seed=1)))


bounds = st.lists(st.tuples(st.floats(0.001, 500), st.floats(0.001, 1500)), min_size=5, max_size=5)


@given(bounds, st.lists(st.floats(-10, 3000), min_size=5, max_size=5))
def test_unscale_undoes_scale_and_json_is_exact(ranges, values):
    scaler = LabScaler(
        low={lab: low for lab, (low, _) in zip(LAB_NAMES, ranges, strict=True)},
        high={lab: low + width for lab, (low, width) in zip(LAB_NAMES, ranges, strict=True)},
        fitted_on="train",
        n_patients=3,
        split_hash="abc",
    )
    table = np.array([values, values[::-1]])
    np.testing.assert_allclose(scaler.unscale(scaler.scale(table)), table, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(
        scaler.scale(table[:, 3:], LAB_NAMES[3:]), scaler.scale(table)[:, 3:], rtol=1e-12, atol=0
    )
    assert LabScaler.from_json(json.loads(json.dumps(scaler.to_json()))) == scaler


def test_missing_values_stay_missing():
    assert np.isnan(fit_lab_scaler(EVENTS, SPLITS).scale(np.full(5, np.nan))).all()


@pytest.mark.parametrize("damage", [{"low": {}}, {"high": None}, {"low": dict.fromkeys(LAB_NAMES, 1e9)}])
def test_a_damaged_record_is_refused(damage):
    with pytest.raises(CheckpointError, match="lab normaliser"):
        LabScaler.from_json(fit_lab_scaler(EVENTS, SPLITS).to_json() | damage)


def test_config_names_the_wrong_value():
    with pytest.raises((ValueError, TypeError), match="fitted_on"):
        ScalerConfig(fitted_on="test")  # pyright: ignore
