"""Worker processes: what they run first, and that none outlives whoever started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.foundation.workers import worker_pool

STARTED = """
import os, signal, sys, time
from pathlib import Path

signal.signal(signal.SIGTERM, signal.SIG_DFL)  # who started the tests may ignore or block it, and children inherit that
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
from pipeline.foundation.workers import worker_pool

def work(folder):
    Path(folder, str(os.getpid())).touch()
    time.sleep(600)

if __name__ == "__main__":
    with worker_pool(2) as pool:
        list(pool.map(work, [sys.argv[1]] * 2))
"""


def test_it_runs_what_is_asked_for_after_what_comes_first() -> None:
    with worker_pool(1, os.putenv, ("OF_A_WORKER", "set")) as pool:
        said = pool.submit(subprocess.check_output, ["printenv", "OF_A_WORKER"], text=True).result()
        assert said == "set\n"
        assert pool.submit(os.getpid).result() != os.getpid()
    assert "OF_A_WORKER" not in os.environ


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_a_parent_that_is_killed(tmp_path: Path, how: signal.Signals) -> None:
    script, marks = tmp_path / "parent.py", tmp_path / "marks"
    script.write_text(STARTED)
    marks.mkdir()
    parent = subprocess.Popen([sys.executable, str(script), str(marks)])
    try:
        until(lambda: len(list(marks.iterdir())) == 2)
        workers = [int(path.name) for path in marks.iterdir()]
    finally:
        parent.send_signal(how)
        ended = ends(parent)
        parent.kill()
    assert ended, f"{how.name} did not end the parent"
    until(lambda: not any(map(runs, workers)))


def until(what) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end, "it did not come within a minute"
        time.sleep(0.05)


def ends(process: subprocess.Popen) -> bool:
    """Wait up to a minute."""
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        return False
    return True


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie that nobody has collected."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
