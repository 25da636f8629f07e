"""Files and folders that appear whole or not at all, readable by their owner alone.

A file is written to a temporary sibling, flushed to the disk and renamed into place; the folder is flushed
after it. A process killed at any moment leaves the old file or the new one, and at worst a hidden ``.*.tmp``.
"""

import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.foundation.artefact_notes import NOTE_KEY, current_note
from pipeline.foundation.errors import StoreError

PRIVATE_FILE_MODE = 0o600
PRIVATE_FOLDER_MODE = 0o700
PARALLEL_FLUSHES = 8
"""A journal writes what is flushed at the same time at once."""

_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space and run again",
    errno.EDQUOT: "the disk quota is used up: free some space and run again",
    errno.EFBIG: "the file exceeds the size limit of the disk or the process: raise it and run again",
    errno.EACCES: "the folder may not be written: change its permissions or choose another one",
    errno.EPERM: "the folder may not be written: change its permissions or choose another one",
    errno.EROFS: "the folder is read-only: choose another one",
    errno.ENOTDIR: "a part of the path is a file: choose another folder",
}


@contextmanager
def explained_os_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write at `path` into one clear error.

    Raises
    ------
    StoreError : disk full, quota, read-only or forbidden folder; any other OSError passes unchanged
    """
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        if remedy is None:
            raise
        raise StoreError(f"cannot write {path}: {os.strerror(error.errno or 0)}; {remedy}") from error


def make_private_dir(path: Path) -> Path:
    """Create `path` and its missing parents, mode 0700, and return it; existing folders stay as they are."""
    path = Path(path)
    with explained_os_errors(path):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=PRIVATE_FOLDER_MODE, exist_ok=True)
            folder.chmod(PRIVATE_FOLDER_MODE)  # against an unusual umask
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    return path


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the file at `path` by `data`, whole or not at all, mode 0600; missing parents are created 0700.

    Raises
    ------
    StoreError : disk full, read-only or forbidden folder
    """
    _write(Path(path), lambda file: file.write(data))


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of `text` in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """`write_text` of `content` as JSON: sorted keys, indented, no NaN; equal content gives equal bytes."""
    write_text(
        path, json.dumps(content, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    )


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """`write_bytes` of `frame` as Parquet, without its index, with the note on its licence in the file's metadata."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata(
        {**(table.schema.metadata or {}), NOTE_KEY: current_note().as_json()}
    )
    _write(Path(path), lambda file: pq.write_table(table, file))


def require_writable(path: Path) -> None:
    """Refuse a file that could not be written later, before any work is done for it; nothing is created.

    Raises
    ------
    StoreError : `path` is a folder, or its folder cannot be made or written
    """
    path = Path(path)
    if path.is_dir():
        raise StoreError(f"cannot write {path}: it is a folder; name a file in it")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        with explained_os_errors(path), tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:  # of a kind without a remedy of its own, such as a place in /proc
        raise StoreError(f"cannot write {path}: {error.strerror}; choose another place") from error


def publish_folder(staging: Path, path: Path) -> None:
    """Flush every file of `staging`, make all of it private, and rename it to `path`, which must not exist.

    Raises
    ------
    StoreError : disk full, read-only or forbidden folder
    FileExistsError : `path` is there and not empty
    """
    with explained_os_errors(path):
        inside = [(Path(folder), names) for folder, _, names in os.walk(staging)]
        files = [folder / name for folder, names in inside for name in names]
        with ThreadPoolExecutor(PARALLEL_FLUSHES) as threads:
            list(threads.map(_flush, files, [PRIVATE_FILE_MODE] * len(files)))
            list(threads.map(_flush, [folder for folder, _ in inside], [PRIVATE_FOLDER_MODE] * len(inside)))
        make_private_dir(path.parent)
        try:
            staging.rename(path)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
            raise
        flush_folder(path.parent)
        flush_folder(staging.parent)


def flush_folder(path: Path) -> None:
    """Flush a folder's own entries (new names, renames) to the disk."""
    _flush(path, None)


def _write(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    make_private_dir(path.parent)
    with explained_os_errors(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")  # mode 0600
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        flush_folder(path.parent)


def _flush(path: Path, mode: int | None) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        if mode is not None:
            os.fchmod(handle, mode)
        os.fsync(handle)
    finally:
        os.close(handle)
