"""The note that every Parquet file and every checkpoint carries: what made it, and what its data's licence allows.

A stage opens a note with `noted`, and the readers of sources add their licences to it; the writers of files take the
note that is open. So no writer can forget it, and a stage that reads another stage's result inherits its licences.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.foundation.provenance import config_hash

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

    @classmethod
    def of(
        cls, stage: str, *, config: Any, inputs: Mapping[str, Any], licences: Iterable[str] = ()
    ) -> "ArtefactNote":
        """Return the note of what a stage writes, from the configuration and the versions of what it reads."""
        return cls(
            stage=stage,
            config_hash=config_hash(config),
            inputs_hash=config_hash(inputs),
            licences=set(licences),
        )

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


@contextmanager
def apart(checkpoints: Iterable[str] = ()) -> Iterator[ArtefactNote]:
    """Open a note like the open one that names `checkpoints` alone: for one of the files that a stage writes."""
    outer = current_note()
    with noted(replace(outer, licences=set(outer.licences), checkpoints=set(checkpoints))) as note:
        yield note


def inherit(path: Path) -> None:
    """Add what a Parquet file that is read tells of its licences and trained models to the open note, if any."""
    found = parquet_note(path)
    add_licences(found.get("licences", ()))
    for weights_sha256 in found.get("checkpoints", ()):
        add_checkpoint(weights_sha256, ())


def parquet_note(path: Path) -> dict[str, Any]:
    """Return the note of a Parquet file; empty where it has none."""
    metadata = pq.read_schema(path).metadata or {}
    return json.loads(metadata[NOTE_KEY]) if NOTE_KEY in metadata else {}
