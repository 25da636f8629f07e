"""Tutorials run, and show what is stored with them."""

import importlib.util
import os
from pathlib import Path

import pytest

from docs.tools.notebook_pages import read
from docs.tools.run_notebooks import VOLATILE, differences, kept_outputs, run, same

TUTORIALS = sorted((Path(__file__).parents[3] / "docs" / "tutorials").glob("*.ipynb"))
HALF_AN_HOUR = 1800


@pytest.mark.slow
@pytest.mark.timeout(HALF_AN_HOUR)
@pytest.mark.skipif(importlib.util.find_spec("nbclient") is None, reason="nbclient: make setup-slow")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs_and_shows_what_is_stored(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("UNIPHY_")]:
        monkeypatch.delenv(name)
    assert differences(read(path), run(path, tmp_path)) == []


def test_there_are_three_and_each_shows_something() -> None:
    assert [path.stem for path in TUTORIALS] == ["demo", "hospital", "kernel"]
    for path in TUTORIALS:
        cells = [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]
        assert sum(bool(cell["outputs"]) for cell in cells) >= 5, "stored with its outputs"
        assert not any(output["output_type"] == "error" for cell in cells for output in cell["outputs"])
        assert "/tmp" not in path.read_text(), "paths are seen from the tutorial's folder"


@pytest.mark.parametrize(
    ("before", "after", "alike"),
    [
        ("r2   0.83", "r2 0.84", True),
        ("r2 0.83", "r2 0.63", False),
        ("12 patients", "13 patients", False),
        ("state ok", "state stale", False),
        ("mean 140.5", "mean 139.1", True),
        ("a 1.0", "a 1.0 2.0", False),
    ],
)
def test_words_and_counts_are_equal_and_decimals_within_rounding(
    before: str, after: str, alike: bool
) -> None:
    assert same(before, after) is alike


def notebook(*texts: str) -> dict:
    outputs = [{"output_type": "stream", "name": "stdout", "text": text} for text in texts]
    return {"cells": [{"cell_type": "code", "source": "", "outputs": outputs}]}


def test_what_differs_is_told_and_the_log_is_left_out() -> None:
    stored = notebook("patients: 3\n01:02:03  embedded 5 windows, 7 windows/s\n")
    assert differences(stored, notebook("patients: 3\n")) == []
    assert differences(stored, notebook("patients: 4\n")) == [
        "code cell 1: stored 'patients: 3', now 'patients: 4'"
    ]
    assert len(differences(stored, notebook("patients: 3\nlabs: 5\n"))) == 1
    assert all(VOLATILE.values())


def test_streams_are_joined_and_the_log_and_the_folder_are_not_stored(tmp_path: Path) -> None:
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": f"at {tmp_path}/a"},
        {"output_type": "stream", "name": "stderr", "text": "01:02:03 log"},
        {"output_type": "stream", "name": "stdout", "text": "/b\n"},
    ]
    assert [output["text"] for output in kept_outputs(outputs, tmp_path)] == ["at a/b\n"]
