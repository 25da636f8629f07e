"""How far stage 1 is: windows a second and time left."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.embedding.plan import PatientTask

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EmbeddingProgress:
    """How far a run is.

    Attributes
    ----------
    patients_done, patients : of those to embed
    windows : through the encoder so far
    windows_per_second : since the start of the run
    seconds_left : estimate from the records' lengths; None before the first window
    """

    patients_done: int
    patients: int
    windows: int
    windows_per_second: float
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
        self._began = time.monotonic()

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
        rate = self._windows / max(time.monotonic() - self._began, 1e-9)
        self._callback(
            EmbeddingProgress(
                patients_done=self._patients - len(self._left),
                patients=self._patients,
                windows=self._windows,
                windows_per_second=rate,
                seconds_left=self._windows_left / rate if rate > 0 else None,
            )
        )


def log_progress(every_seconds: float = 5.0) -> ProgressCallback:
    """Return a callback that logs rate and time left, at most every so many seconds and at the end."""
    last = -every_seconds

    def callback(progress: EmbeddingProgress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < every_seconds and progress.patients_done < progress.patients:
            return
        last = now
        left = "?" if progress.seconds_left is None else f"{progress.seconds_left / 60:.1f}"
        log.info(
            "embedded %d windows of %d/%d patients, %.0f windows/s, %s min left",
            progress.windows, progress.patients_done, progress.patients, progress.windows_per_second, left,
        )  # fmt: skip

    return callback
