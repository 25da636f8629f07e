"""What every storage must hold: `pipeline.store.base.Storage`, sentence by sentence; none may be forgotten.

Object storage runs on fsspec's filesystem in memory, whose exclusive creation is made atomic as a bucket's is, and, in
`make test-slow`, on a local S3 server.
"""

import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.foundation import atomic
from pipeline.foundation.errors import StoreError
from pipeline.sources.base import Memory
from pipeline.store import object_storage
from pipeline.store.base import ENTRY_FILE, Storage
from pipeline.store.local_folder import LocalFolder
from pipeline.store.object_storage import ObjectFolder
from pipeline.testing.conformance import forgotten

KINDS: dict[str, type] = {"local": LocalFolder, "memory": ObjectFolder, "s3": ObjectFolder}
THREADS = 6


@pytest.fixture(params=["local", "memory", pytest.param("s3", marks=pytest.mark.slow)])
def storage(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Storage]:
    monkeypatch.setattr(object_storage, "TOKEN_SECONDS", 0.0)
    if request.param == "local":
        yield LocalFolder(root=tmp_path / "store")
    elif request.param == "memory":
        lock = threading.RLock()  # listing and removing at once, too, trip over each other in memory alone
        for name in ("pipe_file", "ls", "rm", "rm_file"):
            monkeypatch.setattr(MemoryFileSystem, name, one_at_a_time(getattr(MemoryFileSystem, name), lock))
        url = f"memory://{tmp_path.name}/store"
        yield ObjectFolder(url=url)
        if MemoryFileSystem().exists(f"/{tmp_path.name}"):
            MemoryFileSystem().rm(f"/{tmp_path.name}", recursive=True)
    else:
        yield ObjectFolder(url=f"{request.getfixturevalue('bucket')}/{tmp_path.name}")


def one_at_a_time(act: Callable, lock: threading.RLock) -> Callable:
    def locked(*args: object, **options: object) -> object:
        with lock:
            return act(*args, **options)

    return locked


def staged(storage: Storage, **files: bytes) -> Path:
    folder = storage.new_staging_folder()
    for name, data in ({"a": b"1", "c/0": b"2", "c/1": b"3"} | files).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / ENTRY_FILE).write_bytes(files.get(ENTRY_FILE, b"{}"))
    return folder


def at_once(act: Callable[[int], object], n: int = THREADS) -> list:
    """Call `act` with 0, 1, ... in threads that begin together, and return what they return."""
    barrier = threading.Barrier(n)

    def begin(number: int) -> object:
        barrier.wait()
        return act(number)

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(begin, range(n)))


def test_none_is_forgotten() -> None:
    assert forgotten(Storage, KINDS.values()) == []
    assert forgotten(Memory, KINDS.values()) == []


def test_keeps_the_protocol_and_travels(storage: Storage) -> None:
    assert isinstance(storage, Storage)
    assert isinstance(storage, Memory)  # of content hashes
    assert isinstance(storage.one_object_per_array, bool)
    storage.create("x", b"1")
    other = pickle.loads(pickle.dumps(storage))
    assert other == storage
    assert other.read("x") == b"1"
    assert str(storage.locate("p/v")) == f"{storage}/p/v"


@pytest.mark.parametrize("name", ["patient_key", "deep/er/x.json", "top.json"])
def test_create_is_exclusive_and_read_returns_the_bytes(storage: Storage, name: str) -> None:
    assert storage.read(name) is None
    assert storage.token(name) is None
    data = bytes(range(256)) * 100
    assert storage.create(name, data) is True
    assert storage.read(name) == data
    assert storage.token(name) is not None
    assert storage.create(name, b"other") is False
    assert storage.read(name) == data


@pytest.mark.parametrize("name", ["patient_key", "deep/x.json", "top.json"])
def test_of_many_creators_one_wins(storage: Storage, name: str) -> None:
    created = at_once(lambda number: storage.create(name, b"%d" % number * 1000))
    assert created.count(True) == 1
    assert created.count(False) == THREADS - 1
    assert storage.read(name) == b"%d" % created.index(True) * 1000


def test_update_sees_what_create_wrote_and_create_what_update_wrote(storage: Storage) -> None:
    storage.create("x.json", b"1")
    storage.update("x.json", lambda before: (before or b"") + b"2")
    assert storage.read("x.json") == b"12"
    assert storage.create("x.json", b"3") is False
    storage.update("y.json", lambda before: b"new" if before is None else b"old")
    assert storage.create("y.json", b"3") is False
    assert storage.read("y.json") == b"new"


def test_tokens_change_with_the_content_and_only_with_it(storage: Storage) -> None:
    seen = []
    for content in (b"1", b"2", b"1"):
        storage.update("x.json", lambda before, content=content: content)
        seen.append(storage.token("x.json"))
        storage.update("x.json", lambda before: before or b"")
        assert storage.token("x.json") == seen[-1]
    assert None not in seen
    assert len({seen[0], seen[1]}) == len({seen[1], seen[2]}) == 2
    assert hash(seen[0]) is not None


