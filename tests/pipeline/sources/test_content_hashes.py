"""Content hashes of source records: what they depend on, what is read for them, and where they are remembered."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.sources import content_hashes
from pipeline.sources.base import Record
from pipeline.sources.content_hashes import (
    CACHE_FILE,
    ContentDigest,
    SourceHashes,
    content_hash,
    fingerprint,
    forget_hash,
    source_state,
)

LONG_AGO_NS = 10**18


class DictMemory:
    """The least that hashes need to be remembered; no store."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.writes = 0

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    def update(self, name: str, change: Callable[[bytes | None], bytes]) -> None:
        self.files[name] = change(self.files.get(name))
        self.writes += 1


def record_of(path: Path, content: bytes, patient: str = "p", start_us: int = 0) -> Record:
    path.write_bytes(content)
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    return Record(
        patient_id=patient, name=path.name, path=path, files=(path,), start_us=start_us, end_us=start_us + 1
    )


def test_hashes_are_remembered_wherever_they_are_handed_to(tmp_path: Path) -> None:
    memory, record = DictMemory(), record_of(tmp_path / "a.dat", b"samples")
    hashes = SourceHashes(memory)
    assert hashes.remembered("keyed", (record,)) is None
    state = source_state((record,))
    assert (state.content, state.settled) == (content_hash((record,)), True)
    hashes.remember("keyed", state)
    assert hashes.remembered("keyed", (record,)) == state, "before it is saved"
    hashes.save()
    assert SourceHashes(memory).remembered("keyed", (record,)) == state
    record.path.write_bytes(b"changed its length")
    os.utime(record.path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    assert SourceHashes(memory).remembered("keyed", (record,)) is None
    forget_hash(memory, "keyed")
    assert b"keyed" not in memory.files[CACHE_FILE]


def test_a_file_that_changed_just_now_is_never_remembered(tmp_path: Path) -> None:
    memory, record = DictMemory(), record_of(tmp_path / "a.dat", b"samples")
    os.utime(record.path)
    state = source_state((record,))
    assert not state.settled
    hashes = SourceHashes(memory)
    hashes.remember("keyed", state)
    hashes.save()
    assert hashes.remembered("keyed", (record,)) is None
    assert memory.files == {}


def test_hashes_are_saved_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    memory, record = DictMemory(), record_of(tmp_path / "a.dat", b"samples")
    hashes, state = SourceHashes(memory), source_state((record,))
    for second in range(31):
        now[0] = float(second)
        hashes.remember(f"patient-{second}", state)
    assert memory.writes == 6, "every five seconds, without a call of save: a killed run keeps them"
    assert b"patient-30" in memory.files[CACHE_FILE]


def test_saving_takes_a_small_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    class Slow(DictMemory):
        def update(self, name: str, change: Callable[[bytes | None], bytes]) -> None:
            super().update(name, change)
            now[0] += 10.0

    memory, record = Slow(), record_of(tmp_path / "a.dat", b"samples")
    hashes, state = SourceHashes(memory), source_state((record,))
    for number in range(1000):
        now[0] += 1.0
        hashes.remember(f"patient-{number}", state)
    assert memory.writes * 10 <= 0.06 * now[0]


def test_record_by_record_is_all_at_once(tmp_path: Path) -> None:
    late = record_of(tmp_path / "a.dat", b"late", start_us=5)
    early = record_of(tmp_path / "b.dat", b"early", start_us=2)
    digest = ContentDigest()
    for record in (early, late):
        digest.add(record)
    assert digest.hexdigest() == content_hash((late, early))


def test_the_hashes_are_those_of_earlier_versions(tmp_path: Path) -> None:
    """A store remembers them: another order of files or another digest would embed everybody again."""
    folder = tmp_path / "p" / "x"
    folder.mkdir(parents=True)
    for name, content in (("a-1.dat", b"one"), ("a.dat", b"two"), ("b.hea", b"three")):
        (folder / name).write_bytes(content)
        os.utime(folder / name, ns=(LONG_AGO_NS, LONG_AGO_NS))
    files = tuple(folder / name for name in ("b.hea", "a.dat", "a-1.dat"))
    record = Record(patient_id="p", name="p/x/b", path=files[0], files=files, start_us=7, end_us=9)
    assert content_hash((record,)) == "0a1d070334c790f5b4aa9314536297aa"
    assert fingerprint((record,)) == "ce9ba147ddd6f2027594c3b08fb55309"


def test_a_file_that_patients_share_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = record_of(tmp_path / "table.parquet", b"all patients")
    reads: list[Path] = []
    original = Path.open

    def counted(path: Path, *arguments: object, **named: object):
        reads.append(path)
        return original(path, *arguments, **named)  # type: ignore[call-overload]

    later = time.time() + 60
    monkeypatch.setattr(content_hashes.time, "time", lambda: later)
    monkeypatch.setattr(Path, "open", counted)
    content_hashes._hash_of.cache_clear()
    first = content_hash((shared,))
    assert content_hash((shared,)) == first
    assert reads == [shared.path], "else planning a table of n patients reads it n times"
    shared.path.write_bytes(b"ALL PATIENTS")
    os.utime(shared.path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    assert content_hash((shared,)) != first, "same size and time of change, another content"
