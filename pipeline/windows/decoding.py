"""Reading, windowing and resampling beside the encoder: workers fill a bounded queue, the encoder empties it.

One worker reads one patient at a time, so a patient's windows arrive in order while patients interleave. Where the
content is not known yet it hashes each record just before it decodes it: the decoder then finds the record's files in
memory, and the disk is read once.
Imports no torch, so that a worker process starts quickly.
"""

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from pipeline.foundation.errors import RecordError
from pipeline.foundation.workers import SPAWN, worker_pool
from pipeline.sources.base import Record, WaveformSource
from pipeline.sources.content_hashes import ContentDigest, SourceState, fingerprint, is_settled
from pipeline.windows.cutting import WindowConfig, iterate_windows

POLL_SECONDS = 0.2
UNREADABLE = "source: cannot be read"
CHANGED = "source: changed while it was read"

Prepare = Callable[[np.ndarray, float, tuple[float, float]], np.ndarray]
"""(samples (n, m), sampling_rate_hz, rails) -> what the encoder wants, (n, samples) float32."""


@dataclass(frozen=True, kw_only=True)
class PreparedWindows:
    """Some windows of task number `task`, in time order, ready for the encoder."""

    task: int
    start_us: np.ndarray
    samples: np.ndarray
    quality: np.ndarray


@dataclass(frozen=True, kw_only=True)
class EndOfPatient:
    """Task number `task` has been read: what was left out, and why it failed, if it did.

    `state` is what the records were found to be, of a task that did not know and did not fail.
    """

    task: int
    exclusions: Counter[str]
    failure: str | None = None
    state: SourceState | None = None


@runtime_checkable
class _Queue(Protocol):
    def put(self, obj: Any, /, block: bool = True, timeout: float | None = None) -> None: ...
    def get(self, block: bool = True, timeout: float | None = None) -> Any: ...


@runtime_checkable
class _Event(Protocol):
    def set(self) -> None: ...
    def is_set(self) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """What a worker needs for any patient: source, preparation and the queue to fill."""

    source: WaveformSource
    prepare: Prepare
    window: WindowConfig
    items: _Queue
    stop: _Event

    def decode(self, task: int, records: tuple[Record, ...], expected: str | None) -> None:
        """Read one patient and put its windows; files that differ from the fingerprint `expected` fail it.

        Without a fingerprint the files are taken as they are found, and hashed; they must not change meanwhile.
        """
        exclusions: Counter[str] = Counter()
        failure, state = None, None
        try:
            before = fingerprint(records) if expected is None else expected
        except OSError:
            self._put(EndOfPatient(task=task, exclusions=exclusions, failure=UNREADABLE))
            return
        try:
            content, began = ContentDigest(), time.time()
            hashing = content.add if expected is None else None
            for windows in iterate_windows(self.source, records, self.window, exclusions, hashing):
                samples = self.prepare(windows.samples, windows.sampling_rate_hz, windows.rails)
                block = PreparedWindows(
                    task=task, start_us=windows.start_us, samples=samples, quality=windows.quality
                )
                if not self._put(block):
                    return
            if fingerprint(records) != before:
                failure = CHANGED
            elif expected is None:
                settled = is_settled(records, began)
                state = SourceState(fingerprint=before, content=content.hexdigest(), settled=settled)
        except (OSError, RecordError):
            failure = CHANGED if _differs(records, before) else UNREADABLE
        self._put(EndOfPatient(task=task, exclusions=exclusions, failure=failure, state=state))

    def _put(self, item: PreparedWindows | EndOfPatient) -> bool:
        while not self.stop.is_set():
            try:
                self.items.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False


def decoded(
    source: WaveformSource,
    prepare: Prepare,
    window: WindowConfig,
    tasks: Sequence[tuple[tuple[Record, ...], str | None]],
    *,
    workers: int,
    queue_blocks: int,
) -> Generator[PreparedWindows | EndOfPatient, None, None]:
    """Yield the windows of all tasks and one end for each, patients interleaved.

    Parameters
    ----------
    tasks : records and fingerprint of each patient; None instead of the fingerprint: hash the content as well
    workers : processes that read; 0 = one thread of this process
    queue_blocks : blocks of at most 512 windows that may wait for the encoder

    Raises
    ------
    RecordError : a worker process was killed from outside
    """
    try:
        with _running(workers, queue_blocks, source, prepare, window) as (executor, submit, items):
            futures = [submit(executor, number, *task) for number, task in enumerate(tasks)]
            yield from _received(items, futures)
    except BrokenProcessPool as error:
        raise RecordError(
            "a decoding process was killed, most likely for lack of memory: use fewer decode_workers"
        ) from error


def _received(items: _Queue, futures: Sequence[Future]) -> Iterator[PreparedWindows | EndOfPatient]:
    """Yield what the workers put, to the last end; raise what made a worker fail."""
    ended = 0
    while ended < len(futures):
        try:
            item = items.get(timeout=POLL_SECONDS)
        except queue.Empty:
            for future in futures:
                if future.done():
                    future.result()
            continue
        ended += isinstance(item, EndOfPatient)
        yield item


@contextmanager
def _running(
    workers: int, queue_blocks: int, source: WaveformSource, prepare: Prepare, window: WindowConfig
) -> Iterator[tuple[Executor, Callable[..., Future], _Queue]]:
    """Start the workers; at the end, or when the caller gives up, stop them and empty the queue."""
    if workers:
        items, stop = SPAWN.Queue(queue_blocks), SPAWN.Event()
        decoder = Decoder(source=source, prepare=prepare, window=window, items=items, stop=stop)
        executor = worker_pool(workers, _initialize, (decoder,))
        submit = _submit_to_process
    else:
        items, stop = queue.Queue(queue_blocks), threading.Event()
        decoder = Decoder(source=source, prepare=prepare, window=window, items=items, stop=stop)
        executor = ThreadPoolExecutor(1, thread_name_prefix="decode")
        submit = _submit_to_thread(decoder)
    try:
        yield executor, submit, items
    finally:
        stop.set()
        executor.shutdown(wait=True, cancel_futures=True)


def _submit_to_thread(decoder: Decoder) -> Callable[..., Future]:
    return lambda executor, *task: executor.submit(decoder.decode, *task)


_decoder: Decoder | None = None
"""The worker process's own; queues travel only while a process starts."""


def _initialize(decoder: Decoder) -> None:
    global _decoder
    decoder.items.cancel_join_thread()  # type: ignore[attr-defined]  # else exit waits for a reader that gave up
    _decoder = decoder


def _decode_here(*task: Any) -> None:
    assert _decoder is not None
    _decoder.decode(*task)


def _submit_to_process(executor: Executor, *task: Any) -> Future:
    return executor.submit(_decode_here, *task)


def _differs(records: Sequence[Record], expected: str) -> bool:
    try:
        return fingerprint(records) != expected
    except OSError:
        return True
