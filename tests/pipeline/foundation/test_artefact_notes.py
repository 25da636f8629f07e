"""Every Parquet file tells what made it and what its licence allows; licences flow from the inner note to the outer."""

from pathlib import Path

import pandas as pd

from pipeline.foundation.artefact_notes import (
    SHARING,
    UNKNOWN_LICENCE,
    ArtefactNote,
    add_checkpoint,
    add_licences,
    noted,
    parquet_note,
)
from pipeline.foundation.atomic import write_parquet

FRAME = pd.DataFrame({"a": [1, 2], "b": ["x", None]})


def test_a_file_carries_the_open_note(tmp_path: Path) -> None:
    with noted(ArtefactNote(stage="predictions", config_hash="c", inputs_hash="i")):
        add_licences(["PhysioNet, credentialed", ""])
        write_parquet(tmp_path / "a.parquet", FRAME)
    assert parquet_note(tmp_path / "a.parquet") == {
        "stage": "predictions", "config_hash": "c", "inputs_hash": "i",
        "licences": ["PhysioNet, credentialed"], "checkpoints": [], "sharing": SHARING,
    }  # fmt: skip
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), FRAME)


def test_a_file_of_unknown_origin_is_confidential(tmp_path: Path) -> None:
    add_licences(["lost"])
    write_parquet(tmp_path / "a.parquet", FRAME)
    assert parquet_note(tmp_path / "a.parquet")["licences"] == [UNKNOWN_LICENCE]


def test_what_an_inner_note_gathers_reaches_the_outer_one() -> None:
    with noted(ArtefactNote(stage="outer")) as outer:
        with noted(ArtefactNote(stage="inner", licences={"mine"})):
            add_licences(["hospital"])
            add_checkpoint("f00d", ["another hospital"])
        assert outer.licences == {"mine", "hospital", "another hospital"}
        assert outer.checkpoints == {"f00d"}


def test_a_foreign_file_has_no_note(tmp_path: Path) -> None:
    FRAME.to_parquet(tmp_path / "a.parquet")
    assert parquet_note(tmp_path / "a.parquet") == {}


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with noted(ArtefactNote(stage="s", licences={"y", "x"})):
            write_parquet(tmp_path / name, FRAME)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
