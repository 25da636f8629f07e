from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from pipeline.foundation.errors import LabError, RecordError
from pipeline.foundation.schema import ADMISSION_COLUMNS
from pipeline.sources.base import ClinicalSource, WaveformSource
from pipeline.sources.mimic3 import Mimic3Tables, Mimic3Waveforms
from pipeline.testing.clinical_folders import MIMIC_TABLES, write_mimic_tables
from pipeline.testing.waveform_folders import write_matched_subset_record
from pipeline.windows.cutting import WindowConfig, iterate_windows

SHARED = Path(__file__).parents[3].parent / "shared"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="../shared is absent")
HOUR_US = 3_600_000_000


def test_catalog_holds_masters_alone_in_order(tmp_path):
    write_matched_subset_record(tmp_path, 20, "3000002", "2183-04-29 10:00:00")
    write_matched_subset_record(tmp_path, 20, "3000001", "2183-04-28 17:47:00")
    write_matched_subset_record(tmp_path, 10013, "3000003", "2125-10-04 23:37:00")
    source = Mimic3Waveforms(tmp_path)
    assert isinstance(source, WaveformSource)
    found = source.catalog()
    assert [(r.patient_id, r.name) for r in found.records] == [
        ("10013", "p01/p010013/p010013-2125-10-04-23-37"),
        ("20", "p00/p000020/p000020-2183-04-28-17-47"),
        ("20", "p00/p000020/p000020-2183-04-29-10-00"),
    ]
    assert not found.exclusions
    first = found.records[1]
    assert first.end_us - first.start_us == 70_000_000
    assert {file.name for file in first.files} == {
        "p000020-2183-04-28-17-47.hea", "3000001_layout.hea", "3000001_0001.hea", "3000001_0001.dat",
    }  # fmt: skip


def test_from_record_to_windows(tmp_path):
    write_matched_subset_record(tmp_path, 20, "3000001", "2183-04-28 17:47:00", n=3750 * 2)
    source = Mimic3Waveforms(tmp_path)
    record = source.catalog().records[0]
    exclusions = Counter()
    batches = list(iterate_windows(source, [record], WindowConfig(), exclusions))
    assert [int(s) - record.start_us for b in batches for s in b.start_us] == [30_000_000]
    assert exclusions == {"window: partial, at a gap or an end": 2}


def test_bad_records_are_counted_and_the_rest_stays(tmp_path):
    write_matched_subset_record(tmp_path, 20, "3000001", "2183-04-28 17:47:00")
    write_matched_subset_record(tmp_path, 21, "3000002", "2183-04-28 17:47:00").write_text("")
    write_matched_subset_record(
        tmp_path, 22, "3000003", "2183-04-28 17:47:00", master_lines="3000003_layout 0\n~ 9999999999\n"
    )
    undated = write_matched_subset_record(tmp_path, 23, "3000004", "2183-04-28 17:47:00")
    undated.write_text(undated.read_text().replace(" 28/04/2183", ""))
    looped = write_matched_subset_record(tmp_path, 24, "3000005", "2183-04-28 17:47:00")
    looped.write_text(looped.read_text().replace("3000005_0001", looped.stem))
    found = Mimic3Waveforms(tmp_path).catalog()
    assert [r.patient_id for r in found.records] == ["20"]
    assert found.exclusions == {
        "record: header: empty": 1,
        "record: header: record too long": 1,
        "record: no base date": 1,
        "record: header: names itself": 1,
    }


def test_a_record_that_vanished_since_is_counted(tmp_path):
    path = write_matched_subset_record(tmp_path, 20, "3000001", "2183-04-28 17:47:00")
    source = Mimic3Waveforms(tmp_path)
    record = source.catalog().records[0]
    path.unlink()
    exclusions = Counter()
    assert list(source.stretches(record, exclusions)) == []
    assert exclusions == {"record: header missing": 1}


@pytest.mark.parametrize(("make", "error"), [(Mimic3Waveforms, RecordError), (Mimic3Tables, LabError)])
def test_an_absent_folder_is_one_clear_error(tmp_path, make, error):
    with pytest.raises(error, match="is no folder"):
        make(tmp_path / "absent")


