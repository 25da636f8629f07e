"""Summaries hold only what JSON and a reader can take."""

import json
from pathlib import Path

import pytest

from pipeline.foundation.errors import MissingArtifactError
from pipeline.foundation.summary import StageSummary, load_summary


def test_undefined_numbers_become_none(tmp_path: Path) -> None:
    summary = StageSummary(
        stage="x", counts={"r2": float("nan"), "n": 3}, tables={"t": [{"lower": float("-inf"), "mae": 0.5}]}
    )
    assert summary.counts == {"r2": None, "n": 3}
    assert summary.tables == {"t": [{"lower": None, "mae": 0.5}]}
    summary.save(tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text())["counts"] == {"r2": None, "n": 3}


def test_a_summary_that_is_not_there_names_its_stage(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match="run the stage 'lab_events'"):
        load_summary(tmp_path / "lab_events.json")
