"""What a read-only folder, a full disk and a size limit do to stage 1: one clear error, and nothing half done."""

import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.foundation.errors import StoreError
from pipeline.foundation.schema import QUALITY_COLUMNS, WINDOW_US
from pipeline.store.admin import verify_store
from pipeline.store.embeddings import EmbeddingStore
from pipeline.store.manifest import EmbeddingKey

NOBODY = 65534
KEY = EmbeddingKey(source_hash="s", encoder_name="fake", weights_hash="ab" * 32, preprocessing_version="1")


def write_patient(root: Path, n: int = 3000, width: int = 64) -> None:
    store = EmbeddingStore.open(root, create=True)
    with store.stage("p1", KEY, width=width) as writer:
        for first in range(0, n, 500):
            start_us = np.arange(first, first + 500, dtype=np.int64) * WINDOW_US
            writer.append(
                start_us, np.ones((500, width), np.float32), np.zeros((500, len(QUALITY_COLUMNS)), np.float32)
            )
        store.commit([writer.finish()])


def message_of(root: Path, before: Callable[[], None]) -> str:
    """Write a patient in a forked process after `before`, and return the StoreError's message."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            before()
            write_patient(root)
            os.write(writing, b"no error")
        except StoreError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with os.fdopen(reading) as pipe:
        return pipe.read()


def as_nobody() -> None:
    """Become a user whom permissions bind; root ignores them."""
    if os.getuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def test_folder_that_may_not_be_written(tmp_path: Path) -> None:
    for folder in tmp_path.parents[:3]:  # a worker of pytest-xdist has a folder of its own
        folder.chmod(folder.stat().st_mode | 0o011)
    tmp_path.chmod(0o555)
    message = message_of(tmp_path / "store", as_nobody)
    assert "may not be written: change its permissions or choose another one" in message
    assert list(tmp_path.iterdir()) == []


def test_size_limit_while_writing_a_chunk(tmp_path: Path) -> None:
    limit = 100_000
    message = message_of(
        tmp_path / "store", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    assert "exceeds the size limit" in message
    store = EmbeddingStore.open(tmp_path / "store")
    assert store.manifest() == {}
    assert list(store.storage.staging.iterdir()) == []
    write_patient(tmp_path / "store")
    assert verify_store(EmbeddingStore.open(tmp_path / "store")).checked == 1


@pytest.mark.slow
def test_full_disk(tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(tmp_path)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        assert "the disk is full: free some space and run again" in message_of(
            tmp_path / "store", lambda: None
        )
        assert EmbeddingStore.open(tmp_path / "store").manifest() == {}
        assert list((tmp_path / "store.staging").iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
