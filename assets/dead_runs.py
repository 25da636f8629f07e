"""Runs whose process was killed: say so, and free the pool slots that they would hold for ever.

Dagster's own monitoring watches runs that its daemon launched. A run typed on a command line and ended by ``kill -9``
or a power cut stays "started" in its books, and the next run would wait for its ``gpu`` slot without a word.
"""

import os
import socket
from pathlib import Path

import dagster as dg

from assets.executors import runs_in_one_process

PROCESS_TAG = ".dagster/uniphy_process"
"""Dagster shows no tag that begins like this: it tells a person nothing."""
EARLIER_TAG = "uniphy/process"
"""Of runs that an earlier version started."""


def announce(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Write on a run which process executes it, where that is one process."""
    if runs_in_one_process() and PROCESS_TAG not in run.tags:
        instance.add_run_tags(run.run_id, {PROCESS_TAG: _identity(os.getpid())})


def settle_dead_runs(instance: dg.DagsterInstance) -> int:
    """Mark runs of this machine whose process is gone as failed and free their slots; return how many there were."""
    unfinished = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING])
    dead = [
        run
        for run in instance.get_runs(filters=unfinished)
        if _is_dead(run.tags.get(PROCESS_TAG) or run.tags.get(EARLIER_TAG))
    ]
    for run in dead:
        instance.report_run_failed(
            run,
            "The process of this run is gone (killed, or the machine restarted). Launch it again: it goes on.",
        )
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return len(dead)


def _is_dead(identity: str | None) -> bool:
    if identity is None:
        return False
    host, pid, _ = identity.rsplit(":", 2)
    return host == socket.gethostname() and _identity(int(pid)) != identity


def _identity(pid: int) -> str:
    """Name a process so that a later one with the same number is another: host, number, time of its start."""
    status = Path(f"/proc/{pid}/stat")
    try:
        started = status.read_text().rpartition(")")[2].split()[19]
    except OSError:
        started = "gone" if Path("/proc/self/stat").exists() or not _exists(pid) else "unknown"
    return f"{socket.gethostname()}:{pid}:{started}"


def _exists(pid: int) -> bool:
    """Whether a process of this number exists, on systems without /proc."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
