"""One patient out of a file of estimates, by row or by id, from both formats; whatever is wrong is one clear error."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.foundation.errors import ConfigError
from pipeline.prediction.estimates_file import ESTIMATES_COLUMNS, write_estimates
from pipeline.prediction.one_patient import read_one_patient
from pipeline.testing.estimates import estimates_table

BEGIN = pd.Timestamp("2150-03-01 08:00:00")


@pytest.fixture(params=[".parquet", ".csv"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"estimates{request.param}"
    first = estimates_table("007", "0000000a", rows=6)
    longer = estimates_table("007", "0000000b", rows=9, begin=BEGIN + pd.Timedelta(days=30))
    write_estimates(
        path, pd.concat([estimates_table("123", "0000000c", rows=3), first, longer], ignore_index=True)
    )
    return path


def test_by_id_the_longest_sequence_comes_in_order(path: Path) -> None:
    found = read_one_patient(path, patient="007")
    assert set(found.rows["sequence"]) == {"0000000b"}
    assert found.other_sequences == 1
    assert len(found.rows) == 9 * 5
    assert found.rows["window_end"].is_monotonic_increasing
    assert tuple(found.rows.columns) == ESTIMATES_COLUMNS


def test_a_row_chooses_patient_and_sequence(path: Path) -> None:
    assert read_one_patient(path, row=1).patient == "123"
    assert read_one_patient(path, row=3 * 5).patient == "123"
    found = read_one_patient(path, row=3 * 5 + 1)
    assert (found.patient, set(found.rows["sequence"])) == ("007", {"0000000a"})
    assert read_one_patient(path, row=18 * 5).rows["sequence"].iloc[0] == "0000000b"


def test_a_state_that_no_version_writes_is_refused(tmp_path: Path) -> None:
    write_estimates(tmp_path / "e.csv", estimates_table("7", "a", rows=5).replace({"state": {"ok": "fine"}}))
    with pytest.raises(ConfigError, match=r"e\.csv: state 'fine' is none of warming_up, .*run predict again"):
        read_one_patient(tmp_path / "e.csv", row=1)


def test_both_formats_give_the_same(tmp_path: Path) -> None:
    found = []
    for ending in (".parquet", ".csv"):
        write_estimates(tmp_path / f"e{ending}", estimates_table("7", "a", rows=5))
        one = read_one_patient(tmp_path / f"e{ending}", row=1)
        found.append((one.trajectory, one.draws, one.helped_to_train))
    pd.testing.assert_frame_equal(found[0][0], found[1][0], check_dtype=False)
    pd.testing.assert_frame_equal(found[0][1], found[1][1])
    assert found[0][2] == found[1][2]


def test_times_are_hours_since_the_first_window_began(path: Path) -> None:
    trajectory = read_one_patient(path, row=1).trajectory
    assert trajectory["hours"].iloc[0] == pytest.approx(30 / 3600)
    assert not {"patient", "sequence", "window_end"} & set(trajectory.columns)


def test_draws_are_those_that_stand_and_the_last_before(tmp_path: Path) -> None:
    table = estimates_table("7", "a", rows=8)
    sodium = np.flatnonzero(table["lab"] == "sodium")
    drawn = table["window_end"].iloc[sodium[1]] - pd.Timedelta(seconds=20)
    for row, value in ((1, 140.0), (3, 150.0)):  # a correction of the same draw
        table.loc[sodium[row], ["measured", "measured_at"]] = [value, drawn]
    gone = table["window_end"].iloc[sodium[4]]
    for row, value in ((4, 99.0), (6, np.nan)):  # a draw that was withdrawn
        table.loc[sodium[row], ["measured", "measured_at"]] = [value, gone]
    write_estimates(tmp_path / "e.parquet", table)
    draws = read_one_patient(tmp_path / "e.parquet", row=1).draws
    mine = draws[draws["lab"] == "sodium"]
    assert mine["value"].tolist() == [138.0, 150.0]
    assert mine["hours"].tolist() == pytest.approx([30 / 3600 - 2.0, 40 / 3600])


@pytest.mark.parametrize(
    ("patient", "name", "held"),
    [
        ("007", "007.svg", True),
        ("007", "bed_007.svg", True),
        ("007", "bed1007.svg", False),
        ("A12345", "xa12345b.svg", True),
        ("A12345", "trajectory.svg", False),
        ("a.b", "axb.svg", False),
    ],
)
def test_a_name_that_holds_the_id_is_known(patient: str, name: str, held: bool, tmp_path: Path) -> None:
    write_estimates(tmp_path / "e.parquet", estimates_table(patient, "a", rows=1))
    assert read_one_patient(tmp_path / "e.parquet", row=1).is_named_in(name) is held


@pytest.mark.parametrize("row", [0, -1, 91])
def test_a_row_that_is_not_there_is_refused(path: Path, row: int) -> None:
    with pytest.raises(ConfigError, match=rf"--row {row}: .* has the rows 1 to 90"):
        read_one_patient(path, row=row)


def test_an_unknown_patient_is_refused_and_not_named(path: Path) -> None:
    with pytest.raises(ConfigError, match="has no row of the patient named") as refused:
        read_one_patient(path, patient="99999")
    assert "99999" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("e.txt", b"", r"ends in \.parquet or \.csv"),
        ("absent.parquet", None, "does not exist"),
        ("e.parquet", b"no Parquet", "is not a file of estimates of this version"),
        ("e.csv", b"a,b\n1,2\n", r"it lacks patient, sequence.*: run predict again"),
        ("e.csv", b"", "is not a file of estimates"),
        ("e.csv", b"\xff\xfe\x00", "is not a file of estimates"),
    ],
)
def test_another_file_is_refused_in_one_line(
    name: str, content: bytes | None, said: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    for asked in ({"row": 1}, {"patient": "7"}):
        with pytest.raises(ConfigError, match=said) as refused:
            read_one_patient(tmp_path / name, **asked)
        assert "\n" not in str(refused.value)


def test_a_number_that_is_none_and_an_earlier_versions_file_are_refused(tmp_path: Path) -> None:
    table = estimates_table("7", "a", rows=2)
    table.drop(columns="measured").to_parquet(tmp_path / "old.parquet")
    with pytest.raises(ConfigError, match="it lacks measured"):
        read_one_patient(tmp_path / "old.parquet", patient="7")
    table.astype({"estimate": object}).assign(estimate="high").to_csv(tmp_path / "e.csv", index=False)
    with pytest.raises(ConfigError, match="high"):
        read_one_patient(tmp_path / "e.csv", patient="7")


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    write_estimates(tmp_path / "e.parquet", estimates_table("7", "a", rows=1).iloc[:0])
    with pytest.raises(ConfigError, match="has no row at all"):
        read_one_patient(tmp_path / "e.parquet", row=1)
