"""A user's mistake reaches Dagster as one sentence, without the traceback of a library."""

import atexit
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from pipeline.foundation.errors import ProjectError


def _print_at_exit(message: str) -> None:
    """Repeat `message` as the last line of a command-line run, below Dagster's own log."""
    if sys.stderr.isatty() or {"asset", "job"} & set(sys.argv):
        atexit.register(lambda: sys.stderr.write(f"\n{message}\n"))


@contextmanager
def explained(asset: str) -> Iterator[None]:
    """Turn a ``ProjectError`` inside the block into a ``dagster.Failure`` that says the same and is not retried."""
    try:
        yield
    except ProjectError as error:
        message = f"{asset}: {error}"
        _print_at_exit(message)
        raise dg.Failure(description=message, allow_retries=False) from None


@contextmanager
def retried(*, times: int = 2, pause_seconds: float = 10.0) -> Iterator[None]:
    """Ask for the step again when a disk, a GPU or a worker process failed inside the block.

    A ``RetryPolicy`` would do the same, and would also start a step again that a person has just cancelled.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # what files, CUDA and broken process pools raise
        raise dg.RetryRequested(max_retries=times, seconds_to_wait=pause_seconds) from error
