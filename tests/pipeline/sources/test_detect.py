"""Which adapter reads a folder, and what its description may say."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.foundation.errors import ConfigError
from pipeline.sources.array_folder import ArrayFolder
from pipeline.sources.detect import DESCRIPTION, open_clinical, open_waveforms
from pipeline.sources.lab_table import LabTable
from pipeline.sources.mimic3 import Mimic3Tables, Mimic3Waveforms
from pipeline.sources.wfdb.folder import WfdbFolder
from pipeline.testing.waveform_folders import write_wfdb_record


@pytest.fixture
def wfdb(tmp_path: Path) -> Path:
    write_wfdb_record(tmp_path / "waves" / "bed7", "rec1", when="")
    return tmp_path / "waves"


def describe(folder: Path, **content: object) -> None:
    (folder / DESCRIPTION).write_text(json.dumps(content))


def test_matched_subset_layout(tmp_path: Path) -> None:
    (tmp_path / "p00").mkdir()
    assert isinstance(open_waveforms(tmp_path), Mimic3Waveforms)


def test_a_record_without_a_date_is_counted_until_a_start_is_assumed(wfdb: Path) -> None:
    source = open_waveforms(wfdb)
    assert isinstance(source, WfdbFolder)
    assert source.catalog().exclusions == {"record: no base date": 1}
    describe(wfdb, assume_start="2150-01-01T00:00", patient_from="record", licence="ours")
    source = open_waveforms(wfdb)
    assert [record.patient_id for record in source.catalog().records] == ["rec1"]
    assert source.licence == "ours"


def test_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(10, np.float32))
    assert isinstance(open_waveforms(tmp_path), ArrayFolder)


def test_an_empty_folder_is_refused_with_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Matched Subset layout"):
        open_waveforms(tmp_path)
    with pytest.raises(ConfigError, match=r"LABEVENTS\.csv"):
        open_clinical(tmp_path)


def test_mimic_tables(tmp_path: Path) -> None:
    (tmp_path / "LABEVENTS.csv").write_text("")
    assert isinstance(open_clinical(tmp_path), Mimic3Tables)


def test_one_long_table_with_its_description(tmp_path: Path) -> None:
    rows = {"mrn": ["7"], "test": ["K"], "result": [4.1], "drawn": ["2150-01-01 08:00:00"]}
    pd.DataFrame(rows).to_csv(tmp_path / "labs.csv", index=False)
    describe(
        tmp_path,
        path="labs.csv",
        column_map={"patient_id": "mrn", "code": "test", "value": "result", "sampled_at": "drawn"},
        code_map={"K": "potassium"},
        units={"potassium": "mmol/L"},
        time_offset_hours=1,
    )
    source = open_clinical(tmp_path)
    assert isinstance(source, LabTable)
    labs = source.tables().labs
    assert labs["patient_id"].tolist() == ["7"]
    drawn = labs["sampled_at_us"].to_numpy().astype("datetime64[us]")[0]
    assert drawn == np.datetime64("2150-01-01T09:00:00")
    again = open_clinical(tmp_path / DESCRIPTION)
    assert isinstance(again, LabTable), "the description itself may be pointed at"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"patient": "record"}', "may only hold"),
        ("{not json", "is no JSON"),
        ('{"path": "elsewhere"}', "does not exist"),
        ('{"patient_from": "("}', "no regular expression"),
        ('{"assume_start": "noon"}', "is no time"),
    ],
)
def test_a_bad_description_is_one_clear_error(wfdb: Path, content: str, message: str) -> None:
    (wfdb / DESCRIPTION).write_text(content)
    with pytest.raises(ConfigError, match=message):
        open_waveforms(wfdb)
