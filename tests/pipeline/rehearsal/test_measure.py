"""Measuring a stage: its own peak, its bytes, its errors, and a process that is killed."""

import dataclasses
import json
import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pipeline.foundation.errors import LabError, ProjectError
from pipeline.rehearsal.measure import Outcome, Row, measured, measured_here
from pipeline.rehearsal.table import rehearsal_table


def holds(megabytes: int) -> Outcome:
    return Outcome(counts={"sum": float(np.ones(megabytes * 125_000).sum())})


def writes(path: Path) -> Outcome:
    path.write_bytes(bytes(30_000_000))
    return Outcome(counts={"bytes": len(path.read_bytes())})


def fails() -> Outcome:
    raise LabError("no lab at all")


def samples() -> Outcome:
    return Outcome(seconds=1000.0, whole_seconds=7000.0, whole_means="40 epochs")


def is_killed() -> Outcome:
    os.kill(os.getpid(), signal.SIGKILL)
    return Outcome()


def test_a_peak_is_the_stages_own_and_is_saved(tmp_path: Path) -> None:
    small, large = (measured("s", partial(holds, megabytes)) for megabytes in (1, 300))
    assert 250 < large.peak_mb - small.peak_mb < 400
    path = tmp_path / "row.json"
    assert Row.load(path) is None
    assert Row.load(large.save(path) and path) == large


def test_bytes_read_and_written_are_counted(tmp_path: Path) -> None:
    row = measured("s", partial(writes, tmp_path / "file"))
    assert 30 <= row.written_mb < 32
    assert row.read_mb >= 30


def test_the_total_is_what_the_stages_took_not_their_samples() -> None:
    row = measured_here("s", samples)
    assert row.wall_seconds < 60 < row.seconds
    whole = dataclasses.replace(row, stage="w", wall_seconds=90.0, seconds=90.0, whole_seconds=None)
    lines = [line.split(" | ") for line in rehearsal_table([row, whole]).splitlines()]
    table = {line[0].removeprefix("| "): line[1:] for line in lines}
    assert table["all"][0] == f"{row.wall_seconds + 90:.1f} s"
    assert table["s"][5:] == ["16.7 min", "116.7 min, 40 epochs |"]
    assert table["w"][5:] == ["", " |"]


def test_a_row_from_before_wall_time_was_kept_is_read(tmp_path: Path) -> None:
    path = tmp_path / "row.json"
    row = dataclasses.replace(measured_here("s", samples), wall_seconds=3.0)
    row.save(path)
    assert Row.load(path) == row
    path.write_text(
        json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "wall_seconds"})
    )
    assert Row.load(path) == dataclasses.replace(row, wall_seconds=row.seconds)


def test_a_stages_error_comes_through(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no lab at all"):
        measured("s", fails)


def test_a_killed_stage_is_one_clear_error() -> None:
    with pytest.raises(ProjectError, match="the stage 'align' was killed, most likely for want of memory"):
        measured("align", is_killed)
