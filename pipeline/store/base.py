"""What the embedding store asks of the place where its bytes live, be it a folder or a bucket."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

ENTRY_FILE = "entry.json"
"""Written last into every folder that is published: where it is, the folder is whole."""


def require_updatable(name: str) -> None:
    """Refuse to update any file but a ``.json`` at the top of the store, in every storage alike.

    Object storage looks for the revisions of those alone, and so reads all others with one request.

    Raises
    ------
    ValueError : another name
    """
    if not is_updatable(name):
        raise ValueError(f"{name} cannot be updated: only .json files at the top of a store can")


def is_updatable(name: str) -> bool:
    """Return whether `name` is a ``.json`` file at the top of the store."""
    return "/" not in name and name.endswith(".json")


@runtime_checkable
class Storage(Protocol):
    """Where the bytes of a store live. Names are relative, with ``/`` between their parts.

    Each implementation passes ``tests/pipeline/store/test_conformance.py``.
    """

    one_object_per_array: ClassVar[bool]
    """Whether many small files cost more than one large one."""

    def locate(self, name: str) -> Path | str:
        """Return path or URL of `name`."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return a file's content, None when it is not there."""
        ...

    def token(self, name: str) -> Hashable:
        """Return what changes whenever `update` replaces the file, for caches; None when it is not there.

        It may lag behind an update by another process for some seconds, never behind one of this object's own.
        """
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Create a file; return False, changing nothing, when it is already there."""
        ...

    def update(self, name: str, change: Callable[[bytes | None], bytes]) -> None:
        """Replace a file by `change` of its content, as if no other process ran at the same time.

        Where another process was faster, `change` is called again; where it raises, the file stays as it was.

        Raises
        ------
        ValueError : `name` is no ``.json`` file at the top of the store
        """
        ...

    def folders(self, name: str = "") -> list[str]:
        """Return the sorted names of the folders inside a folder."""
        ...

    def age_hours(self, name: str) -> float:
        """Return hours since a folder was published or touched, 0 when it is not there."""
        ...

    def touch(self, name: str) -> None:
        """Let the age of a published folder count from now; nothing happens when it is not there."""
        ...

    def remove(self, name: str) -> None:
        """Remove a folder, also what a killed `publish` or `remove` left of it; first what makes it whole.

        Parents that become empty go too; nothing happens when it is not there.
        """
        ...

    @contextmanager
    def claim(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Hold the right to work on `name`; yield False when somebody else has it and `wait` is False.

        Storage that knows no claims yields True to everybody: two do the same work, which must harm nothing.
        """
        ...

    def require_private(self, name: str) -> None:
        """Refuse a secret that others may read, where that can be seen."""
        ...

    def new_staging_folder(self) -> Path:
        """Return a new, empty, private local folder for unfinished work."""
        ...

    def publish(self, staging: Path, name: str) -> bool:
        """Make a staging folder appear as `name`, whole; return False when `name` is already there.

        The staging folder holds `ENTRY_FILE`, and is gone afterwards either way. Of several writers at the same time
        one gets True; they bring the same content.
        """
        ...

    def stale_staging(self, older_than_hours: float) -> list[Path]:
        """Return staging folders that nothing touched for so long: left by writers that were killed.

        Empty where the system itself cleans the place of staging folders.
        """
        ...
