"""Progress drawn by rich on a terminal; log lines and warnings go above the bars."""

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from pipeline.foundation.progress import Meter, rate_text, time_text

DRAWN_A_SECOND = 4
"""Often enough to be seen moving, seldom enough to cost nothing."""
SHOWN_AFTER_SECONDS = 1.0
"""What is over sooner would only flicker."""


class _Bars(Progress):
    """Those bars that have been there for a while."""

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """Return what is drawn."""
        return super().make_tasks_table(
            [task for task in tasks if _meter(task).seconds >= SHOWN_AFTER_SECONDS]
        )


class RichDisplay:
    """Bars at the foot of a terminal while any job runs; nothing of them is left behind."""

    def __init__(self, stream: Any) -> None:
        self._bars = _Bars(
            TextColumn("{task.description}"), BarColumn(bar_width=24), _Counts(), _Pace(), _TimeLeft(),
            console=Console(file=stream), transient=True, refresh_per_second=DRAWN_A_SECOND,
            # What the terminal does not show (a pipe, a file) must not be turned into something drawn on it.
            redirect_stdout=sys.stdout.isatty(), redirect_stderr=True,
        )  # fmt: skip
        self._tasks: dict[Callable[[str | None], None], TaskID] = {}
        os.register_at_fork(after_in_child=self._leave)

    def show(self, label: str, unit: str, meter: Meter) -> Callable[[str | None], None]:
        """Draw a meter, and return what draws it anew."""
        task = self._bars.add_task(
            label, total=meter.total, completed=int(meter.done), unit=unit, meter=meter
        )

        def drawn(label: str | None) -> None:
            self._bars.update(task, completed=meter.done, total=meter.total, description=label)

        self._tasks[drawn] = task
        self._bars.start()
        return drawn

    def remove(self, shown: Callable[[str | None], None]) -> None:
        """Take a meter away; the terminal is given back with the last one."""
        task = self._tasks.pop(shown, None)
        if task is None:
            return
        if not self._tasks:
            self._bars.stop()
        self._bars.remove_task(task)

    def close(self) -> None:
        """Take all away."""
        for shown in list(self._tasks):
            self.remove(shown)

    def _leave(self) -> None:
        """Let a forked child speak for itself: a lock of this display may be held for ever in it."""
        if self._tasks:
            sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__


def _meter(task: Task) -> Meter:
    return task.fields["meter"]


class _Counts(ProgressColumn):
    """How many of how many; the time alone where nothing is counted."""

    def render(self, task: Task) -> Text:
        meter, unit = _meter(task), task.fields["unit"]
        if meter.total is None and not meter.done:
            return Text(time_text(meter.seconds))
        of = "" if meter.total is None else f" of {meter.total:,.0f}"
        return Text(f"{meter.done:,.0f}{of} {unit}".rstrip())


class _Pace(ProgressColumn):
    """How fast."""

    def render(self, task: Task) -> Text:
        rate = _meter(task).rate
        return Text("" if rate is None else rate_text(rate, task.fields["unit"]), style="dim")


class _TimeLeft(ProgressColumn):
    """For how much longer."""

    def render(self, task: Task) -> Text:
        left = _meter(task).seconds_left
        return Text("" if left is None else f"{time_text(left)} left", style="bold")
