import numpy as np
import pandas as pd
import pytest

from pipeline.cohort.splits import Splits
from pipeline.evaluation.characteristics import characteristics

NAMES = [f"{n:02d}" for n in range(40)]
SPLITS = Splits(
    members={
        "train": tuple(NAMES[:20]),
        "validation": tuple(NAMES[20:24]),
        "calibration": (),
        "test": tuple(NAMES[24:]),
    }
)


def tables(sexes: list[str]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    admissions = pd.DataFrame(
        {
            "patient_id": NAMES,
            "age_years": np.arange(40.0, 80.0),
            "sex": sexes,
            "care_unit": "MICU",
            "ethnicity": "WHITE",
        }
    )
    sequences = pd.DataFrame({"patient_id": NAMES, "n_windows": 240})
    examples = pd.DataFrame(
        {
            "patient_id": NAMES * 2,
            "lab": "sodium",
            "sampled_at_us": 1,
            "truth": 140.0,
            "protocol": ["start"] * 40 + ["anchored"] * 40,
        }
    )
    return admissions, sequences, examples


def found(sexes: list[str]) -> pd.DataFrame:
    return characteristics(*tables(sexes), SPLITS).set_index(["characteristic", "split"])


def test_counts_medians_and_shares_by_split() -> None:
    table = found(["F", "M"] * 20)
    assert table.loc[("patients", "train"), "value"] == 20
    assert table.loc[("scored draws", "train"), "value"] == 20  # a draw of both protocols is one
    assert table.loc[("age, years", "train"), ["lower", "value", "upper"]].tolist() == [44.75, 49.5, 54.25]
    assert table.loc[("hours of usable PPG a patient", "train"), "value"] == 2.0
    assert table.loc[("sodium, mmol/L", "test"), "value"] == 140.0
    assert table.loc[("sex: F", "train"), "value"] == 0.5
    assert table.loc[("care unit: MICU", "train"), "value"] == 1.0


def test_small_splits_tell_nothing_of_single_patients() -> None:
    table = found(["F", "M"] * 20)
    assert np.isnan(table.loc[("age, years", "validation"), "value"])
    assert np.isnan(table.loc[("sex: F", "validation"), "value"])


@pytest.mark.parametrize(("n_small", "hidden"), [(3, True), (0, False)])
def test_a_share_that_would_give_a_small_group_away_is_hidden_too(n_small: int, hidden: bool) -> None:
    sexes = ["F"] * n_small + ["M"] * (20 - n_small) + ["F", "M"] * 10
    assert np.isnan(found(sexes).loc[("sex: M", "train"), "value"]) == hidden
