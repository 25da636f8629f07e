"""How much memory this process may still take (the machine's, or its container's), and when its collector rests."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MEMINFO, _CGROUPS = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
_UNKNOWN_BYTES = 4 * 2**30
"""Where the system does not say: small enough for any machine that trains."""


def available_memory_bytes() -> int:
    """Return the bytes that can be taken now without swapping (caches of files count as free)."""
    limits = [limit for limit in (_of_machine(), _of_container()) if limit is not None]
    return max(0, min(limits, default=_UNKNOWN_BYTES))


@contextmanager
def collector_paused() -> Iterator[None]:
    """Stop the search for reference cycles while millions of lasting objects are made: each search walks them all."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def _of_machine() -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError, IndexError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _of_container() -> int | None:
    """Read a container's limit and use, control groups version 2 or 1; None: no limit, or none that is seen."""
    for limit, used, statistics in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            free = int((_CGROUPS / limit).read_text()) - int((_CGROUPS / used).read_text())
            lines = dict(line.split() for line in (_CGROUPS / statistics).read_text().splitlines())
        except (OSError, ValueError):  # absent, or "max": unlimited
            continue
        return free + int(lines.get("inactive_file", lines.get("total_inactive_file", 0)))
    return None
