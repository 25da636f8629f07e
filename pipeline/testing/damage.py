"""What happens to files on their way from a ward: each function spoils one file in place."""

from pathlib import Path

import numpy as np


def emptied(file: Path) -> None:
    """Leave the name alone."""
    file.write_bytes(b"")


def halved(file: Path) -> None:
    """Keep the first half, as a copy that was cut off does."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def removed(file: Path) -> None:
    """Remove the file."""
    file.unlink()


def made_a_folder(file: Path) -> None:
    """Put a folder in its place."""
    file.unlink()
    file.mkdir()


def filled_with_noise(file: Path) -> None:
    """Write random bytes."""
    file.write_bytes(np.random.default_rng(0).bytes(4_096))


def made_an_archive(file: Path) -> None:
    """Write what NumPy would open as another kind of file."""
    with file.open("wb") as handle:
        np.savez(handle, samples=np.ones(10))


def spoilt_inside(file: Path) -> None:
    """Keep both ends, where formats have their marks, and overwrite what lies between."""
    content = bytearray(file.read_bytes())
    middle = slice(len(content) // 4, len(content) // 2)
    content[middle] = b"\xff" * len(content[middle])
    file.write_bytes(bytes(content))


CONTENT_ALONE = (filled_with_noise, made_an_archive, spoilt_inside)
"""What a format without marks cannot see: whatever a WFDB signal file holds is valid."""
DAMAGES = (emptied, halved, removed, made_a_folder, *CONTENT_ALONE)
