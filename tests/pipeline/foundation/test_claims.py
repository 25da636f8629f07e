"""Claims: one holder at a time, over processes, whatever ends them; who waits says so."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.foundation.claims import claimed, only_writer
from pipeline.foundation.errors import StoreError

WRITER = """
import sys, time
from pathlib import Path
from pipeline.foundation.claims import only_writer
with only_writer(Path(sys.argv[1])):
    print("writing", flush=True)
    time.sleep(600)
"""


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Give a process that writes into `folder` until it is killed."""
    command = [sys.executable, "-c", WRITER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "writing\n"
            yield process
        finally:
            process.kill()


def test_one_holder_at_a_time_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "work.lock"
    with claimed(path, wait=False) as first, claimed(path, wait=False) as second:
        assert (first, second) == (True, False)
        assert path.stat().st_mode & 0o777 == 0o600
    with claimed(path, wait=True) as again:
        assert again
    assert list(tmp_path.iterdir()) == []


def test_who_waits_says_so_and_a_killed_writer_lets_go(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, turns = tmp_path / "deep" / "cohort", []

    def write() -> None:
        with only_writer(folder):
            turns.append("mine")

    with another_process(folder) as process:
        waiting = threading.Thread(target=write)
        waiting.start()
        while "another process" not in caplog.text and waiting.is_alive():
            time.sleep(0.01)
        assert f"another process is writing {folder}: waiting until it has ended" in caplog.text
        assert turns == []
        process.kill()
        waiting.join(60)
    assert turns == ["mine"]
    assert list((tmp_path / "deep").iterdir()) == []


def test_an_error_lets_go_and_nobody_waits_for_an_empty_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        with only_writer(tmp_path / "cohort"):
            raise RuntimeError("no")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="no"):
            fail()
    assert "another process" not in caplog.text


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = pytest.raises(StoreError, match=r"file: Not a directory; a part of the path is a file")
    with refused, only_writer(tmp_path / "file" / "cohort"):
        pass
