"""Claims on a piece of work: one process at a time has it, and the kernel takes it back from one that dies."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.foundation.atomic import explained_os_errors, make_private_dir

logger = logging.getLogger(__name__)


@contextmanager
def claimed(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold ``flock`` on a file made for it and removed after; yield False when another has it and `wait` is False.

    Raises
    ------
    StoreError : the file cannot be made
    """
    handle = _lock(path, wait=wait)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            path.unlink(missing_ok=True)
            os.close(handle)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Be the one process that writes into `folder`, which need not be there; wait, and say so, while another does.

    The claim lies beside the folder. It does not nest: who has it and asks again waits for ever.

    Raises
    ------
    StoreError : the folder beside which it lies cannot be written
    """
    path = make_private_dir(folder.absolute().parent) / f".{folder.name}.writing.lock"
    with claimed(path, wait=False) as mine:
        if mine:
            yield
            return
    logger.warning("another process is writing %s: waiting until it has ended", folder)
    with claimed(path, wait=True):
        yield


def _lock(path: Path, *, wait: bool) -> int | None:
    """Return an open handle that holds the lock, or None when another process does and `wait` is False."""
    while True:
        with explained_os_errors(path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        # The holder removes the file when it lets go: a lock on a removed file protects nothing.
        if os.fstat(handle).st_nlink > 0:
            return handle
        os.close(handle)
