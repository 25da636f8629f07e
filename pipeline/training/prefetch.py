"""Read ahead in a thread: what is computed on never waits for what is read next, in the same order, to the bit."""

import contextvars
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """Iterate over `items` while a thread makes the next ones; leave the ``with`` block to end the thread.

    An error in making an item is raised where the item would have come. The thread makes them one after another, in
    their order, with the settings (numpy's error state) that its maker had.

    Parameters
    ----------
    items : made one at a time; nothing else may use what they are made from meanwhile
    depth : at most so many are made and not yet taken; 0: no thread, each is made when it is asked for
    """

    def __init__(self, items: Iterable[T], depth: int) -> None:
        if depth < 0:
            raise ValueError(f"depth must not be negative, not {depth}")
        self._items, self._depth = iter(items), depth
        self._ready: deque[T] = deque()
        self._changed = threading.Condition()
        self._ended, self._stopped = False, False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        if depth:
            context = contextvars.copy_context()
            self._thread = threading.Thread(
                target=context.run, args=(self._fill,), name="read-ahead", daemon=True
            )
            self._thread.start()

    def __enter__(self) -> "ReadAhead[T]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._thread is None:
            return next(self._items)
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._ended or self._stopped)
            if self._ready:
                item = self._ready.popleft()
                self._changed.notify_all()
                return item
        if self._error is not None:
            raise self._error
        raise StopIteration

    def close(self) -> None:
        """End the thread once the item that it is making is done; nothing more can be taken."""
        with self._changed:
            self._stopped = True
            self._ready.clear()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _fill(self) -> None:
        try:
            while self._has_room():
                item = next(self._items)
                with self._changed:
                    self._ready.append(item)
                    self._changed.notify_all()
        except StopIteration:
            pass
        except BaseException as error:  # any: a thread has no caller; `__next__` raises it
            self._error = error
        finally:
            if isinstance(self._items, Generator):
                self._items.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _has_room(self) -> bool:
        """Wait for room before an item is made, so that memory holds `depth` of them; False: nobody wants more."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._ready) < self._depth or self._stopped)
            return not self._stopped
