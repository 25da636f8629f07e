from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation.lab_baselines import (
    LabBaselineConfig,
    baseline_examples,
    read_icu_stays,
    real_lab_baselines,
)
from pipeline.foundation.errors import LabError
from pipeline.labs.cleaning import LabConfig, clean_labs
from pipeline.report.baseline_text import baseline_table
from pipeline.sources.base import ClinicalTables
from pipeline.sources.mimic3 import Mimic3Tables

SHARED = Path(__file__).parents[3].parent / "shared"
DEMO = SHARED / "data" / "mimic_iii_demo"
HOUR_US = 3_600_000_000


def tables(rows):
    """Sodium results (patient, value, hour)."""
    frame = pd.DataFrame(
        [(p, "sodium", float(v), "mmol/L", round(h * HOUR_US), None) for p, v, h in rows],
        columns=["patient_id", "code", "value", "unit", "sampled_at_us", "available_at_us"],
    )
    return ClinicalTables(labs=frame, admissions=pd.DataFrame(), licence="none")


def stays(*rows):
    frame = pd.DataFrame(rows, columns=["patient_id", "in_us", "out_us"])
    return frame.assign(in_us=frame["in_us"] * HOUR_US, out_us=frame["out_us"] * HOUR_US)


def scored(rows, *periods, config=None):
    draws = clean_labs(tables(rows), LabConfig()).frame
    return baseline_examples(draws, stays(*periods), config or LabBaselineConfig())


def test_the_previous_value_may_lie_before_the_stay_but_not_72_hours_back():
    rows = [("1", 140, 0), ("1", 141, 72), ("1", 142, 144.1)]
    table = scored(rows, ("1", 10, 200))
    assert table["truth"].tolist() == [141]
    assert table["last_lab"].tolist() == [140]
    assert table["hours_since_last_lab"].tolist() == [72]


def test_only_the_first_days_of_the_stay_count_and_not_the_moment_of_admission():
    rows = [("1", 140, 0), ("1", 141, 10), ("1", 142, 20), ("1", 143, 34), ("1", 144, 35)]
    table = scored(rows, ("1", 10, 200), config=LabBaselineConfig(stay_days=1.0))
    assert table["truth"].tolist() == [142, 143]


def test_a_draw_in_two_overlapping_stays_counts_once():
    assert len(scored([("1", 140, 0), ("1", 141, 10)], ("1", 5, 20), ("1", 8, 30))) == 1


def test_cross_validation_never_fits_on_the_patient_that_is_scored():
    # Patients 1 and 2 drift up by 2; patient 3, all by itself, falls by 20.
    rows = [(p, 130 + 2 * i, 6 * i) for p in "12" for i in range(8)]
    rows += [("3", 160, 0), ("3", 140, 6)]
    found = real_lab_baselines(tables(rows), stays(*[(p, 0, 100) for p in "123"]))
    error = found.set_index(["method", "fit"])["mae"]
    # fitted on the others alone, patient 3 is estimated as 162; fitted on all, the line bends towards it
    assert error["shrunk_locf", "cross_validated"] > error["shrunk_locf", "same_data"]
    two = real_lab_baselines(tables(rows[:16]), stays(*[(p, 0, 100) for p in "12"])).set_index(
        ["method", "fit"]
    )
    assert two.loc[("shrunk_locf", "cross_validated"), "mae"] == pytest.approx(0, abs=1e-9)
    assert two.loc[("locf", "none"), "mae"] == 2
    assert two.loc[("locf", "none"), "n_labs"] == 14
    assert two.loc[("locf", "none"), "n_patients"] == 2


def test_one_patient_has_no_others_to_fit_on():
    found = real_lab_baselines(tables([("1", 140, 0), ("1", 142, 6)]), stays(("1", -1, 100)))
    assert np.isnan(found.set_index(["method", "fit"]).loc[("shrunk_locf", "cross_validated"), "mae"])


def test_stays_of_other_patients_are_refused():
    with pytest.raises(LabError, match="must share their patients"):
        scored([("1", 140, 0)], ("2", 0, 10))


def test_a_folder_without_stays_is_refused(tmp_path):
    with pytest.raises(LabError, match="ICUSTAYS"):
        read_icu_stays(tmp_path)


@pytest.mark.parametrize("field", ["stay_days", "max_age_hours", "mean_days"])
def test_config_names_the_wrong_field(field):
    with pytest.raises(ValueError, match=field):
        LabBaselineConfig(**{field: 0.0})


@pytest.mark.skipif(not DEMO.exists(), reason="../shared is absent")
def test_the_real_labs_give_the_documented_figures():
    found = real_lab_baselines(Mimic3Tables(DEMO).tables(), read_icu_stays(DEMO))
    r2 = found.pivot_table(index="lab", columns=["method", "fit"], values="r2")
    labs = ["potassium", "calcium", "sodium", "glucose", "lactate"]
    n = found.groupby("lab")["n_labs"].first()
    assert n[labs].tolist() == [685, 535, 648, 630, 302]
    assert r2.loc[labs, ("locf", "none")].round(2).tolist() == [-0.05, 0.39, 0.69, -0.47, 0.84]
    assert r2.loc[labs, ("shrunk_locf", "same_data")].round(2).tolist() == [0.27, 0.52, 0.72, 0.08, 0.84]
    # The 0.24 of potassium that we had before comes from other folds than one patient at a time.
    expected = [0.24, 0.51, 0.72, 0.05, 0.84]
    np.testing.assert_allclose(r2.loc[labs, ("shrunk_locf", "cross_validated")], expected, atol=0.0125)
    text = baseline_table(found)
    assert len(text.splitlines()) == 6
    assert "-0.47" in text
