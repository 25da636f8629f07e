"""How far stage 1 is: windows a second and time left."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.embedding.plan import PatientTask
from pipeline.foundation.progress import Meter, progress, time_text

log = logging.getLogger(__name__)

EVERY_SECONDS = 5.0
"""Between two lines of the log at least."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingProgress:
    """How far a run is.

    Attributes
    ----------
    patients_done, patients : of those to embed
    windows : through the encoder so far
    windows_per_second : since the start of the run
    planned_windows, left_windows : what the records' lengths promised, and what of it is still to come
    seconds_left : by that promise and the rate of late; None before five seconds
    """

    patients_done: int
    patients: int
    windows: int
    windows_per_second: float
    planned_windows: int
    left_windows: int
    seconds_left: float | None


ProgressCallback = Callable[[EmbeddingProgress], None]


class ProgressMeter:
    """Counts windows and patients and tells a callback after each encoder batch."""

    def __init__(self, tasks: Sequence[PatientTask], callback: ProgressCallback | None) -> None:
        self._callback = callback
        self._patients = len(tasks)
        self._left = {task.patient: task.planned_windows for task in tasks}
        self._windows_left = sum(self._left.values())
        self._windows = 0
        self._meter = Meter(self._windows_left)

    def embedded(self, task: PatientTask, n_windows: int) -> None:
        """Count `n_windows` more of a patient."""
        self._windows += n_windows
        left = self._left.get(task.patient, 0)
        self._count_down(min(left, n_windows))
        self._left[task.patient] = max(0, left - n_windows)
        self._tell()

    def ended(self, task: PatientTask) -> None:
        """Count a patient as finished, adopted or failed."""
        self._count_down(self._left.pop(task.patient, 0))
        self._tell()

    def _count_down(self, n_windows: int) -> None:
        self._windows_left -= n_windows  # a sum over all patients at each batch would be quadratic

    def _tell(self) -> None:
        if self._callback is None:
            return
        planned = int(self._meter.total or 0)
        self._meter.reach(planned - self._windows_left)
        self._callback(
            EmbeddingProgress(
                patients_done=self._patients - len(self._left),
                patients=self._patients,
                windows=self._windows,
                windows_per_second=self._windows / max(self._meter.seconds, 1e-9),
                planned_windows=planned,
                left_windows=self._windows_left,
                seconds_left=self._meter.seconds_left,
            )
        )


@contextmanager
def shown_progress() -> Iterator[ProgressCallback]:
    """Give a callback that moves a bar on a terminal; elsewhere it logs rate and time left.

    A line at most every so many seconds, and one at the end.
    """
    last = -EVERY_SECONDS

    def callback(done: EmbeddingProgress) -> None:
        nonlocal last
        bar.reach(done.planned_windows - done.left_windows, done.planned_windows)
        now = time.monotonic()
        if bar.watched or (now - last < EVERY_SECONDS and done.patients_done < done.patients):
            return
        last = now
        log.info(
            "embedded %d windows of %d/%d patients, %.0f windows/s, %s left",
            done.windows, done.patients_done, done.patients, done.windows_per_second, time_text(done.seconds_left),
        )  # fmt: skip

    with progress("embedding", unit="windows") as bar:
        yield callback