def test_a_token_never_lags_behind_an_own_update(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_storage, "TOKEN_SECONDS", 1000.0)
    seen = {storage.token("x.json")}
    storage.create("x.json", b"0")
    seen.add(storage.token("x.json"))
    storage.update("x.json", lambda before: b"1")
    seen.add(storage.token("x.json"))
    assert len(seen) == 3


def test_updates_under_contention_lose_nothing(storage: Storage) -> None:
    each = 12

    def add(number: int) -> None:
        own = pickle.loads(pickle.dumps(storage))
        for step in range(each):
            own.update("x.json", lambda before, step=step: (before or b"") + b"%d:%d\n" % (number, step))
            assert own.read("x.json") is not None

    at_once(add)
    lines = (storage.read("x.json") or b"").split()
    assert sorted(lines) == sorted(b"%d:%d" % (n, step) for n in range(THREADS) for step in range(each))
    for n in range(THREADS):
        assert [line for line in lines if line.startswith(b"%d:" % n)] == [
            b"%d:%d" % (n, step) for step in range(each)
        ]


def test_old_revisions_go_and_young_ones_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A writer that was held up finds the number that it wants taken, and not free again."""
    folder = ObjectFolder(url=f"memory://{tmp_path.name}/revisions")
    for number in range(object_storage.KEPT_REVISIONS + 5):
        folder.update("x.json", lambda before, number=number: b"%d" % number)
    assert len(folder._revisions("x.json")) == object_storage.KEPT_REVISIONS + 5
    monkeypatch.setattr(object_storage, "KEPT_SECONDS", 0.0)
    folder.update("x.json", lambda before: b"last")
    assert len(folder._revisions("x.json")) == object_storage.KEPT_REVISIONS
    assert folder.read("x.json") == b"last"


def test_an_update_that_fails_changes_nothing(storage: Storage) -> None:
    storage.create("x.json", b"1")

    def fail(before: bytes | None) -> bytes:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        storage.update("x.json", fail)
    assert storage.read("x.json") == b"1"
    storage.update("x.json", lambda before: b"2")  # and holds no lock
    assert storage.read("x.json") == b"2"


@pytest.mark.parametrize("name", ["patient_key", "deep/x.json"])
def test_only_json_files_at_the_top_can_be_updated(storage: Storage, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be updated"):
        storage.update(name, lambda before: b"1")
    assert storage.read(name) is None


def test_folders_are_sorted_and_files_are_none(storage: Storage) -> None:
    assert storage.folders() == storage.folders("nothing") == []
    for path in ("p2/v1", "p1/v2", "p1/v1"):
        storage.publish(staged(storage), path)
    storage.create("provenance/x.json", b"1")
    storage.create("patient_key", b"1")
    storage.update("manifest.json", lambda before: b"1")
    assert storage.folders() == ["p1", "p2", "provenance"]
    assert storage.folders("p1") == ["v1", "v2"]
    assert storage.folders("provenance") == storage.folders("patient_key") == []


def test_a_staging_folder_is_new_empty_private_and_unseen(storage: Storage) -> None:
    first, second = storage.new_staging_folder(), storage.new_staging_folder()
    assert first != second
    for folder in (first, second):
        assert list(folder.iterdir()) == []
        assert folder.stat().st_mode & 0o077 == 0
    assert storage.folders() == []
    for folder in (first, second):
        folder.rmdir()


def test_publish_moves_a_folder_whole_and_once(storage: Storage) -> None:
    folder = staged(storage)
    assert storage.publish(folder, "p/v") is True
    assert not folder.exists()
    files = {name: storage.read(f"p/v/{name}") for name in ("a", "c/0", "c/1", ENTRY_FILE)}
    assert files == {"a": b"1", "c/0": b"2", "c/1": b"3", ENTRY_FILE: b"{}"}
    folder = staged(storage, a=b"other")
    assert storage.publish(folder, "p/v") is False
    assert not folder.exists()
    assert storage.read("p/v/a") == b"1"


def test_of_many_publishers_one_wins(storage: Storage) -> None:
    folders = [staged(storage) for _ in range(THREADS)]
    assert at_once(lambda number: storage.publish(folders[number], "p/v")).count(True) == 1
    assert not any(folder.exists() for folder in folders)
    assert storage.read("p/v/c/1") == b"3"


def test_a_reader_sees_a_published_folder_whole_or_not_at_all(storage: Storage) -> None:
    rounds, torn = 10, []
    files = {f"c/{number}": b"x" * 1000 for number in range(20)}
    folders = [staged(storage, **files) for _ in range(rounds)]

    def work(number: int) -> None:
        if number == 0:
            for i, folder in enumerate(folders):
                storage.publish(folder, f"p/v{i}")
        for i in range(rounds) if number else ():
            end = time.monotonic() + 60
            while storage.read(f"p/v{i}/{ENTRY_FILE}") is None and time.monotonic() < end:
                pass
            torn.extend(name for name in files if storage.read(f"p/v{i}/{name}") is None)

    at_once(work, 2)
    assert torn == []


@pytest.mark.parametrize("succeed", [0, 1, 3])
def test_a_publication_that_breaks_off_is_none_and_can_be_repeated(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, succeed: int
) -> None:
    """After `succeed` of four files; what is left over is no version, and may be removed or published over."""
    folder, done = staged(storage), []
    owner, name = (atomic, "_flush") if isinstance(storage, LocalFolder) else (storage._fs, "pipe_file")
    whole = getattr(owner, name)

    def broken(*args: object, **options: object) -> object:
        if len(done) >= succeed:
            raise OSError(28, "No space left on device")
        done.append(args)
        return whole(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, broken)
        with pytest.raises((OSError, StoreError)):
            storage.publish(folder, "p/v")
    assert storage.read(f"p/v/{ENTRY_FILE}") is None
    assert storage.age_hours("p/v") == 0
    storage.remove("p/v")
    assert storage.folders() == []
    assert storage.publish(folder, "p/v") is True
    assert storage.read("p/v/c/1") == b"3"


def test_remove_takes_all_of_a_folder_and_its_empty_parents(storage: Storage) -> None:
    storage.publish(staged(storage), "p/v1")
    storage.publish(staged(storage), "p/v2")
    storage.remove("p/v1")
    assert storage.folders("p") == ["v2"]
    assert storage.read("p/v1/a") is storage.read(f"p/v1/{ENTRY_FILE}") is None
    assert storage.read("p/v2/a") == b"1"
    storage.remove("p/v1")  # nothing is there: nothing happens
    storage.remove("never/was")
    storage.remove("p/v2")
    assert storage.folders() == []
    assert storage.publish(staged(storage), "p/v1") is True, "the name is free again"


def test_many_may_remove_the_same_folder_while_others_publish_beside_it(storage: Storage) -> None:
    for _ in range(10):
        storage.publish(staged(storage), "p/old")
        folders = [staged(storage) for _ in range(2)]

        def work(number: int, folders: list[Path] = folders) -> object:
            return storage.publish(folders[number], f"p/v{number}") if number < 2 else storage.remove("p/old")

        assert at_once(work, 4)[:2] == [True, True]
        assert storage.folders("p") == ["v0", "v1"]
        at_once(lambda number: storage.remove(f"p/v{number}"), 2)
        assert storage.folders() == []


def test_age_counts_from_publication_and_from_touch(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert storage.age_hours("p/v") == 0
    storage.touch("p/v")
    assert storage.folders() == [], "nothing to touch, nothing made"
    storage.publish(staged(storage), "p/v")
    real = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: real() + 7200)
        assert storage.age_hours("p/v") == pytest.approx(2, abs=0.1)
        if isinstance(storage, LocalFolder):  # a bucket's clock is not ours to set
            os.utime(storage.locate("p/v"), (0, 0))
            assert storage.age_hours("p/v") > 400_000
    storage.touch("p/v")
    assert storage.age_hours("p/v") == pytest.approx(0, abs=0.05)
    assert storage.read(f"p/v/{ENTRY_FILE}") == b"{}"


def test_claims(storage: Storage) -> None:
    """One holder at a time, or, where storage knows no claims, everybody; released also by an error."""
    exclusive = isinstance(storage, LocalFolder)
    with storage.claim("p/v", wait=False) as first, storage.claim("p/v", wait=False) as second:
        assert first is True
        assert second is not exclusive
        with storage.claim("p/w", wait=False) as other:
            assert other is True

    def break_off() -> None:
        with storage.claim("p/v", wait=True):
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        break_off()
    inside, most = [], []

    def work(number: int) -> None:
        with storage.claim("p/v", wait=True) as held:
            assert held
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.002)
            inside.remove(number)

    at_once(work)
    assert len(most) == THREADS
    assert max(most) == 1 or not exclusive
    assert storage.folders() == []


def test_a_secret_that_others_may_read_is_refused_where_that_can_be_seen(storage: Storage) -> None:
    storage.create("patient_key", b"secret")
    storage.require_private("patient_key")
    if isinstance(storage, LocalFolder):
        for mode in (0o640, 0o604, 0o601):
            storage.locate("patient_key").chmod(mode)
            with pytest.raises(StoreError, match=rf"has mode {mode:o} and must be private: run chmod 600"):
                storage.require_private("patient_key")


def test_stale_staging_is_what_nothing_touched_for_long(storage: Storage) -> None:
    fresh, stale, busy = (staged(storage) for _ in range(3))
    for folder, inside in ((stale, 1_000), (busy, time.time())):
        for path in folder.rglob("*"):
            os.utime(path, (1_000, 1_000))
        os.utime(folder, (1_000, 1_000))
        os.utime(folder / "c" / "0", (inside, inside))
    expected = [stale] if isinstance(storage, LocalFolder) else []  # the system cleans its own folder
    assert storage.stale_staging(1.0) == expected
    assert storage.stale_staging(1e9) == []
    for folder in (fresh, stale, busy):
        assert folder.is_dir(), "listed, not removed"
        storage.publish(folder, f"p/{folder.name}")
