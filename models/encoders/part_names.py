"""Weights in numbered parts: what their files are called, and that they are the ones that were written. No torch."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.errors import CheckpointMismatch

PARTS_INDEX = "parts.json"
"""The file beside the parts: the model's sizes, and each part's SHA-256."""
_PART = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


def part_name(number: int, count: int) -> str:
    """Return the name of part `number`, from 1, of `count`."""
    return f"model-{number:05d}-of-{count:05d}.safetensors"


def first_part(folder: Path) -> Path | None:
    """Return the first part in a folder; None where there is none. Its header stands for all."""
    return next((path for path in _parts(folder) if path.name.startswith("model-00001-of-")), None)


def holds_parts(folder: Path) -> bool:
    """Whether a folder is meant as weights in parts: it has their index, or any part."""
    return (folder / PARTS_INDEX).is_file() or bool(_parts(folder))


def verified_parts(folder: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return each part's bytes by its file's name, and the sizes of the model.

    Raises
    ------
    CheckpointMismatch
        No readable index, or a part is missing, is not one that it lists, or differs from what was written.
    """
    index = folder / PARTS_INDEX
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        listed, sizes = dict(content["parts"]), dict(content["model"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointMismatch(
            f"{index}: no readable list of the parts of weights ({type(error).__name__}); bring it anew from where "
            "they were written."
        ) from error
    if not listed or any(not _PART.fullmatch(name) for name in listed):
        raise CheckpointMismatch(f"{index}: lists no parts, or others than {part_name(1, len(listed) or 1)}.")
    if missing := [name for name in listed if not (folder / name).is_file()]:
        raise CheckpointMismatch(
            f"{folder} lacks {', '.join(missing)} of the {len(listed)} parts that {PARTS_INDEX} lists; bring all of "
            "them into this folder."
        )
    foreign = [path.name for path in folder.glob("*.safetensors") if not _is_listed(path, listed)]
    if foreign:
        raise CheckpointMismatch(
            f"{folder} holds {', '.join(sorted(foreign))}, which {PARTS_INDEX} does not list; move it elsewhere: "
            "the parts of one encoder have a folder of their own."
        )
    parts = {name: (folder / name).read_bytes() for name in listed}
    for name, data in parts.items():
        if hashlib.sha256(data).hexdigest() != listed[name]:
            raise CheckpointMismatch(
                f"{folder / name} is not the part that {PARTS_INDEX} was written for (sha256 differs); bring it anew."
            )
    return parts, sizes


def _parts(folder: Path) -> list[Path]:
    found = folder.glob("model-*.safetensors") if folder.is_dir() else ()
    return sorted(path for path in found if _PART.fullmatch(path.name))


def _is_listed(path: Path, listed: Mapping[str, str]) -> bool:
    """Whether a file is a listed part, or the projection of a read-out, which lies beside the first part."""
    stem, words, _ = path.stem.partition("+")
    return f"{stem}.safetensors" in listed if words else path.name in listed
