"""Object storage (``s3://bucket/prefix`` and whatever else fsspec knows) as the embedding store needs it.

An object appears whole or not at all, and nothing can be renamed: a version is complete when its ``entry.json``,
uploaded last, is there. A file that is replaced, such as the manifest, is a row of numbered revisions; each is
created only if nobody else has created it, so two committers never lose a commit. There are no claims: two runs
at the same time do the same work twice, and harm nothing.

The bucket holds the key of the patient hashes too, so nobody else may read it. Needs the extra ``s3``. Where
the service is and who asks comes from its own environment variables (``AWS_ENDPOINT_URL``, ...).
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import zarr
from zarr.storage import FsspecStore

from pipeline.foundation.errors import ConfigError, StoreError
from pipeline.store.base import ENTRY_FILE, is_updatable, require_updatable
from pipeline.store.finite import require_finite

REVISIONS = ".revisions"
KEPT_REVISIONS = 20
KEPT_SECONDS = 3600.0
"""Younger revisions are kept, however many: a writer that read the number of one before it, and was held up, must find
the next number taken and not free again, or its change would be written and never read."""
TOKEN_SECONDS = 2.0
"""A reader may see a commit that much later: asking costs a request."""


@dataclass(frozen=True, kw_only=True)
class ObjectFolder:
    """A prefix in a bucket.

    Attributes
    ----------
    url : such as ``s3://bucket/prefix``
    """

    url: str
    one_object_per_array: ClassVar[bool] = True

    @cached_property
    def _fs(self) -> Any:
        try:
            import fsspec

            return fsspec.url_to_fs(self.url)[0]
        except ImportError as error:
            raise ConfigError(
                f"reading {self.url.split(':')[0]}:// needs a package that is missing ({error.name}): "
                'pip install "uniphy-lab[s3]"'
            ) from error

    def __getstate__(self) -> dict[str, str]:
        return {"url": self.url}  # a connection stays in its process

    def __str__(self) -> str:
        return self.url

    def locate(self, name: str) -> str:
        """Return the URL of `name`."""
        return f"{self.url.rstrip('/')}/{name}"

    def read(self, name: str) -> bytes | None:
        """Return a file's content, of its last revision if it has revisions; None when it is not there."""
        while True:
            number = self._last_revision(name)
            try:
                return self._fs.cat_file(self.locate(name if number is None else _revision(name, number)))
            except FileNotFoundError:
                if number is None:
                    return None  # else so many updates came in between that the revision is gone: ask again

    def token(self, name: str) -> Hashable:
        """Return the number of the last revision, up to `TOKEN_SECONDS` old; of other files whether they exist."""
        if not is_updatable(name):
            return self._fs.exists(self.locate(name)) or None
        asked, number = self._tokens.get(name, (-np.inf, None))
        if time.monotonic() - asked > TOKEN_SECONDS:
            number = self._last_revision(name)
            self._tokens[name] = (time.monotonic(), number)
        return number

    def create(self, name: str, data: bytes) -> bool:
        """Create a file, or its first revision; return False, changing nothing, when it is already there."""
        if not is_updatable(name):
            return self._put_new(name, data)
        created = self._last_revision(name) is None and self._put_new(_revision(name, 0), data)
        self._tokens.pop(name, None)
        return created

    def _put_new(self, name: str, data: bytes) -> bool:
        try:
            self._fs.pipe_file(self.locate(name), data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            if "PreconditionFailed" in str(error) or "pre-conditions" in str(error):
                return False
            raise
        return True

    def update(self, name: str, change: Callable[[bytes | None], bytes]) -> None:
        """Add a revision made by `change` of the last one; start again when somebody else was faster."""
        require_updatable(name)
        while True:
            number = self._last_revision(name)
            try:
                before = None if number is None else self._fs.cat_file(self.locate(_revision(name, number)))
            except FileNotFoundError:
                continue  # many updates came in between
            after = change(before)
            following = 0 if number is None else number + 1
            if after == before or self._put_new(_revision(name, following), after):
                break
        self._tokens.pop(name, None)
        self._prune(name)

    def _prune(self, name: str) -> None:
        """Remove revisions that are neither among the last ones nor young."""
        for old in self._revisions(name)[:-KEPT_REVISIONS]:
            place = self.locate(_revision(name, old))
            with suppress(FileNotFoundError):  # somebody else was faster
                if time.time() - self._fs.modified(place).timestamp() < KEPT_SECONDS:
                    break
                self._fs.rm_file(place)

    def folders(self, name: str = "") -> list[str]:
        """Return the sorted names of the folders inside a folder; the revisions of a file are none."""
        try:
            found = self._fs.ls(self.locate(name), detail=True, refresh=True)
        except FileNotFoundError:
            return []
        names = (item["name"].rstrip("/").rsplit("/", 1)[-1] for item in found if item["type"] == "directory")
        return sorted(folder for folder in names if not folder.endswith(REVISIONS))

    def age_hours(self, name: str) -> float:
        """Return hours since a version's last file was written, 0 when it is not there."""
        try:
            written = self._fs.modified(self.locate(f"{name}/{ENTRY_FILE}"))
        except FileNotFoundError:
            return 0.0
        return max(0.0, time.time() - written.timestamp()) / 3600

    def touch(self, name: str) -> None:
        """Write a version's last file again, so that its age counts from now."""
        data = self.read(f"{name}/{ENTRY_FILE}")
        if data is not None:
            self._fs.pipe_file(self.locate(f"{name}/{ENTRY_FILE}"), data)

    def remove(self, name: str) -> None:
        """Remove a folder, first the file that makes it complete."""
        with suppress(FileNotFoundError):  # a killed `publish` or `remove` left the rest
            self._fs.rm_file(self.locate(f"{name}/{ENTRY_FILE}"))
        with suppress(FileNotFoundError):
            self._fs.rm(self.locate(name), recursive=True)

    @contextmanager
    def claim(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Yield True: object storage knows no claims."""
        yield True

    def require_private(self, name: str) -> None:
        """Do nothing: who may read a bucket is not ours to see."""

    def new_staging_folder(self) -> Path:
        """Return a new, empty, private folder on the local disk."""
        return Path(tempfile.mkdtemp(prefix="uniphy-writing-"))

    def publish(self, staging: Path, name: str) -> bool:
        """Upload a staging folder, `ENTRY_FILE` last; return False when `name` is already complete."""
        published = False
        if self.read(f"{name}/{ENTRY_FILE}") is None:
            last = staging / ENTRY_FILE
            for path in sorted(path for path in staging.rglob("*") if path.is_file() and path != last):
                self._fs.pipe_file(
                    self.locate(f"{name}/{path.relative_to(staging).as_posix()}"), path.read_bytes()
                )
            published = self._put_new(f"{name}/{ENTRY_FILE}", last.read_bytes())
        shutil.rmtree(staging)
        return published

    def stale_staging(self, older_than_hours: float) -> list[Path]:
        """Return nothing: the system cleans its folder for temporary files."""
        return []

    @cached_property
    def _tokens(self) -> dict[str, tuple[float, int | None]]:
        return {}

    def _last_revision(self, name: str) -> int | None:
        if not is_updatable(name):
            return None
        return max(self._revisions(name), default=None)

    def _revisions(self, name: str) -> list[int]:
        try:
            found = self._fs.ls(self.locate(f"{name}{REVISIONS}"), detail=False, refresh=True)
        except FileNotFoundError:
            return []
        return sorted(int(path.rsplit("/", 1)[-1]) for path in found)


class ObjectRows:
    """An array in object storage whose rows are read when asked for; safe to pickle.

    Index it with an int, a slice, an array of row numbers or a mask; the result is always a fresh array.
    """

    def __init__(self, url: str, shape: tuple[int, ...], dtype: str) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._url = url

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        chosen = rows if isinstance(rows, slice) else np.asarray(rows)
        if isinstance(chosen, slice):
            start, stop, step = chosen.indices(len(self))
            block = (
                self._array[start : max(start, stop)]
                if step == 1
                else self._pick(np.arange(start, stop, step))
            )
        elif chosen.dtype == bool:
            block = self._pick(np.flatnonzero(chosen))
        else:
            block = self._pick(np.atleast_1d(chosen.astype(np.int64)))
        block = np.asarray(block)
        if block.size and np.isnan(block.reshape(len(block), -1)[:, 0]).any():  # the value of what is missing
            raise StoreError(
                "an object of the embedding store is missing: it was collected while in use; open the patient "
                "again, and if that fails run: python -m pipeline store verify"
            )
        require_finite(block, self._url)
        return block if isinstance(chosen, slice) or chosen.ndim else block[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_array"}

    def _pick(self, rows: np.ndarray) -> np.ndarray:
        rows = np.where(rows < 0, rows + len(self), rows)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"row numbers must lie within 0..{len(self) - 1}")
        if not rows.size:
            return np.empty((0, *self.shape[1:]), self.dtype)
        return np.asarray(self._array.oindex[rows])

    @cached_property
    def _array(self) -> Any:
        try:
            return zarr.open_array(object_group(self._url), mode="r", zarr_format=3)
        except FileNotFoundError as error:
            raise StoreError(
                "a version of the embedding store is gone: it was collected while in use; open the patient again"
            ) from error


def object_group(url: str) -> FsspecStore:
    """Return Zarr's read-only view of a URL."""
    return FsspecStore.from_url(url, read_only=True)


def _revision(name: str, number: int) -> str:
    return f"{name}{REVISIONS}/{number:012d}"
