"""Run a stage in a process of its own and measure it: time, peak memory, bytes read and written."""

import json
import resource
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.foundation.atomic import write_json
from pipeline.foundation.errors import ProjectError
from pipeline.foundation.workers import worker_pool

MEGABYTE = 1e6
_STATUS, _IO = Path("/proc/self/status"), Path("/proc/self/io")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a stage says of its work.

    Attributes
    ----------
    counts : what it worked on, by name
    whole_seconds : what the whole would take where it ran on a part; None: it ran whole
    whole_means : what that is, in words
    seconds : of the part that counts, where it is not the whole process
    workers : processes that worked at the same time
    """

    counts: dict[str, int | float | str] = field(default_factory=dict)
    whole_seconds: float | None = None
    whole_means: str = ""
    seconds: float | None = None
    workers: int = 0


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the rehearsal's table; None where the system does not tell.

    Attributes
    ----------
    wall_seconds : of the whole stage, by the clock
    seconds : of the part that counts, from which the whole is estimated; `wall_seconds` where it ran whole
    """

    stage: str
    wall_seconds: float
    seconds: float
    cpu_seconds: float
    peak_mb: float | None
    read_mb: float | None
    written_mb: float | None
    counts: dict[str, int | float | str]
    whole_seconds: float | None = None
    whole_means: str = ""

    def save(self, path: Path) -> "Row":
        """Write as JSON and return self."""
        write_json(path, asdict(self))
        return self

    @classmethod
    def load(cls, path: Path) -> "Row | None":
        """Return a saved row, None where there is none; one from before `wall_seconds` has its `seconds` there."""
        if not path.is_file():
            return None
        saved = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{"wall_seconds": saved["seconds"]} | saved)


Measure = Callable[[str, Callable[[], Outcome]], "Row"]


def measured(stage: str, work: Callable[[], Outcome]) -> Row:
    """Run `work`, which can be pickled, in a fresh process, so that its peak is its own.

    Raises
    ------
    ProjectError
        What `work` raises, or the process was killed.
    """
    with worker_pool(1) as pool:
        try:
            return pool.submit(measured_here, stage, work).result()
        except BrokenProcessPool as problem:
            raise ProjectError(
                f"the stage {stage!r} was killed, most likely for want of memory: rehearse fewer patients, or free "
                "some memory and run again; stages that are done are kept"
            ) from problem


def measured_here(stage: str, work: Callable[[], Outcome]) -> Row:
    """Run `work` in this process: quicker to start, and its peak is that of everything that ran before, too."""
    read, written = _bytes_moved()
    began, cpu = time.monotonic(), time.process_time()
    outcome = work()
    wall = time.monotonic() - began
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    now_read, now_written = _bytes_moved()
    return Row(
        stage=stage,
        wall_seconds=round(wall, 3),
        seconds=round(wall if outcome.seconds is None else outcome.seconds, 6),
        cpu_seconds=round(time.process_time() - cpu + children.ru_utime + children.ru_stime, 2),
        peak_mb=_peak_mb(outcome.workers),
        read_mb=_difference(read, now_read),
        written_mb=_difference(written, now_written),
        counts=outcome.counts,
        whole_seconds=None if outcome.whole_seconds is None else round(outcome.whole_seconds, 1),
        whole_means=outcome.whole_means,
    )


def _peak_mb(workers: int) -> float | None:
    """Return this process's high-water mark plus, for each worker, the largest that a worker had."""
    own = _field(_STATUS, "VmHWM:")
    if own is None:
        return None
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss if workers else 0
    return round((own + workers * largest) * 1024 / MEGABYTE, 1)


def _bytes_moved() -> tuple[int | None, int | None]:
    """Bytes that this process and its finished children have read and written, page cache included."""
    return _field(_IO, "rchar:"), _field(_IO, "wchar:")


def _difference(before: int | None, after: int | None) -> float | None:
    return None if before is None or after is None else round((after - before) / MEGABYTE, 1)


def _field(path: Path, name: str) -> int | None:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), None)
