import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.foundation.errors import LabError
from pipeline.sources.meds import MedsTables, understand
from pipeline.testing.clinical_folders import write_meds_shard
from pipeline.testing.waveform_folders import START, START_US

HOUR_US = 3_600_000_000


def labs(root) -> tuple[list[list], dict]:
    found = MedsTables(root).tables()
    rows = found.labs.sort_values(["sampled_at_us", "code"])
    hours = (rows["sampled_at_us"] - START_US) / HOUR_US
    known = (rows["available_at_us"] - START_US) / HOUR_US
    return [
        [*row, h, None if pd.isna(k) else float(k)]
        for row, h, k in zip(
            rows[["patient_id", "code", "value", "unit"]].to_numpy().tolist(), hours, known, strict=True
        )
    ], found.exclusions


def test_results_and_draws_give_both_times(tmp_path):
    write_meds_shard(
        tmp_path,
        [
            (1, None, "GENDER//F", None, None),
            (1, 0, "LAB//SPECIMEN_COLLECTED//50971", None, None),
            (1, 1, "LAB//RESULT//50971//mEq/L", 4.5, None),
            (1, 2, "HR", 80.0, None),
            (1, 6, "LAB//SPECIMEN_COLLECTED//50971", None, None),
            (1, 7.5, "LAB//RESULT//50971//mEq/L", None, "HEMOLYZED"),
            (2, 9, "LAB//RESULT//50971//mEq/L", 4.0, None),
            (1, 90, "LAB//RESULT//50971//mEq/L", 4.0, None),
        ],
    )
    rows, exclusions = labs(tmp_path)
    assert rows == [
        ["1", "50971", 4.5, "mEq/L", 0, 1],
        ["1", "50971", "HEMOLYZED", "mEq/L", 6, 7.5],
    ]
    assert exclusions == {"lab: result without a draw": 2}


def test_older_extracts_have_the_draw_alone(tmp_path):
    write_meds_shard(
        tmp_path, [(1, 3, "LAB//50813//mmol/L", 2.0, None), (1, None, "LAB//50813//mmol/L", 2.0, None)]
    )
    assert labs(tmp_path) == ([["1", "50813", 2.0, "mmol/L", 3, None]], {"lab: no time": 1})


def test_codes_by_their_loinc_parent(tmp_path):
    write_meds_shard(
        tmp_path, [(1, 0, "hospital//NA+//mmol/L", 140.0, None), (1, 1, "hospital//CL-//mmol/L", 100.0, None)]
    )
    codes = pa.table(
        {
            "code": ["hospital//NA+//mmol/L", "hospital//CL-//mmol/L"],
            "description": ["sodium", None],
            "parent_codes": pa.array([["LOINC/2951-2"], None], pa.list_(pa.string())),
        }
    )
    (tmp_path / "metadata").mkdir()
    pq.write_table(codes, tmp_path / "metadata" / "codes.parquet")
    assert labs(tmp_path)[0] == [["1", "2951-2", 140.0, "mmol/L", 0, None]]


def test_all_shards_are_read_and_columns_may_be_absent(tmp_path):
    write_meds_shard(tmp_path, [(1, 0, "LAB//50971//mEq/L", 4.0, None)], text_value=None)
    write_meds_shard(
        tmp_path, [(2, 1, "LOINC//2345-7", None, "<10")], "held_out/0.parquet", numeric_value=None
    )
    write_meds_shard(tmp_path, [(3, 2, "HR", 80.0, None)], "tuning/0.parquet")
    rows, _ = labs(tmp_path)
    assert rows == [["1", "50971", 4.0, "mEq/L", 0, None], ["2", "2345-7", "<10", "", 1, None]]


def test_a_unit_column_is_used_where_the_code_has_none(tmp_path):
    write_meds_shard(tmp_path, [(1, 0, "LOINC//2345-7", 5.0, None)], unit=pa.array(["mmol/L"]))
    assert labs(tmp_path)[0] == [["1", "2345-7", 5.0, "mmol/L", 0, None]]


@pytest.mark.parametrize(
    "code",
    [
        "HR",
        "LAB//50912//mg/dL",
        "DIAGNOSIS//50971",
        "LAB//SPECIMEN_COLLECTED//50912",
        "LOINC//1994-3",
        "",
        "LAB",
    ],
)
def test_other_codes_mean_nothing(code):
    assert understand(code, {}) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subject_id": pa.array([1.0])}, "column subject_id is double; MEDS 0.4 wants int64"),
        ({"time": pa.array(["2150-02-01"])}, "column time is string"),
        ({"code": None}, "column code is absent"),
        (
            {"time": pa.array([pd.Timestamp(START)], pa.timestamp("us", "UTC"))},
            "column time carries time zones",
        ),
    ],
)
def test_a_shard_that_breaks_the_standard_is_explained(tmp_path, changes, message):
    write_meds_shard(tmp_path, [(1, 0, "LAB//50971//mEq/L", 4.0, None)], **changes)
    with pytest.raises(LabError, match=message):
        MedsTables(tmp_path).tables()


@pytest.mark.parametrize("kind", ["s", "ms", "ns"])
def test_other_resolutions_and_dictionaries_do_no_harm(tmp_path, kind):
    write_meds_shard(
        tmp_path,
        [(1, 0, "LAB//50971//mEq/L", 4.0, None)],
        time=pa.array([pd.Timestamp(START)], pa.timestamp(kind)),
        code=pa.array(["LAB//50971//mEq/L"]).dictionary_encode(),
    )
    assert labs(tmp_path)[0] == [["1", "50971", 4.0, "mEq/L", 0, None]]


def test_what_is_no_dataset_is_one_clear_error(tmp_path):
    with pytest.raises(LabError, match="no folder data"):
        MedsTables(tmp_path)
    (tmp_path / "data").mkdir()
    with pytest.raises(LabError, match=r"no \.parquet shard"):
        MedsTables(tmp_path).tables()
    (tmp_path / "data" / "0.parquet").write_bytes(b"nothing")
    with pytest.raises(LabError, match="cannot be read as Parquet"):
        MedsTables(tmp_path).tables()
