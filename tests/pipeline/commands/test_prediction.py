"""`plot` at the command line: the patient by standard input or by a row, and one line for each mistake."""

import io
from pathlib import Path

import pandas as pd
import pytest

from pipeline.__main__ import main
from pipeline.commands import prediction
from pipeline.prediction.estimates_file import write_estimates
from pipeline.testing.estimates import estimates_table


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tables = [
        estimates_table(*names, rows=n)
        for names, n in ((("P1000", "a"), 4), (("P1000", "b"), 6), (("P2000", "c"), 3))
    ]
    write_estimates(tmp_path / "e.csv", pd.concat(tables, ignore_index=True))
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_patient_is_read_from_standard_input(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("P1000\n"))
    assert main(["plot", "e.csv"]) == 0
    told = capsys.readouterr()
    assert "Not drawn: 1 other sequence of this patient; choose one by a row: --row N" in told.out
    assert told.out.endswith("picture: trajectory.svg\npicture: trajectory.png\n")
    assert told.err == ""
    assert (folder / "trajectory.png").read_bytes().startswith(b"\x89PNG")
    assert "P1000" not in told.out


def test_a_person_at_a_terminal_is_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("P2000\n"))
    assert main(["plot", "e.csv", "--out", "new/picture.png"]) == 0
    assert capsys.readouterr().err == "Patient, as the file's column 'patient' has it: "
    assert {path.name for path in (folder / "new").iterdir()} == {"picture.svg", "picture.png"}


def test_a_row_asks_nobody(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "_asked_patient", lambda: pytest.fail("asked"))
    assert main(["plot", "e.csv", "--row", "51"]) == 0
    assert (folder / "trajectory.svg").exists()


@pytest.mark.parametrize(
    ("words", "typed", "said"),
    [
        (["e.csv"], "", "no patient was named"),
        (["e.csv"], "P3000\n", "has no row of the patient named"),
        (["e.csv", "--row", "66"], "", "has the rows 1 to 65"),
        (["absent.csv", "--row", "1"], "", "does not exist"),
        (["e.csv", "--row", "1", "--out", "bed-p1000"], "", "would hold the patient's id"),
        (["e.csv", "--row", "1", "--out", "e.csv/picture"], "", "cannot write"),
    ],
)
def test_each_mistake_is_one_line_and_leaves_nothing(
    words: list[str],
    typed: str,
    said: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert main(["plot", *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == ["e.csv"]


def test_a_row_that_is_no_number_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plot", "e.csv", "--row", "first"])
    assert "--row" in capsys.readouterr().err
