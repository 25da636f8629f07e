import numpy as np
import pandas as pd
import pytest

from pipeline.foundation.errors import LabError
from pipeline.foundation.schema import ADMISSION_COLUMNS, LAB_EVENT_COLUMNS, LABS
from pipeline.labs.cleaning import (
    LabConfig,
    LabEvents,
    clean_labs,
    lab_counts,
)
from pipeline.labs.versions import final_results
from pipeline.sources.base import ClinicalTables
from pipeline.sources.lab_table import LabTable

MINUTE_US = 60_000_000
COLUMNS = ["patient_id", "code", "value", "unit", "sampled_at_us", "available_at_us"]


def clean(rows, config=None):
    """Clean rows (patient, code, value, unit, minute of draw, minute of result or None)."""
    table = pd.DataFrame(rows, columns=COLUMNS)
    for name in ("sampled_at_us", "available_at_us"):
        table[name] = (pd.to_numeric(table[name]) * MINUTE_US).astype("Int64")
    none = pd.DataFrame(columns=list(ADMISSION_COLUMNS))
    return clean_labs(ClinicalTables(labs=table, admissions=none, licence="none"), config or LabConfig())


def one(value=140, *, code="50983", unit="mEq/L", patient="1", drawn=0, known=None):
    return (patient, code, value, unit, drawn, known)


def test_columns_order_and_types():
    events = clean([one(drawn=5, patient="2"), one(drawn=9), one(drawn=5), one(4, code="50971", drawn=7)])
    assert list(events.frame.columns) == list(LAB_EVENT_COLUMNS)
    keys = events.frame[["patient_id", "lab", "sampled_at_us"]].values.tolist()
    assert keys == sorted(keys)
    assert events.frame["sampled_at_us"].dtype == np.int64
    assert events.frame["available_at_us"].dtype == np.int64
    assert events.frame["value"].dtype == np.float64
    assert lab_counts(events) == {"potassium": 1, "calcium": 0, "sodium": 3, "glucose": 0, "lactate": 0}


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.name)
def test_item_loinc_and_name_are_one_lab(lab):
    middle = float(np.sqrt(lab.low * lab.high))
    codes = [f"{lab.itemid}", f"{lab.itemid}.0", lab.loinc, lab.name, lab.name.upper()]
    events = clean([one(middle, code=code, unit=lab.unit, drawn=i) for i, code in enumerate(codes)])
    assert events.frame["lab"].tolist() == [lab.name] * len(codes)
    assert not events.exclusions


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("HEMOLYZED", "text"),
        ("0x", "text"),
        ("<0.5", "censored (for example <0.5)"),
        (" > 500", "censored (for example <0.5)"),
        ("LESS THAN 10 mEq/L", "censored (for example <0.5)"),
        ("Greater than 10", "censored (for example <0.5)"),
        ("___", "de-identified (___)"),
        ("4,1", "decimal comma or thousands"),
        ("1,200", "decimal comma or thousands"),
        (None, "no value"),
        ("", "no value"),
        ("\x00", "no value"),
        (np.nan, "no value"),
        ("nan", "no value"),
        (np.inf, "not finite"),
        ("-inf", "not finite"),
        (-140, "zero or negative"),
        ("0", "zero or negative"),
        (79.9, "sodium outside 80-200 mmol/L"),
        ("200.1", "sodium outside 80-200 mmol/L"),
    ],
)
def test_an_unusable_value_is_dropped_and_counted_by_its_reason(value, reason):
    events = clean([one(value), one(141, drawn=9)])
    assert events.exclusions == {reason: 1}
    assert events.frame["value"].tolist() == [141]


@pytest.mark.parametrize("value", [80, 200, "80", " 140 ", "\ufeff140", "1.4e2"])
def test_the_ends_of_the_range_and_padded_numbers_are_kept(value):
    assert len(clean([one(value)]).frame) == 1


