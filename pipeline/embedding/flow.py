"""One batch of patients: workers decode, the encoder embeds, a thread writes, and none waits for another.

Batches of windows cross the borders of records and patients; an encoder is batch-invariant, so neither the
packing nor the order in which patients interleave changes a bit of any embedding.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from models.encoders.base import Encoder, fixed_batch
from pipeline.embedding.base import BatchResult, PatientMeter
from pipeline.embedding.encoders import prepare_for
from pipeline.embedding.plan import PatientTask, hashed
from pipeline.foundation.errors import ConfigError
from pipeline.sources.base import WaveformSource
from pipeline.sources.content_hashes import SourceHashes, fingerprint
from pipeline.store.embeddings import EmbeddingStore
from pipeline.store.manifest import ManifestEntry
from pipeline.store.zarr_version import PatientWriter
from pipeline.windows.cutting import WindowConfig
from pipeline.windows.decoding import CHANGED, UNREADABLE, EndOfPatient, PreparedWindows, decoded

log = logging.getLogger(__name__)

PENDING_WRITES = 8
"""Embedded batches that may wait for the disk."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingFlow:
    """Turns patients into versions in the store, in this process: the executor ``local``.

    Attributes
    ----------
    provenance : name of the provenance that the entries will carry
    batch_windows : windows given to the encoder at once
    decode_workers : processes that read and resample; 0 = one thread
    queue_blocks : blocks of at most 512 windows that may wait for the encoder
    """

    source: WaveformSource
    store: EmbeddingStore
    encoder: Encoder
    window: WindowConfig
    meter: PatientMeter
    provenance: str
    batch_windows: int
    decode_workers: int
    queue_blocks: int

    def embed(self, tasks: Sequence[PatientTask]) -> BatchResult:
        """Embed patients, each once even when other processes have the same ones to do.

        Raises
        ------
        ConfigError : the encoder's batch does not fit into the GPU's memory
        StoreError : an embedding that cannot be stored, or a disk that cannot be written
        """
        claim = self.store.storage.claim
        with ExitStack() as claims:
            mine = [task for task in tasks if claims.enter_context(claim(task.patient, wait=False))]
            result = self._embed_claimed(mine)
        taken = {task.patient for task in mine}
        others = sorted((task for task in tasks if task.patient not in taken), key=lambda task: task.patient)
        if others:
            log.info("waiting for another run that embeds %d of these patients", len(others))
            with ExitStack() as claims:  # ordered, so that two runs that wait cannot block each other
                for task in others:
                    claims.enter_context(claim(task.patient, wait=True))
                result += self._embed_claimed(others)
        return result

    def _embed_claimed(self, tasks: Sequence[PatientTask]) -> BatchResult:
        """Embed what nobody has finished; a source that changes while it is read gets one more try."""
        hashes, result, todo = SourceHashes(self.store.storage), BatchResult(), list(tasks)
        try:
            for _ in range(2):
                todo, adopted = self._adopt(*self._refresh(todo, hashes))
                encoded, todo = self._encode(todo, hashes) if todo else (BatchResult(), [])
                result += adopted + encoded
        finally:
            hashes.save()
        for task in todo:
            self.meter.ended(task)
        return result + BatchResult(failures=Counter({CHANGED: len(todo)} if todo else {}))

    def _refresh(
        self, tasks: Sequence[PatientTask], hashes: SourceHashes
    ) -> tuple[list[PatientTask], BatchResult]:
        """Find out what may have been embedded already; what cannot have been is hashed while it is decoded."""
        fresh: list[PatientTask] = []
        unknown: list[PatientTask] = []
        failures: Counter[str] = Counter()
        for task in tasks:
            try:
                same = task.fingerprint is not None and fingerprint(task.records) == task.fingerprint
                known = task if same else task.of_state(hashes.remembered(task.patient, task.records))
            except OSError:
                failures[UNREADABLE] += 1
                self.meter.ended(task)
                continue
            if known.fingerprint is None and self.store.has_finished(task.patient, task.key.encoding):
                unknown.append(task)
            else:
                fresh.append(known)
        for task, state in hashed(unknown, hashes):
            if state is None:
                failures[UNREADABLE] += 1
                self.meter.ended(task)
            else:
                fresh.append(task.of_state(state))
        return fresh, BatchResult(failures=failures)

    def _adopt(
        self, tasks: Sequence[PatientTask], result: BatchResult
    ) -> tuple[list[PatientTask], BatchResult]:
        """Take over versions that are finished though perhaps not committed; return the rest."""
        entries, rest = [], []
        for task in tasks:
            known = task.fingerprint is not None
            entry = self.store.published(task.patient_id, task.key) if known else None
            if entry is None:
                rest.append(task)
            else:
                entries.append(entry)
                self.meter.ended(task)
        return rest, result + BatchResult(entries=tuple(entries), adopted=len(entries))

    def _encode(
        self, tasks: Sequence[PatientTask], hashes: SourceHashes
    ) -> tuple[BatchResult, list[PatientTask]]:
        """Run the flow over `tasks`; return what came out, and the tasks whose source changed meanwhile."""
        failures: Counter[str] = Counter()
        changed: list[PatientTask] = []
        blocks = decoded(
            self.source,
            prepare_for(self.encoder),
            self.window,
            [(task.records, task.fingerprint) for task in tasks],
            workers=min(self.decode_workers, len(tasks)),
            queue_blocks=self.queue_blocks,
        )
        with closing(blocks), _Writers(self.store, tasks, self.encoder.width, self.provenance) as writers:
            for end in self._embed_blocks(blocks, tasks, writers):
                if end.failure == CHANGED:
                    changed.append(tasks[end.task])
                    continue
                if end.failure is None:
                    if end.state is not None:
                        hashes.remember(tasks[end.task].patient, end.state)
                    writers.finish(end.task, end.exclusions, end.state and end.state.content)
                else:
                    failures[end.failure] += 1
                self.meter.ended(tasks[end.task])
            entries = writers.entries()
        windows = sum(entry.n_windows for entry in entries)
        return BatchResult(entries=entries, embedded_windows=windows, failures=failures), changed

    def _embed_blocks(
        self,
        blocks: Iterable[PreparedWindows | EndOfPatient],
        tasks: Sequence[PatientTask],
        writers: "_Writers",
    ) -> Iterator[EndOfPatient]:
        """Embed full batches; yield a patient's end when nothing of it waits in the packer any more."""
        packer = _Packer(self.batch_windows, self.encoder.samples_per_window)
        ends: list[EndOfPatient] = []
        for block in blocks:
            if isinstance(block, EndOfPatient):
                ends.append(block)
                continue
            for samples, parts in packer.add(block):
                self._embed_batch(samples, parts, tasks, writers)
                yield from ends  # they came before this block, so their windows have just gone
                ends.clear()
        for samples, parts in packer.rest():
            self._embed_batch(samples, parts, tasks, writers)
        yield from ends

    def _embed_batch(
        self, samples: np.ndarray, parts: list["_Part"], tasks: Sequence[PatientTask], writers: "_Writers"
    ) -> None:
        try:
            embeddings = self.encoder.embed(torch.from_numpy(samples)).float().cpu().numpy()
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"batches of {fixed_batch(self.encoder)} windows do not fit into the GPU's memory: try --set "
                f"embedding.gpu_batch_windows={max(32, fixed_batch(self.encoder) // 4)} (part of the store's key)"
            ) from error
        first = 0
        for part in parts:
            last = first + len(part.start_us)
            writers.append(part.task, part.start_us, embeddings[first:last], part.quality)
            self.meter.embedded(tasks[part.task], last - first)
            first = last


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Rows of one patient inside a batch."""

    task: int
    start_us: np.ndarray
    quality: np.ndarray


class _Packer:
    """Lays windows end to end until a batch is full; its memory is one batch."""

    def __init__(self, batch_windows: int, samples_per_window: int) -> None:
        self._samples = np.empty((batch_windows, samples_per_window), np.float32)
        self._parts: list[_Part] = []
        self._filled = 0

    def add(self, block: PreparedWindows) -> Iterator[tuple[np.ndarray, list[_Part]]]:
        """Take a block in and yield the batches that it fills; each is gone when the next one comes."""
        taken = 0
        while taken < len(block.start_us):
            rows = slice(taken, taken + min(len(self._samples) - self._filled, len(block.start_us) - taken))
            count = rows.stop - rows.start
            self._samples[self._filled : self._filled + count] = block.samples[rows]
            self._parts.append(
                _Part(task=block.task, start_us=block.start_us[rows], quality=block.quality[rows])
            )
            self._filled += count
            taken = rows.stop
            if self._filled == len(self._samples):
                yield from self.rest()

    def rest(self) -> Iterator[tuple[np.ndarray, list[_Part]]]:
        """Yield what is there, if anything."""
        if self._filled:
            samples, parts = self._samples[: self._filled], self._parts
            self._filled, self._parts = 0, []
            yield samples, parts


class _Writers:
    """One writer for each patient in flight, and one thread in which all of them write, in order."""

    def __init__(
        self, store: EmbeddingStore, tasks: Sequence[PatientTask], width: int, provenance: str
    ) -> None:
        self._store, self._tasks, self._width, self._provenance = store, tasks, width, provenance
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._stack = ExitStack()
        self._open: dict[int, PatientWriter] = {}
        self._pending: deque[Future] = deque()
        self._entries: list[Future[ManifestEntry]] = []

    def __enter__(self) -> "_Writers":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._stack.close()  # only now: a write in progress would create the folder again

    def append(self, task: int, start_us: np.ndarray, embeddings: np.ndarray, quality: np.ndarray) -> None:
        """Write the next windows of a patient, later; an earlier failure is raised here."""
        self._submit(self._writer(task).append, start_us, embeddings, quality)

    def finish(self, task: int, exclusions: Mapping[str, int], source_hash: str | None) -> None:
        """Publish a patient's version, later; with the source's hash, where the task did not know it."""
        act = partial(self._writer(task).finish, exclusions, source_hash=source_hash)
        self._entries.append(self._submit(act))

    def entries(self) -> tuple[ManifestEntry, ...]:
        """Wait for the disk and return what was published."""
        while self._pending:
            self._pending.popleft().result()
        return tuple(entry.result() for entry in self._entries)

    def _writer(self, number: int) -> PatientWriter:
        if number not in self._open:
            task = self._tasks[number]
            self._open[number] = self._stack.enter_context(
                self._store.stage(task.patient_id, task.key, width=self._width, provenance=self._provenance)
            )
        return self._open[number]

    def _submit(self, act: Callable[..., Any], *arguments: Any) -> Future:
        while len(self._pending) >= PENDING_WRITES:
            self._pending.popleft().result()
        self._pending.append(self._thread.submit(act, *arguments))
        return self._pending[-1]
