"""What the embedding store asks of the place where its bytes live, be it a folder or a bucket."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable


@runtime_checkable
class Storage(Protocol):
    """Where the bytes of a store live. Names are relative, with ``/`` between their parts."""

    one_object_per_array: ClassVar[bool]
    """Whether many small files cost more than one large one."""

    def locate(self, name: str) -> Path | str:
        """Return path or URL of `name`."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return a file's content, None when it is not there."""
        ...

    def token(self, name: str) -> Hashable:
        """Return what changes whenever the file is replaced, for caches; None when it is not there."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Create a file; return False, changing nothing, when it is already there."""
        ...

    def update(self, name: str, change: Callable[[bytes | None], bytes]) -> None:
        """Replace a file by `change` of its content, as if no other process ran at the same time."""
        ...

    def folders(self, name: str = "") -> list[str]:
        """Return the sorted names of the folders inside a folder."""
        ...

    def age_hours(self, name: str) -> float:
        """Return hours since a file last changed, 0 when it is not there."""
        ...

    def touch(self, name: str) -> None:
        """Set the time of change of a file or folder to now; nothing happens when it is not there."""
        ...

    def remove(self, name: str) -> None:
        """Remove a folder; a reader finds all of it or nothing."""
        ...

    @contextmanager
    def claim(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Hold the right to work on `name`; yield False when another process has it and `wait` is False."""
        ...

    def require_private(self, name: str) -> None:
        """Refuse a secret that others may read, where that can be seen."""
        ...

    def new_staging_folder(self) -> Path:
        """Return a new, empty, private local folder for unfinished work."""
        ...

    def publish(self, staging: Path, name: str) -> bool:
        """Make a staging folder appear as `name`, whole; return False when `name` is already there."""
        ...

    def stale_staging(self, older_than_hours: float) -> list[Path]:
        """Return staging folders that nothing touched for so long: left by writers that were killed."""
        ...