def test_decimal_commas_are_read_on_request():
    events = clean([one("4,1", code="50971")], LabConfig(decimal_comma=True))
    assert events.frame["value"].tolist() == [4.1]


@pytest.mark.parametrize("code", ["50808", "1994-3", "Ionised calcium"])
def test_ionised_calcium_is_another_analyte(code):
    events = clean([one(1.1, code=code, unit="mmol/L"), one(8.5, code="50893", unit="mg/dL")])
    assert events.exclusions == {"ionised calcium is another analyte": 1}
    assert events.frame["value"].tolist() == [8.5]


@pytest.mark.parametrize("code", ["51100", "50809x", "LACTATE DEHYDROGENASE", "Calcium gluconate", None])
def test_other_codes_are_no_lab_of_interest(code):
    assert clean([one(code=code)]).exclusions == {"no lab of interest": 1}


@pytest.mark.parametrize(
    ("specimens", "kept", "reason"),
    [("serum", [140], "specimen is not serum"), ("whole_blood", [138], "specimen is not whole blood")],
)
def test_specimens_are_kept_apart(specimens, kept, reason):
    rows = [one(140), one(138, code="50824"), one(2, code="50813", unit="mmol/L")]
    events = clean(rows, LabConfig(specimens=specimens))
    assert events.frame.loc[events.frame["lab"] == "sodium", "value"].tolist() == kept
    assert (events.frame["lab"] == "lactate").sum() == 1  # it has no twin and suits both
    assert events.exclusions == {reason: 1}


def test_any_specimen_merges_at_one_time():
    events = clean([one(140), one(138, code="50824")], LabConfig(specimens="any"))
    assert events.frame["value"].tolist() == [139]
    assert not events.exclusions


class TestUnits:
    def test_known_units_are_converted(self):
        rows = [one(10, code="50931", unit="mmol/L"), one(2, code="50893", unit="mmol/L", drawn=1)]
        rows += [one(18.016, code="50813", unit="mg/dL", drawn=2)]
        events = clean(rows)
        np.testing.assert_allclose(events.frame["value"], [8.016, 180.16, 2])
        assert events.repairs["converted to the lab's own unit"] == 3

    def test_an_unknown_unit_is_dropped(self):
        assert clean([one(unit="furlong")]).exclusions == {"unknown unit": 1}

    @pytest.mark.parametrize("unit", [None, np.nan, "", "  "])
    def test_a_missing_unit_is_taken_as_the_labs_own(self, unit):
        events = clean([one(unit=unit)])
        assert len(events.frame) == 1
        assert events.repairs["unit missing, taken as the lab's own"] == 1

    @pytest.mark.parametrize(
        ("code", "unit", "values"),
        [
            ("50931", "mg/dL", (4, 15)),  # glucose in mmol/L
            ("50893", "mg/dL", (0.9, 1.3)),  # ionised calcium in mmol/L
            ("50893", None, (2.0, 2.6)),  # calcium in mmol/L
            ("50813", "mmol/L", (9, 40)),  # lactate in mg/dL
            ("50931", "mmol/L", (90, 180)),  # glucose in mg/dL
        ],
    )
    def test_a_column_in_the_wrong_unit_is_refused_with_one_clear_error(self, code, unit, values):
        rng = np.random.default_rng(0)
        rows = [
            one(v, code=code, unit=unit, patient=f"{i % 7}", drawn=i)
            for i, v in enumerate(rng.uniform(*values, 60))
        ]
        with pytest.raises(LabError, match=r"have a median of .*The unit or the code is wrong"):
            clean(rows)

    def test_one_mislabelled_part_is_found_beside_a_right_one(self):
        rng = np.random.default_rng(0)
        right = [
            one(v, code="50931", unit="mg/dL", patient=f"{i % 7}", drawn=i)
            for i, v in enumerate(rng.uniform(90, 180, 500))
        ]
        wrong = [
            one(v, code="50931", unit="mmol/L", patient=f"{i % 7}", drawn=-1 - i)
            for i, v in enumerate(rng.uniform(90, 180, 30))
        ]
        with pytest.raises(LabError, match="30 glucose values labelled mmol/L"):
            clean(right + wrong)

    def test_the_refusal_names_file_value_rule_and_remedy(self, tmp_path):
        file = tmp_path / "results.csv"
        lines = [f"{i % 7},glucose,{90 + i},{unit},2111-05-02 10:00:{i}"
                 for unit in ("mg/dL", "mmol/L") for i in range(10, 40)]  # fmt: skip
        file.write_text("\n".join(["patient_id,code,value,unit,sampled_at", *lines]))
        with pytest.raises(LabError) as refused:
            clean_labs(LabTable(file).tables())
        assert str(refused.value) == (
            f"{file}: the 30 glucose values labelled mmol/L have a median of 2063 mg/dL; a cohort's median lies "
            "between 45 and 500 mg/dL. The unit or the code is wrong: correct the unit in the table or in the "
            "source's units, or map the column to its analyte."
        )

    def test_one_very_ill_patient_is_no_wrong_unit(self):
        rows = [one(12, code="50813", unit="mmol/L", drawn=i) for i in range(50)]
        assert len(clean(rows).frame) == 50

    def test_the_accepted_range_holds_the_plausible_medians(self):
        for lab in LABS:
            low, high = lab.plausible_median
            assert lab.low < low < high < lab.high


