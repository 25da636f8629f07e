"""Measuring a stage: its own peak, its bytes, its errors, and a process that is killed."""

import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pipeline.foundation.errors import LabError, ProjectError
from pipeline.rehearsal.measure import Outcome, Row, measured


def holds(megabytes: int) -> Outcome:
    return Outcome(counts={"sum": float(np.ones(megabytes * 125_000).sum())})


def writes(path: Path) -> Outcome:
    path.write_bytes(bytes(30_000_000))
    return Outcome(counts={"bytes": len(path.read_bytes())})


def fails() -> Outcome:
    raise LabError("no lab at all")


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


def test_a_stages_error_comes_through(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no lab at all"):
        measured("s", fails)


def test_a_killed_stage_is_one_clear_error() -> None:
    with pytest.raises(ProjectError, match="the stage 'align' was killed, most likely for want of memory"):
        measured("align", is_killed)
