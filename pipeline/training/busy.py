"""The share of the time in which the device computes, instead of waiting for data, files or other processes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class BusyClock:
    """Adds up the stretches of work on a device since it was made.

    On a GPU events in its own stream take the time, so that a processor which waits for data while the GPU still
    computes what was launched before costs nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._began, self._seconds = device, time.perf_counter(), 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count what is done, or launched, inside as work."""
        if self._device.type != "cuda":
            started = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - started
            return
        with torch.cuda.device(self._device):
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            yield
            last.record()
            self._events.append((first, last))

    def read(self) -> tuple[float, float]:
        """Return the seconds of work, and all seconds since the clock was made."""
        if self._events:
            torch.cuda.synchronize(self._device)
            self._seconds += sum(first.elapsed_time(last) for first, last in self._events) / 1000
            self._events.clear()
        return self._seconds, time.perf_counter() - self._began
