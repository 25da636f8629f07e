import datetime

import pandas as pd
import pytest

from pipeline.foundation.errors import LabError
from pipeline.foundation.schema import ADMISSION_COLUMNS
from pipeline.sources.base import ClinicalSource
from pipeline.sources.lab_table import LabTable, LabTableConfig
from pipeline.testing.clinical_folders import LONG_TABLE, LONG_TABLE_COLUMNS, STAYS, write_table
from pipeline.testing.waveform_folders import START_US

HOUR_US = 3_600_000_000


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
def test_a_table_unlike_mimic(tmp_path, kind):
    source = LabTable(
        write_table(tmp_path, LONG_TABLE, kind),
        column_map=LONG_TABLE_COLUMNS,
        code_map={"KALIUM": "potassium", "GLU": "glucose"},
        units={"glucose": "mmol/L"},
        time_offset=datetime.timedelta(hours=-1),
        licence="our hospital",
    )
    assert isinstance(source, ClinicalSource)
    found = source.tables()
    assert found.labs[["patient_id", "code", "value", "unit"]].to_numpy().tolist() == [
        ["A-1", "potassium", "4.1", "mmol/L"],
        ["A-1", "glucose", "5,5", "mmol/L"],
        ["20", "2947-0", "<100", "mmol/L"],
    ]
    assert found.labs["sampled_at_us"].tolist() == [START_US - HOUR_US] * 3
    assert found.labs["available_at_us"].tolist() == [START_US, pd.NA, START_US]
    assert found.exclusions == {"lab: no patient": 1, "lab: no time": 1}
    assert len(found.admissions) == 0
    assert found.licence == "our hospital"


def test_typed_parquet_columns(tmp_path):
    frame = pd.DataFrame(
        {
            "patient_id": [20.0, 21.0],
            "code": [50971, 50971],
            "value": [4.1, None],
            "sampled_at": pd.array(["2150-02-01T10:00", None], dtype="datetime64[ns]"),
        }
    )
    found = LabTable(write_table(tmp_path, frame, "parquet"), units={"50971": "mEq/L"}).tables()
    assert found.labs[["patient_id", "code", "value", "unit", "sampled_at_us"]].to_numpy().tolist() == [
        ["20", "50971", 4.1, "mEq/L", START_US]
    ]
    assert found.labs["available_at_us"].isna().all()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_column_that_is_not_there_is_named(tmp_path, kind):
    path = write_table(tmp_path, LONG_TABLE.drop(columns=["Collected"]), kind)
    with pytest.raises(LabError, match="has no column Collected"):
        LabTable(path, column_map=LONG_TABLE_COLUMNS).tables()


def test_time_zones_are_refused(tmp_path):
    frame = LONG_TABLE.assign(Collected="2150-02-01T10:00:00Z")
    with pytest.raises(LabError, match="column Collected carries time zones"):
        LabTable(write_table(tmp_path, frame, "csv"), column_map=LONG_TABLE_COLUMNS).tables()


def test_what_is_no_table_is_one_clear_error(tmp_path):
    with pytest.raises(LabError, match="is not there"):
        LabTable(tmp_path / "labs.csv").tables()
    (tmp_path / "labs.parquet").write_bytes(b"nothing")
    with pytest.raises(LabError, match="cannot be read as Parquet"):
        LabTable(tmp_path / "labs.parquet").tables()


def test_an_unknown_name_in_the_column_map():
    with pytest.raises(ValueError, match="column_map"):
        LabTableConfig(column_map={"time": "Collected"})


@pytest.mark.parametrize("described", [True, False])
def test_admissions(tmp_path, described):
    stays = STAYS
    if described:
        stays = stays.assign(age_years=["61.5", ""], sex=["F", ""], care_unit=["MICU", ""])
    path = write_table(tmp_path, stays, "csv", "stays")
    labs = write_table(tmp_path, LONG_TABLE, "csv")
    offset = datetime.timedelta(hours=1)
    found = LabTable(labs, column_map=LONG_TABLE_COLUMNS, admissions=path, time_offset=offset).tables()
    (row,) = found.admissions.itertuples(index=False)
    assert tuple(found.admissions.columns) == ADMISSION_COLUMNS
    assert (row.patient_id, row.admission_id, row.admitted_us) == ("A-1", "7", START_US + HOUR_US)
    assert row.discharged_us - row.admitted_us == 48 * HOUR_US
    assert (row.sex, row.care_unit, row.ethnicity) == (("F", "MICU") if described else ("unknown",) * 2) + (
        "unknown",
    )
    assert (row.age_years == 61.5) == described
    assert found.exclusions["admission: no time"] == 1
