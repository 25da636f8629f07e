"""The picture of one patient: what is drawn, and what must not stand in it."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.foundation.errors import StoreError
from pipeline.prediction.one_patient import OnePatient
from pipeline.report import style
from pipeline.report.patient_plot import patient_figure, picture_names, write_pictures
from pipeline.testing.estimates import estimates_table

PATIENT = "A1234567"


def one(**columns) -> OnePatient:
    table = estimates_table(PATIENT, "0badf00d", rows=200).assign(**columns)
    return OnePatient(patient=PATIENT, rows=table, other_sequences=0)


def drawn(found: OnePatient):
    with style.styled():
        return patient_figure(found)


def labels(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_panel_a_lab_with_its_unit_line_interval_and_draws() -> None:
    figure = drawn(one())
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "potassium\nmmol/L", "calcium\nmg/dL", "sodium\nmmol/L", "glucose\nmg/dL", "lactate\nmmol/L",
    ]  # fmt: skip
    assert labels(figure) == ["interval", "estimate", "measured"]
    line = figure.axes[2].get_lines()[0]
    assert line.get_xdata()[-1] == pytest.approx(200 / 120)
    assert figure.axes[2].get_lines()[-1].get_xdata().tolist() == pytest.approx([30 / 3600 - 2])


def test_what_is_weaker_is_drawn_weaker_and_silence_is_shown() -> None:
    found = one()
    step = found.rows.groupby("lab").cumcount()
    found.rows.loc[step >= 100, "state"] = "stale"
    found.rows.loc[step >= 150, ["state", "estimate", "lower", "upper"]] = [
        "no_signal",
        np.nan,
        np.nan,
        np.nan,
    ]
    figure = drawn(found)
    assert labels(figure)[:2] == ["interval", "no usable signal"]
    fresh, stale = figure.axes[0].get_lines()[:2]
    assert np.flatnonzero(np.isfinite(fresh.get_ydata())).tolist() == list(range(100))
    assert np.flatnonzero(np.isfinite(stale.get_ydata())).tolist() == list(range(100, 150))
    assert stale.get_alpha() < 1
    assert labels(drawn(one(state="history_only"))) == [
        "interval",
        "estimate from earlier results alone",
        "measured",
    ]


def test_bounds_that_are_not_known_are_not_drawn_and_a_lab_without_anything_has_no_panel() -> None:
    found = one(lower=np.nan, upper=np.nan)
    lactate = found.rows["lab"] == "lactate"
    found.rows.loc[lactate, ["estimate", "last_lab"]] = np.nan
    figure = drawn(found)
    assert len(figure.axes) == 4
    assert "interval" not in labels(figure)


def test_nothing_known_at_all_is_still_a_picture() -> None:
    figure = drawn(one(estimate=np.nan, lower=np.nan, upper=np.nan, last_lab=np.nan, state="warming_up"))
    assert len(figure.axes) == 5
    assert labels(figure) == []


def test_a_patient_who_trained_the_model_is_told() -> None:
    assert drawn(one()).get_supxlabel() == "Research only, not a medical device."
    known = one(known_patient=pd.array([True] * 1000, dtype="boolean"))
    assert drawn(known).get_supxlabel().startswith("This patient helped to train the model")


def test_both_files_hold_neither_id_nor_date_and_are_the_same_again(tmp_path: Path) -> None:
    names = picture_names(tmp_path / "picture")
    assert [name.name for name in names] == ["picture.svg", "picture.png"]
    write_pictures(one(), names)
    before = [name.read_bytes() for name in names]
    write_pictures(one(), names)
    assert [name.read_bytes() for name in names] == before
    for name, content in zip(names, before, strict=True):
        assert name.stat().st_mode & 0o777 == 0o600
        for telling in (PATIENT, "0badf00d", "2150-", "-03-01"):
            assert telling.encode() not in content
    assert before[0].startswith(b"<?xml")
    with Image.open(io.BytesIO(before[1])) as image:
        assert image.size == (1800, 1470)
        assert not image.info.keys() & {"Software", "Creation Time"}


@pytest.mark.parametrize("name", ["picture.svg", "picture.PNG", "picture"])
def test_an_ending_may_be_given(name: str, tmp_path: Path) -> None:
    assert [path.name for path in picture_names(tmp_path / name)] == ["picture.svg", "picture.png"]
    assert picture_names(tmp_path / "v1.2")[0].name == "v1.2.svg"


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        picture_names(tmp_path / "file" / "picture")