@pytest.mark.parametrize("upper", [False, True])
def test_labs_as_they_are_written(tmp_path, upper):
    source = Mimic3Tables(write_mimic_tables(tmp_path, upper=upper))
    assert isinstance(source, ClinicalSource)
    found = source.tables()
    assert found.labs[["patient_id", "code", "value", "unit"]].to_numpy().tolist() == [
        ["20", "50971", "4.1", "mEq/L"],
        ["20", "50813", "<0.5", "mmol/L"],
        ["20", "50983", "LESS THAN 100 mEq/L", "mEq/L"],
        ["20", "50931", "___", "mg/dL"],
        ["20", "50809", "100", "mg/dL"],
    ]
    assert found.labs["sampled_at_us"].diff().dropna().tolist() == [HOUR_US, HOUR_US, HOUR_US, 0]
    assert found.labs["available_at_us"].isna().all()
    assert found.exclusions == {"lab: no patient": 1, "lab: no time": 1, "admission: no time": 1}


def test_admissions_with_age_sex_and_first_unit(tmp_path):
    found = Mimic3Tables(write_mimic_tables(tmp_path)).tables().admissions
    assert tuple(found.columns) == ADMISSION_COLUMNS
    assert found[["patient_id", "admission_id", "sex", "ethnicity", "care_unit"]].to_numpy().tolist() == [
        ["20", "7", "F", "WHITE", "MICU"],
        ["21", "8", "M", "unknown", "unknown"],
    ]
    assert found["age_years"].round(2).tolist() == [76.0, 90.0], "an age of 303 is a hidden one"
    assert (found["discharged_us"] - found["admitted_us"]).tolist() == [96 * HOUR_US] * 2


def test_patients_and_stays_are_optional_and_labs_are_not(tmp_path):
    write_mimic_tables(tmp_path)
    (tmp_path / "PATIENTS.csv").unlink()
    (tmp_path / "ICUSTAYS.csv").unlink()
    found = Mimic3Tables(tmp_path).tables()
    assert found.exclusions["table absent: PATIENTS"] == found.exclusions["table absent: ICUSTAYS"] == 1
    assert found.admissions["care_unit"].tolist() == ["unknown"] * 2
    assert found.admissions["age_years"].isna().all()
    (tmp_path / "LABEVENTS.csv").unlink()
    with pytest.raises(LabError, match=r"has no LABEVENTS\.csv"):
        Mimic3Tables(tmp_path).tables()


def test_tables_without_rows(tmp_path):
    first_lines = {name: MIMIC_TABLES[name].splitlines()[0] + "\n" for name in ("LABEVENTS", "ADMISSIONS")}
    found = Mimic3Tables(write_mimic_tables(tmp_path, **first_lines)).tables()
    assert len(found.labs) == len(found.admissions) == 0


@needs_shared
def test_real_demo_tables():
    found = Mimic3Tables(SHARED / "data" / "mimic_iii_demo").tables()
    counts = found.labs["code"].value_counts()
    serum = {"50971": 2279, "50983": 2185, "50931": 2121, "50893": 1757, "50813": 578}
    assert {code: counts[code] for code in serum} == serum
    assert len(found.admissions) == 129
    assert found.admissions["patient_id"].nunique() == 100
    assert not found.exclusions
    assert found.admissions["age_years"].between(15, 90).all()
    assert set(found.admissions["care_unit"]) == {"MICU", "SICU", "CCU", "TSICU", "CSRU"}
    years = (
        found.labs["sampled_at_us"].to_numpy().astype("datetime64[us]").astype("datetime64[Y]").astype(int)
        + 1970
    )
    assert years.min() >= 2100
    assert years.max() < 2210
    assert pd.to_numeric(found.labs["value"], errors="coerce").isna().sum() == 3, "text or bounds"


@needs_shared
def test_real_matched_subset_folder():
    found = Mimic3Waveforms(SHARED / "data" / "wfdb_multisegment").catalog()
    assert [r.patient_id for r in found.records] == ["878"]
    assert (found.records[0].end_us - found.records[0].start_us) / HOUR_US == pytest.approx(117.17, abs=0.01)
    assert not found.exclusions
