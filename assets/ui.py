"""``python -m assets ui``: Dagster and the report's pages; one Ctrl-C ends everything that was started, within 10 s."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from assets.pages import HOST, page_server, pages_port
from pipeline.foundation.errors import ProjectError

GROUPS = ("ingest", "embed", "align", "train", "evaluate")
GENTLE_SECONDS, FIRM_SECONDS = 4.0, 1.5
"""After Ctrl-C: how long Dagster may take to end by itself, and then how long after it was told to."""
ORPHAN_SECONDS = 0.5
"""How long its children may outlive it before they are told themselves."""


def open_groups(port: int) -> str:
    """Return the address of the lineage with every group open."""
    expanded = ",".join(f"global@global:{group}" for group in GROUPS)
    return f"http://{HOST}:{port}/asset-groups?expanded={expanded}"


def run_ui(port: int = 3000) -> int:
    """Serve until Ctrl-C or SIGTERM; return the exit status."""
    try:
        pages = page_server(pages_port())
    except ProjectError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=pages.serve_forever, daemon=True).start()
    # A session of its own: the terminal's Ctrl-C reaches us alone, and we end all of it.
    command = [sys.executable, "-m", "dagster", "dev", "-h", HOST, "-p", str(port)]
    dagster = subprocess.Popen(command, start_new_session=True)
    sys.stderr.write(f"\nDagster: {open_groups(port)}\nStop everything: Ctrl-C\n\n")
    while dagster.poll() is None and not stop.wait(0.2):
        pass
    pages.shutdown()
    if not stop.is_set():
        return dagster.returncode or 0
    sys.stderr.write("\nStopping ...\n")
    end_session(dagster)
    sys.stderr.write(
        "Stopped. A run that was going on is marked as failed at the next start; launched again, it goes on.\n"
    )
    return 0


def end_session(leader: subprocess.Popen[bytes]) -> None:
    """End a process and everything in its session: asked first, then told, then killed."""
    for number, seconds in (
        (signal.SIGINT, GENTLE_SECONDS),
        (signal.SIGTERM, FIRM_SECONDS),
        (signal.SIGKILL, 1.0),
    ):
        members = session_members(leader.pid)
        if leader.poll() is not None and not members:
            return
        for pid in members or [leader.pid]:
            _signal(pid, number)
        _wait(leader, seconds)


def _wait(leader: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait until all of a session is gone, at most `seconds`; not longer for children that nobody leads any more."""
    end, orphaned = time.monotonic() + seconds, False
    while time.monotonic() < end:
        if leader.poll() is not None:
            if not session_members(leader.pid):
                return
            if not orphaned:
                end, orphaned = min(end, time.monotonic() + ORPHAN_SECONDS), True
        time.sleep(0.1)


def session_members(session: int) -> Sequence[int]:
    """Return the living processes of a session, where the system tells (Linux); else its leader alone."""
    proc = Path("/proc")
    if not (proc / "self" / "stat").exists():
        return [session]
    found = []
    for folder in proc.iterdir():
        if folder.name.isdecimal():
            try:
                state, *_, own_session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:  # ended meanwhile
                continue
            if int(own_session) == session and state != "Z":
                found.append(int(folder.name))
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
