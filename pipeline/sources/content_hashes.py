"""Content hashes of patients' source records, remembered so that a nightly check costs one ``stat`` a file.

Names, sizes and times of change say whether a file may have changed; content says whether it did. A copy or a
restore with new times costs the hashing, never the embedding. A new patient's files are hashed record by record just
before each is decoded (`ContentDigest`), so that they come from the disk once.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pipeline.sources.base import Memory, Record, in_time_order

CACHE_FILE = "source_hashes.json"
SETTLED_SECONDS = 2.0
"""A file changed less than this before it was hashed may change again without a new time: never remembered."""
SAVE_SECONDS = 5.0
"""What a killed run may lose of its hashing."""
SAVE_SHARE = 0.05
"""Highest share of the time that saving may take: each save writes all hashes."""


@dataclass(frozen=True, kw_only=True)
class SourceState:
    """One patient's records as they were read.

    Attributes
    ----------
    fingerprint, content : `fingerprint` before the content was hashed, and `content_hash`
    settled : the files are older than `SETTLED_SECONDS`, so that an equal fingerprint means an equal content
    """

    fingerprint: str
    content: str
    settled: bool


def fingerprint(records: Iterable[Record]) -> str:
    """Return the hash of names, sizes and times of change of all files of some records.

    Raises
    ------
    OSError : a file has vanished or may not be read
    """
    digest = hashlib.blake2b(digest_size=16)
    for record in in_time_order(records):
        digest.update(f"{record.name}|{record.start_us}\n".encode())
        for path in _sorted(record.files):
            status = path.stat()
            digest.update(f"{path.name}|{status.st_size}|{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def content_hash(records: Iterable[Record]) -> str:
    """Return the hash of the content of all files of some records, of their names and of their starts.

    Names are relative to the source, so moving the whole source changes nothing. Memory stays flat.

    Raises
    ------
    OSError : a file has vanished or may not be read
    """
    digest = ContentDigest()
    for record in in_time_order(records):
        digest.add(record)
    return digest.hexdigest()


class ContentDigest:
    """`content_hash` that grows record by record, in time order."""

    def __init__(self) -> None:
        self._digest = hashlib.blake2b(digest_size=16)

    def add(self, record: Record) -> None:
        """Read and hash the files of the next record.

        Raises
        ------
        OSError : a file has vanished or may not be read
        """
        self._digest.update(f"{record.name}|{record.start_us}\n".encode())
        for path in _sorted(record.files):
            self._digest.update(f"{path.name}|{_file_hash(path)}\n".encode())

    def hexdigest(self) -> str:
        """Return the hash of the records so far."""
        return self._digest.hexdigest()


def source_state(records: Sequence[Record]) -> SourceState:
    """Read and hash one patient's records.

    Raises
    ------
    OSError : a file has vanished or may not be read
    """
    began, print_ = time.time(), fingerprint(records)
    content = content_hash(records)
    settled = is_settled(records, began) and fingerprint(records) == print_
    return SourceState(fingerprint=print_, content=content, settled=settled)


def is_settled(records: Iterable[Record], began: float) -> bool:
    """Whether no file was changed shortly before `began` (seconds since the epoch) or later.

    Raises
    ------
    OSError : a file has vanished or may not be read
    """
    newest = max((path.stat().st_mtime for record in records for path in record.files), default=0.0)
    return newest < began - SETTLED_SECONDS


class SourceHashes:
    """Content hashes by patient, remembered under the patients' keyed hashes."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._known = _parse(memory.read(CACHE_FILE))
        self._new: dict[str, list[str]] = {}
        self._next_save = time.monotonic() + SAVE_SECONDS

    def remembered(self, patient: str, records: Sequence[Record]) -> SourceState | None:
        """Return what is remembered of a patient's records as they are now; reads no file.

        Parameters
        ----------
        patient : keyed hash of the patient id

        Raises
        ------
        OSError : a file has vanished or may not be read
        """
        known = self._new.get(patient) or self._known.get(patient)
        if known is None or known[0] != fingerprint(records):
            return None
        return SourceState(fingerprint=known[0], content=known[1], settled=True)

    def remember(self, patient: str, state: SourceState) -> None:
        """Keep what was hashed, if it can be recognised again; saved now and then, and by `save`."""
        if not state.settled:
            return
        self._new[patient] = [state.fingerprint, state.content]
        began = time.monotonic()
        if began >= self._next_save:
            self.save()
            took = time.monotonic() - began
            self._next_save = began + max(SAVE_SECONDS, took / SAVE_SHARE)

    def save(self) -> None:
        """Write what was hashed since the last save; entries that other processes added meanwhile stay."""
        new, self._new = self._new, {}
        if new:
            self._known |= new
            self._memory.update(
                CACHE_FILE, lambda before: json.dumps(_parse(before) | new, sort_keys=True).encode()
            )


def forget_hash(memory: Memory, patient: str) -> None:
    """Remove what is remembered under one patient's keyed hash."""

    def drop(before: bytes | None) -> bytes:
        kept = {name: pair for name, pair in _parse(before).items() if name != patient}
        return json.dumps(kept, sort_keys=True).encode()

    if patient in _parse(memory.read(CACHE_FILE)):
        memory.update(CACHE_FILE, drop)


def _file_hash(path: Path) -> str:
    """Return the hash of a file; of one that many patients share (a table), it is read once while it stays as it is."""
    status = path.stat()
    state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    settled = status.st_ctime < time.time() - SETTLED_SECONDS
    return _hash_of(path, state) if settled else _hash_of.__wrapped__(path, state)


@lru_cache(maxsize=1024)
def _hash_of(path: Path, _state: tuple[int, ...]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _sorted(paths: Iterable[Path]) -> list[Path]:
    return sorted(
        paths, key=lambda path: path.parts
    )  # the order of paths, without comparing them part by part


def _parse(data: bytes | None) -> dict[str, list[str]]:
    return {} if data is None else json.loads(data)
