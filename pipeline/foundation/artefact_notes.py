"""The note that every Parquet file and every checkpoint carries: what made it, and what its data's licence allows.

A stage opens a note with `noted`, and the readers of sources add their licences to it; the writers of files take the
note that is open. So no writer can forget it, and a stage that reads another stage's result inherits its licences.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

NOTE_KEY = b"uniphy_lab"
"""Key of the note in a Parquet file's metadata; `HEADER_KEY` in a safetensors file's header."""
HEADER_KEY = NOTE_KEY.decode()
UNKNOWN_LICENCE = "not stated; treat as confidential"
SHARING = (
    "Treat this file like the data that it was made from: share it only as their licence allows. Research only, not a "
    "medical device."
)


@dataclass(frozen=True, kw_only=True)
class ArtefactNote:
    """What a file tells about itself.

    Attributes
    ----------
    stage : the stage that wrote it
    config_hash : of the part of the configuration that it depends on
    inputs_hash : of the versions of the artefacts that it was made from
    licences : of all data behind it; grows while the stage reads
    checkpoints : SHA-256 of the weights of the trained models behind it; likewise
    """

    stage: str = "none"
    config_hash: str = ""
    inputs_hash: str = ""
    licences: set[str] = field(default_factory=set)
    checkpoints: set[str] = field(default_factory=set)

    def as_plain(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {
            "stage": self.stage,
            "config_hash": self.config_hash,
            "inputs_hash": self.inputs_hash,
            "checkpoints": sorted(self.checkpoints),
            "licences": sorted(self.licences) or [UNKNOWN_LICENCE],
            "sharing": SHARING,
        }

    def as_json(self) -> str:
        """Return the text that stands in a file's metadata."""
        return json.dumps(self.as_plain(), sort_keys=True)


_OPEN: ContextVar[ArtefactNote | None] = ContextVar("artefact_note", default=None)


def current_note() -> ArtefactNote:
    """Return the open note; where no stage has opened one, a note of unknown licence."""
    return _OPEN.get() or ArtefactNote()


def add_licences(licences: Iterable[str]) -> None:
    """Add the licences of data that were just read to the open note, if any."""
    note = _OPEN.get()
    if note is not None:
        note.licences.update(licence for licence in licences if licence)


def add_checkpoint(weights_sha256: str, licences: Iterable[str]) -> None:
    """Add a trained model that was just read, and the licences of its data, to the open note, if any."""
    note = _OPEN.get()
    if note is not None:
        note.checkpoints.add(weights_sha256)
        add_licences(licences)


@contextmanager
def noted(note: ArtefactNote) -> Iterator[ArtefactNote]:
    """Open `note` for what is written inside the block; a note around it inherits what it gathered."""
    outer = _OPEN.set(note)
    try:
        yield note
    finally:
        _OPEN.reset(outer)
        add_licences(note.licences)
        for weights_sha256 in note.checkpoints:
            add_checkpoint(weights_sha256, ())


def weights_texts(path: Path) -> dict[str, str]:
    """Return the texts in the header of a safetensors file, by key; empty for a file of another kind.

    Raises
    ------
    OSError, ValueError : it cannot be read, or is damaged
    """
    if path.suffix != ".safetensors":
        return {}
    with path.open("rb") as file:  # the layout of safetensors: a JSON header, then the tensors
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(min(length, path.stat().st_size)))
    texts = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(texts, dict):
        raise ValueError("no safetensors header")
    return texts


def parquet_note(path: Path) -> dict[str, Any]:
    """Return the note of a Parquet file; empty where it has none."""
    metadata = pq.read_schema(path).metadata or {}
    return json.loads(metadata[NOTE_KEY]) if NOTE_KEY in metadata else {}