class TestTimes:
    def test_the_result_is_available_when_the_source_says_so(self):
        assert clean([one(known=45)]).frame["available_at_us"].tolist() == [45 * MINUTE_US]

    def test_else_after_the_configured_delay(self):
        events = clean([one(), one(drawn=9, known=10)], LabConfig(result_delay_minutes=30.0))
        assert events.frame["available_at_us"].tolist() == [30 * MINUTE_US, 10 * MINUTE_US]
        assert events.repairs["result time assumed"] == 1

    def test_a_result_before_its_draw_is_dropped(self):
        assert clean([one(drawn=10, known=9)]).exclusions == {"result earlier than its draw": 1}

    def test_a_draw_without_a_time_is_dropped(self):
        assert clean([one(drawn=None)]).exclusions == {"no draw time": 1}

    def test_times_beyond_the_range_of_nanoseconds(self):
        minute = 9_300_000_000_000_000 // MINUTE_US  # in 2264
        assert clean([one(drawn=minute)]).frame["sampled_at_us"].tolist() == [minute * MINUTE_US]


class TestDuplicates:
    TOGETHER = (one(150, known=9), one(140, known=9), one(141, known=9), one(130, drawn=1, known=1))
    LATER = (one(150, known=5), one(140, known=9), one(141, known=20), one(130, drawn=1, known=1))

    @pytest.mark.parametrize(
        ("rule", "value"), [("median", 141), ("max", 150), ("first", 150), ("last", 141)]
    )
    def test_one_value_stands_for_one_draw(self, rule, value):
        events = clean(self.TOGETHER, LabConfig(duplicates=rule))
        assert events.frame["value"].tolist() == [value, 130]
        assert events.frame["available_at_us"].iloc[0] == 9 * MINUTE_US
        assert events.repairs[f"merged into another result of the same draw ({rule})"] == 2

    @pytest.mark.parametrize(
        ("rule", "versions"),
        [
            ("median", [(150, 5), (145, 9), (141, 20)]),
            ("max", [(150, 5)]),
            ("first", [(150, 5)]),
            ("last", [(150, 5), (140, 9), (141, 20)]),
        ],
    )
    def test_a_later_result_counts_from_when_it_was_known(self, rule, versions):
        events = clean(self.LATER, LabConfig(duplicates=rule))
        draw = events.frame[events.frame["sampled_at_us"] == 0]
        assert list(zip(draw["value"], draw["available_at_us"] // MINUTE_US, strict=True)) == versions
        assert final_results(events.frame)["value"].tolist() == [versions[-1][0], 130]
        assert lab_counts(events)["sodium"] == 2
        merged = events.repairs[f"merged into another result of the same draw ({rule})"]
        assert merged == 3 - len(versions)

    def test_other_patients_and_labs_are_not_merged(self):
        assert len(clean([one(), one(patient="2"), one(4, code="50971")]).frame) == 3


class TestDilution:
    def test_low_sodium_and_high_glucose_of_one_draw_drop_the_whole_draw(self):
        draw = [one(84), one(1601, code="50931", unit="mg/dL"), one(3, code="50971")]
        events = clean([*draw, one(140, drawn=9)])
        assert events.exclusions == {"draw diluted by an infusion (sodium and glucose together)": 3}
        assert events.frame["value"].tolist() == [140]

    def test_what_was_reported_before_the_dilution_showed_is_withdrawn_then(self):
        rows = [
            one(84, known=5),
            one(3, code="50971", known=30),
            one(1601, code="50931", unit="mg/dL", known=20),
        ]
        events = clean([*rows, one(140, drawn=9, known=9)])
        assert events.exclusions == {"draw diluted by an infusion (sodium and glucose together)": 2}
        assert events.frame["value"].tolist() == pytest.approx([84, np.nan, 140], nan_ok=True)
        assert (events.frame["available_at_us"] // MINUTE_US).tolist() == [5, 20, 9]
        assert final_results(events.frame)["value"].tolist() == [140]

    @pytest.mark.parametrize("rows", [[one(84)], [one(1601, code="50931", unit="mg/dL")]])
    def test_either_alone_is_kept(self, rows):
        assert len(clean(rows).frame) == 1

    def test_draws_at_other_times_or_of_others_are_kept(self):
        rows = [
            one(84),
            one(1601, code="50931", unit="mg/dL", drawn=1),
            one(1601, code="50931", unit="mg/dL", patient="2"),
        ]
        assert len(clean(rows).frame) == 3


def test_every_row_is_kept_dropped_or_merged():
    rng = np.random.default_rng(1)
    values = ["", "x", "<1", "140", "141", "999", "-1", None, 4.2, np.inf]
    codes = ["50983", "50971", "50808", "50824", "1"]
    rows = [
        one(values[rng.integers(10)], code=codes[rng.integers(5)], drawn=int(rng.integers(40)), known=20)
        for _ in range(500)
    ]
    events = clean(rows)
    merged = events.repairs["merged into another result of the same draw (median)"]
    assert len(events.frame) + sum(events.exclusions.values()) + merged == 500
    assert len(events.frame) > 10


def test_no_row_gives_an_empty_table():
    events = clean([])
    assert len(events.frame) == 0
    numbers = {"value": "float64", "sampled_at_us": "int64", "available_at_us": "int64"}
    types = events.frame.dtypes.astype(str).to_dict()
    assert tuple(types) == LAB_EVENT_COLUMNS
    assert {name: types[name] for name in numbers} == numbers
    assert {types[name] for name in types if name not in numbers} == {"str"}
    assert isinstance(events, LabEvents)


def test_the_sources_own_counts_are_carried_on():
    table = pd.DataFrame(columns=COLUMNS)
    tables = ClinicalTables(labs=table, admissions=table, licence="")
    tables.exclusions["line too long"] = 4
    assert clean_labs(tables).exclusions == {"line too long": 4}


def test_a_missing_column_is_named():
    table = pd.DataFrame(columns=["subject", "itemid"])
    with pytest.raises(LabError, match=r"lacks the column\(s\) patient_id, code, .* it has subject, itemid"):
        clean_labs(ClinicalTables(labs=table, admissions=table, licence=""))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("result_delay_minutes", -1.0),
        ("result_delay_minutes", 1e6),
        ("sanity_values", 0),
        ("duplicates", "mean"),
        ("specimens", "urine"),
    ],
)
def test_config_names_the_wrong_field(field, value):
    with pytest.raises((ValueError, TypeError), match=field):
        LabConfig(**{field: value})
