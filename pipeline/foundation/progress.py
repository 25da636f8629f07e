"""How far a long job is: a bar with rate and time left where somebody watches a terminal, nothing anywhere else.

A job says what it does with `progress` or `tracked`, whoever runs it; the command line opens `shown_on_terminal`, and
only then is anything drawn. Log lines are another matter: they are written either way.
"""

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from pipeline.foundation.ranks import speaks_for_all

Item = TypeVar("Item")
Count = int | float

NO_GUESS_SECONDS = 5.0
"""Before so much time has gone by, nothing is said of the time left: the first steps pay for files and compilers."""
RATE_SPAN_SECONDS = 60.0
"""The rate is that of the latest minute, or of the latest `LEAST_SAMPLES` steps where these take longer."""
LEAST_SAMPLES = 5


class Meter:
    """Counts what is done and says how fast, and for how much longer.

    Parameters
    ----------
    total : how much there is; None: not known
    done : how much of it was there before
    clock : seconds, for tests
    """

    def __init__(
        self, total: Count | None, done: Count = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total, self.done, self._clock = total, done, clock
        self._began = clock()
        self._samples: deque[tuple[float, Count]] = deque([(self._began, done)])

    def reach(self, done: Count) -> None:
        """Note that so much is done by now."""
        now = self._clock()
        self.done = done
        self._samples.append((now, done))
        while len(self._samples) > LEAST_SAMPLES + 1 and self._samples[1][0] < now - RATE_SPAN_SECONDS:
            self._samples.popleft()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self._clock() - self._began

    @property
    def rate(self) -> float | None:
        """How much a second, of late; a stall lowers it. None while too little has been seen."""
        first_time, first_done = self._samples[0]
        seconds, gained = self._clock() - first_time, self.done - first_done
        return gained / seconds if self.seconds >= NO_GUESS_SECONDS and gained > 0 and seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Time for the rest at that rate; None where nothing honest can be said."""
        if self.total is None:
            return None
        if self.done >= self.total:
            return 0.0
        rate = self.rate
        return None if rate is None else (self.total - self.done) / rate


class Display(Protocol):
    """Draws meters while they run; `shown_on_terminal` opens one."""

    def show(self, label: str, unit: str, meter: Meter) -> Callable[[str | None], None]:
        """Draw a meter, and return what draws it anew, under another label where one is given."""
        ...

    def remove(self, shown: Callable[[str | None], None]) -> None:
        """Take it away."""
        ...


_display: Display | None = None


class Bar:
    """What a job calls as it goes on; without a display it counts and draws nothing."""

    def __init__(self, label: str, unit: str, meter: Meter) -> None:
        self.meter, self._unit = meter, unit
        self._display = _display
        self._shown = None if _display is None else _display.show(label, unit, meter)

    @property
    def watched(self) -> bool:
        """Whether somebody sees the bar, so that log lines which say the same can be left out."""
        return self._shown is not None

    def advance(self, n: Count = 1) -> None:
        """Note that `n` more are done."""
        self.reach(self.meter.done + n)

    def reach(self, done: Count, total: Count | None = None, label: str | None = None) -> None:
        """Note how much is done in all; `total` and `label` where they have become known, or changed."""
        self.meter.total = self.meter.total if total is None else total
        self.meter.reach(done)
        if self._shown is not None:
            self._shown(label)

    def begin(self, label: str, total: Count, done: Count = 0.0) -> None:
        """Count something else from now on: rate and time left begin anew."""
        self.close()
        self.meter = Meter(total, done)
        self._shown = None if self._display is None else self._display.show(label, self._unit, self.meter)

    def close(self) -> None:
        """Take the bar away."""
        if self._display is not None and self._shown is not None:
            self._display.remove(self._shown)
            self._shown = None


@contextmanager
def progress(label: str, total: Count | None = None, unit: str = "", done: Count = 0.0) -> Iterator[Bar]:
    """Show a job inside the block, and give what counts it.

    Parameters
    ----------
    label : what is being done
    total : how much there is, in `unit`; None: not known, so that only the time runs
    unit : what is counted, in the plural
    done : how much of it an earlier run has left
    """
    bar = Bar(label, unit, Meter(total, done))
    try:
        yield bar
    finally:
        bar.close()


def tracked(items: Iterable[Item], label: str, unit: str, total: int | None = None) -> Iterator[Item]:
    """Yield the items and count each when the next one is asked for; `total` where they cannot tell their number."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # pyright: ignore[reportArgumentType]
    with progress(label, total, unit) as bar:
        for item in items:
            yield item
            bar.advance()


@contextmanager
def shown_on_terminal() -> Iterator[None]:
    """Draw all progress inside the block on standard error, if that is a terminal; else draw nothing.

    One of several processes under torchrun draws for all.
    """
    global _display
    if _display is not None or not sys.stderr.isatty() or not speaks_for_all():
        yield
        return
    from pipeline.foundation.terminal import RichDisplay

    display = RichDisplay(sys.stderr)
    _display = display
    try:
        yield
    finally:
        _display = None
        display.close()


class StandardErrorHandler(logging.StreamHandler):
    """Write log lines to whatever standard error is now: above the bars while there are any."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Standard error."""
        return sys.stderr


def log_to_standard_error() -> None:
    """Write the log as a person reads it at a terminal: the time of day and the message."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s  %(message)s",
        datefmt="%H:%M:%S",
        handlers=[StandardErrorHandler()],
    )


def time_text(seconds: Count | None) -> str:
    """Return a time as people read it: seconds below a minute, ``3:05 min``, ``2:07 h``, ``-`` where not known.

    Examples
    --------
    >>> [time_text(seconds) for seconds in (None, 7.6, 185, 7600)]
    ['-', '8 s', '3:05 min', '2:07 h']
    """
    if seconds is None:
        return "-"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"


def rate_text(rate: Count | None, unit: str) -> str:
    """Return a rate as people read it: what takes longer than a second counts by the minute or the hour.

    Examples
    --------
    >>> [rate_text(rate, "windows") for rate in (None, 1739.2, 2.54, 0.2, 0.005)]
    ['-', '1,739 windows/s', '2.5 windows/s', '12 windows/min', '18 windows/h']
    """
    if rate is None:
        return "-"
    if rate >= 1:
        return f"{rate:,.0f} {unit}/s" if rate >= 10 else f"{rate:.1f} {unit}/s"
    return f"{60 * rate:.3g} {unit}/min" if rate >= 1 / 60 else f"{3600 * rate:.3g} {unit}/h"
