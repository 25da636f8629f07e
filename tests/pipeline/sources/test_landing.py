"""A recording counts as landed when its header is there, its sizes match and it has been quiet."""

import os
from pathlib import Path

import pytest

from pipeline.sources.landing import folder_state, is_half_copied

NOW = 2_000_000_000.0


def write_record(
    folder: Path, *, samples: int = 1000, present: int | None = None, age_s: float = 3600.0
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "p000001-2150-01-01-00-00.hea").write_text(
        f"p000001-2150-01-01-00-00/1 1 125 {samples} 00:00:00 01/01/2150\n3000001_0001 {samples}\n"
    )
    (folder / "3000001_0001.hea").write_text(
        f"3000001_0001 1 125 {samples}\n3000001_0001.dat 80 255(-128)/NU 8 0 0 0 0 PLETH\n"
    )
    (folder / "3000001_0001.dat").write_bytes(b"\x90" * (samples if present is None else present))
    for file in folder.iterdir():
        os.utime(file, (NOW - age_s, NOW - age_s))


def test_a_complete_quiet_folder_has_landed(tmp_path: Path) -> None:
    write_record(tmp_path / "p00" / "p000001")
    landing = folder_state(tmp_path, now=NOW)
    assert (landing.n_landed, landing.n_waiting) == (1, 0)


@pytest.mark.parametrize(
    ("present", "age_s"), [(999, 3600.0), (1000, 10.0)], ids=["half copied", "not quiet"]
)
def test_a_record_being_copied_waits(tmp_path: Path, present: int, age_s: float) -> None:
    write_record(tmp_path / "p00" / "p000001", present=present, age_s=age_s)
    landing = folder_state(tmp_path, now=NOW)
    assert (landing.n_landed, landing.n_waiting) == (0, 1)


def test_a_missing_segment_header_waits(tmp_path: Path) -> None:
    write_record(tmp_path)
    (tmp_path / "3000001_0001.hea").unlink()
    assert is_half_copied(tmp_path)


def test_state_changes_with_a_new_record_and_not_otherwise(tmp_path: Path) -> None:
    write_record(tmp_path / "a")
    before = folder_state(tmp_path, now=NOW).state
    assert folder_state(tmp_path, now=NOW + 100).state == before
    write_record(tmp_path / "b", age_s=10.0)
    assert folder_state(tmp_path, now=NOW).state == before, "a record being copied changes nothing yet"
    assert folder_state(tmp_path, now=NOW + 100).state != before


def test_lists_of_records_are_no_recordings(tmp_path: Path) -> None:
    (tmp_path / "RECORDS").write_text("p00/p000001/\n")
    assert folder_state(tmp_path, now=NOW).n_waiting == 0


def test_an_absent_folder_has_nothing(tmp_path: Path) -> None:
    assert folder_state(tmp_path / "absent", now=NOW).n_landed == 0
