import pandas as pd
import pytest

from pipeline.foundation.schema import LABS
from pipeline.foundation.units import UNIT_FACTORS, factor, in_own_unit


@pytest.mark.parametrize(
    ("lab", "value", "unit", "expected"),
    [
        ("potassium", 4.1, "mEq/L", 4.1),
        ("sodium", 140, " MMOL/L ", 140),
        ("calcium", 2.5, "mmol/L", 10.02),
        ("calcium", 5.0, "mEq/L", 10.02),
        ("glucose", 5.5, "mmol/L", 99.09),
        ("glucose", 1.0, "g/L", 100),
        ("lactate", 18.016, "mg/dL", 2.0),
        ("lactate", 2.0, "mmol per L", 2.0),
    ],
)
def test_values_in_the_schemas_units(lab, value, unit, expected):
    found = factor(lab, unit)
    assert found is not None
    assert value * found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("lab", "unit"), [("sodium", "mg/dL"), ("glucose", "%"), ("glucose", ""), ("haemoglobin", "g/dL")]
)
def test_unknown_pairs_have_no_factor(lab, unit):
    assert factor(lab, unit) is None


def test_every_lab_knows_its_own_unit():
    assert set(UNIT_FACTORS) == {lab.name for lab in LABS}
    assert {factor(lab.name, lab.unit) for lab in LABS} == {1.0}


def test_results_are_converted_and_pairs_that_do_not_go_together_are_nan():
    value, lab, unit = (
        pd.Series([140.0, 5.0, 1.0]),
        pd.Series(["sodium", "glucose", "sodium"]),
        ["mEq/L", "mmol/L", "mg/dL"],
    )
    converted, factors = in_own_unit(value, lab, pd.Series(unit))
    assert converted.tolist()[:2] == [140.0, 5.0 * 18.016]
    assert factors.tolist()[:2] == [1.0, 18.016]
    assert converted.isna().tolist() == factors.isna().tolist() == [False, False, True]
