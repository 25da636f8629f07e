"""A private local folder as the embedding store needs it: whole files, one committer at a time, claims.

`pipeline.store.object_storage` offers the same for object storage.
"""

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pipeline.foundation.atomic import (
    explained_os_errors,
    flush_folder,
    make_private_dir,
    publish_folder,
    write_bytes,
)
from pipeline.foundation.claims import claimed
from pipeline.foundation.errors import StoreError
from pipeline.store.base import require_updatable

PUBLISH_ATTEMPTS = 5


@dataclass(frozen=True, kw_only=True)
class LocalFolder:
    """A folder on a local or shared disk that supports ``flock``.

    Attributes
    ----------
    root : the store's folder; ``<root>.staging`` beside it holds unfinished work, locks and rubbish
    """

    root: Path
    one_object_per_array: ClassVar[bool] = False

    @property
    def staging(self) -> Path:
        """The folder beside the store, on the same disk, whose content no reader ever looks at."""
        return self.root.with_name(f"{self.root.name}.staging")

    def __str__(self) -> str:
        return str(self.root)

    def locate(self, name: str) -> Path:
        """Return the path of `name`."""
        return self.root / name

    def read(self, name: str) -> bytes | None:
        """Return a file's content, None when it is not there."""
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None

    def token(self, name: str) -> Hashable:
        """Return inode, size and time of the last change; every replacement has another inode or time."""
        try:
            status = (self.root / name).stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    def create(self, name: str, data: bytes) -> bool:
        """Create a file with all its content at once; return False when it is already there."""
        path = self.root / name
        with tempfile.TemporaryDirectory(dir=make_private_dir(self.staging)) as folder:
            write_bytes(Path(folder, "new"), data)
            make_private_dir(path.parent)
            with explained_os_errors(path):
                try:
                    os.link(Path(folder, "new"), path)  # unlike a rename, never replaces
                except FileExistsError:
                    return False
                flush_folder(path.parent)
        return True

    def update(self, name: str, change: Callable[[bytes | None], bytes]) -> None:
        """Replace a file by `change` of its content while holding its lock."""
        require_updatable(name)
        with self.claim(f"{name}.update", wait=True):
            before = self.read(name)
            after = change(before)
            if after != before:
                write_bytes(self.root / name, after)

    def require_private(self, name: str) -> None:
        """Refuse a secret that others may read.

        Raises
        ------
        StoreError : group or others have any permission on the file
        """
        mode = (self.root / name).stat().st_mode & 0o777
        if mode & 0o077:
            raise StoreError(
                f"{self.root / name} has mode {mode:o} and must be private: run chmod 600 on it, "
                "and check who read it"
            )

    def folders(self, name: str = "") -> list[str]:
        """Return the sorted names of the folders inside a folder."""
        folder = self.root / name
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()) if folder.is_dir() else []

    def age_hours(self, name: str) -> float:
        """Return hours since a folder's own entry last changed, 0 when it is not there."""
        try:
            return max(0.0, time.time() - (self.root / name).stat().st_mtime) / 3600
        except FileNotFoundError:
            return 0.0

    def touch(self, name: str) -> None:
        """Set a folder's time of change to now; nothing happens when it is not there."""
        with suppress(FileNotFoundError):
            os.utime(self.root / name)

    def remove(self, name: str) -> None:
        """Move a folder aside in one step, then delete it; parents that become empty go too."""
        path = self.root / name
        with explained_os_errors(path):
            rubbish = Path(tempfile.mkdtemp(prefix="removed-", dir=make_private_dir(self.staging)))
            with suppress(FileNotFoundError):  # somebody else was faster
                path.rename(rubbish / "content")
            shutil.rmtree(rubbish)
            for parent in path.relative_to(self.root).parents[:-1]:
                try:
                    (self.root / parent).rmdir()
                except FileNotFoundError:
                    continue
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                    break

    @contextmanager
    def claim(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Hold ``flock`` on a file beside the store; the kernel lets go of it when the process dies."""
        path = make_private_dir(self.staging) / f"{name.replace('/', '_')}.lock"
        with claimed(path, wait=wait) as mine:
            yield mine

    def new_staging_folder(self) -> Path:
        """Return a new, empty, private folder for unfinished work."""
        with explained_os_errors(self.staging):
            return Path(tempfile.mkdtemp(prefix="writing-", dir=make_private_dir(self.staging)))

    def publish(self, staging: Path, name: str) -> bool:
        """Flush a staging folder and rename it to `name`; return False when `name` is already there."""
        attempts = PUBLISH_ATTEMPTS
        while True:
            attempts -= 1
            try:
                publish_folder(staging, self.root / name)
            except FileExistsError:
                shutil.rmtree(staging)
                return False
            except FileNotFoundError:  # a `remove` took the empty parent away before the renaming
                if not attempts:
                    raise
                continue
            return True

    def stale_staging(self, older_than_hours: float) -> list[Path]:
        """Return staging folders that nothing touched for so long: left by writers that were killed."""
        if not self.staging.is_dir():
            return []
        limit = time.time() - older_than_hours * 3600
        return sorted(path for path in self.staging.iterdir() if path.is_dir() and _last_change(path) < limit)


def _last_change(path: Path) -> float:
    """Return the newest time of change in a folder, now when it is no longer there."""
    newest = 0.0
    for folder, _, names in os.walk(path):
        for entry in (folder, *(os.path.join(folder, name) for name in names)):
            with suppress(FileNotFoundError):  # its writer is at work
                newest = max(newest, os.stat(entry).st_mtime)
    return newest or time.time()
