"""Safetensors files with the note of what made them; written whole, read only where they are what was recorded."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError

from pipeline.foundation.artefact_notes import HEADER_KEY, current_note
from pipeline.foundation.atomic import write_bytes
from pipeline.foundation.errors import CheckpointError

T = TypeVar("T")
Save = Callable[[dict[str, T], dict[str, str]], bytes]
"""``save`` of ``safetensors.torch`` or ``safetensors.numpy``."""


def write_tensors(
    path: Path, tensors: dict[str, T], save: Save[T], header: Mapping[str, str] | None = None
) -> str:
    """Write tensors with the open note, and more in the header; return the file's SHA-256.

    Raises
    ------
    StoreError : disk full, read-only or forbidden folder
    """
    data = save(tensors, {**(header or {}), HEADER_KEY: current_note().as_json()})
    write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()


def read_tensors(
    path: Path, load: Callable[[bytes], dict[str, T]], *, sha256: Any, record: str, remedy: str
) -> dict[str, T]:
    """Read a file of which `record`, the name of a file beside it, says `sha256`; `remedy` ends every refusal.

    Raises
    ------
    CheckpointError : no such file, another one than was recorded, or no safetensors
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path.parent} has no readable {path.name}: {remedy}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CheckpointError(
            f"{path} is not the file that {record} was written for (sha256 differs): {remedy}"
        )
    return loaded_tensors(data, path, load, remedy=remedy)


def loaded_tensors(
    data: bytes, path: Path, load: Callable[[bytes], dict[str, T]], *, remedy: str
) -> dict[str, T]:
    """Return the tensors in `data`; `path` names where they come from.

    Raises
    ------
    CheckpointError : they are no safetensors
    """
    try:
        return load(data)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no safetensors file: {error}; {remedy}") from error


def header_of(data: bytes) -> dict[str, str]:
    """Return the texts in the header of a safetensors file; no tensor is looked at.

    Raises
    ------
    ValueError, KeyError, TypeError : there is no such header
    """
    length = int.from_bytes(data[:8], "little")  # the layout of safetensors: a JSON header, then the tensors
    return json.loads(data[8 : 8 + length])["__metadata__"]


def weights_texts(path: Path) -> dict[str, str]:
    """Return what `header_of` does of a file, whose tensors are not read; empty for a file of another kind.

    Raises
    ------
    OSError, ValueError : it cannot be read, or is damaged
    """
    if path.suffix != ".safetensors":
        return {}
    with path.open("rb") as file:
        start = file.read(8)
        start += file.read(min(int.from_bytes(start, "little"), path.stat().st_size))
    try:
        texts = header_of(start)
    except KeyError:  # tensors alone
        return {}
    except TypeError:
        texts = None
    if not isinstance(texts, dict):
        raise ValueError("no safetensors header")
    return texts
