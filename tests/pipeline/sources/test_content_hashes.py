"""Content hashes of source records: what they depend on, and where they are remembered."""

import os
from collections.abc import Callable
from pathlib import Path

from pipeline.sources.base import Record
from pipeline.sources.content_hashes import CACHE_FILE, SourceHashes, content_hash, forget_hash


class DictMemory:
    """The least that hashes need to be remembered; no store."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    def update(self, name: str, change: Callable[[bytes | None], bytes]) -> None:
        self.files[name] = change(self.files.get(name))


def record_of(path: Path, content: bytes, patient: str = "p") -> Record:
    path.write_bytes(content)
    os.utime(path, ns=(10**18, 10**18))
    return Record(patient_id=patient, name=path.name, path=path, files=(path,), start_us=0, end_us=1)


def test_hashes_are_remembered_wherever_they_are_handed_to(tmp_path: Path) -> None:
    memory, record = DictMemory(), record_of(tmp_path / "a.dat", b"samples")
    hashes = SourceHashes(memory)
    _, content = hashes.of("keyed", (record,))
    assert content == content_hash((record,))
    hashes.save()
    record.path.write_bytes(b"changed")
    os.utime(record.path, ns=(10**18, 10**18))
    assert SourceHashes(memory).of("keyed", (record,))[1] == content, "same size and time: not read again"
    forget_hash(memory, "keyed")
    assert b"keyed" not in memory.files[CACHE_FILE]
    assert SourceHashes(memory).of("keyed", (record,))[1] != content
