"""Worker processes that end with the process that started them, however it ends.

A pool's own processes wait for work, or for room in a queue, until they are told to stop: of a parent that was killed
they never hear, and would keep its memory, and finish its work, for nobody.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from typing import Any

SPAWN = multiprocessing.get_context("spawn")
"""How all of them start: a fork would copy torch's threads in mid-air."""


def worker_pool(
    workers: int, initializer: Callable[..., object] | None = None, initargs: tuple[Any, ...] = ()
) -> ProcessPoolExecutor:
    """Return a pool of fresh processes; each runs `initializer` once, if there is one."""
    return ProcessPoolExecutor(workers, SPAWN, initializer=_begin, initargs=(initializer, initargs))


def _begin(initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    if initializer is not None:
        initializer(*initargs)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])  # what the system closes, whatever ended it
        os._exit(1)
