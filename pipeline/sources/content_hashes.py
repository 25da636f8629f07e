"""Content hashes of patients' source records, cached so that a nightly check costs one ``stat`` a file.

Names, sizes and times of change say whether a file may have changed; content says whether it did. A copy or a
restore with new times costs the hashing, never the embedding.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

from pipeline.sources.base import Record

CACHE_FILE = "source_hashes.json"
SETTLED_SECONDS = 2.0
"""A file changed less than this before it was hashed may change again without a new time: never cached."""


@runtime_checkable
class Memory(Protocol):
    """Where hashes are remembered between runs; a store's `Storage` is one."""

    def read(self, name: str) -> bytes | None:
        """Return a file's content, None when it is not there."""
        ...

    def update(self, name: str, change: Callable[[bytes | None], bytes]) -> None:
        """Replace a file by `change` of its content, as if no other process ran at the same time."""
        ...


def fingerprint(records: Iterable[Record]) -> str:
    """Return the hash of names, sizes and times of change of all files of some records.

    Raises
    ------
    OSError : a file has vanished or may not be read
    """
    digest = hashlib.blake2b(digest_size=16)
    for record in _ordered(records):
        digest.update(f"{record.name}|{record.start_us}\n".encode())
        for path in sorted(record.files):
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
    digest = hashlib.blake2b(digest_size=16)
    for record in _ordered(records):
        digest.update(f"{record.name}|{record.start_us}\n".encode())
        for path in sorted(record.files):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
            digest.update(f"{path.name}|{content.hexdigest()}\n".encode())
    return digest.hexdigest()


class SourceHashes:
    """Content hashes by patient, remembered under the patients' keyed hashes."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._known = _parse(memory.read(CACHE_FILE))
        self._new: dict[str, list[str]] = {}

    def of(self, patient: str, records: Sequence[Record]) -> tuple[str, str]:
        """Return fingerprint and content hash of one patient's records; read files only if they may differ.

        Parameters
        ----------
        patient : keyed hash of the patient id

        Raises
        ------
        OSError : a file has vanished or may not be read
        """
        began = time.time()
        print_ = fingerprint(records)
        remembered = self._new.get(patient) or self._known.get(patient)
        if remembered and remembered[0] == print_:
            return print_, remembered[1]
        content = content_hash(records)
        newest = max((path.stat().st_mtime for record in records for path in record.files), default=0.0)
        if newest < began - SETTLED_SECONDS and fingerprint(records) == print_:
            self._new[patient] = [print_, content]
        return print_, content

    def save(self) -> None:
        """Remember what was hashed since; entries that other processes added meanwhile stay."""
        if self._new:
            self._memory.update(
                CACHE_FILE, lambda before: json.dumps(_parse(before) | self._new, sort_keys=True).encode()
            )


def forget_hash(memory: Memory, patient: str) -> None:
    """Remove what is remembered under one patient's keyed hash."""

    def drop(before: bytes | None) -> bytes:
        kept = {name: pair for name, pair in _parse(before).items() if name != patient}
        return json.dumps(kept, sort_keys=True).encode()

    if patient in _parse(memory.read(CACHE_FILE)):
        memory.update(CACHE_FILE, drop)


def _parse(data: bytes | None) -> dict[str, list[str]]:
    return {} if data is None else json.loads(data)


def _ordered(records: Iterable[Record]) -> list[Record]:
    return sorted(records, key=lambda record: (record.start_us, record.name))
