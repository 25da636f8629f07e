"""The record that lies beside each artefact: what it was made with and from, and how to tell that it still is itself.

A version is the hash of an artefact's files. Files are hashed when they are written, and again only where size or time
of change tell that they may differ: a check costs one ``stat`` a file.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.foundation.atomic import write_json
from pipeline.foundation.errors import StaleArtefactError
from pipeline.foundation.provenance import config_hash, to_plain, versions

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class FileState:
    """Content of a file, and what tells cheaply that it did not change since."""

    n_bytes: int
    modified_ns: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ArtefactRecord:
    """What made one artefact; holds no patient and no folder of the machine.

    Attributes
    ----------
    stage : the stage that made it
    config : dotted field -> value, of every field that decided it, those of its inputs included
    inputs : direct inputs, by stage, with the versions that were read
    ancestors : everything that it was made from, directly or not, likewise
    licences : of the data behind it
    files : the artefact's files by their path below the experiment's folder; none where it is no file
    version : of the artefact itself
    """

    stage: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    ancestors: Mapping[str, str]
    licences: tuple[str, ...]
    files: Mapping[str, FileState]
    version: str

    def save(self, path: Path) -> None:
        """Write as JSON, with the hashes that the files' own notes carry."""
        hashes = {"config_hash": config_hash(self.config), "inputs_hash": config_hash(self.inputs)}
        write_json(path, {"format": FORMAT, **to_plain(self), **hashes, "versions": versions()})

    @classmethod
    def load(cls, path: Path) -> "ArtefactRecord | None":
        """Read what ``save`` wrote; None where there is none: an artefact made before there were records.

        Raises
        ------
        StaleArtefactError : the record is damaged, or of a newer format
        """
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}")
            return cls(
                stage=content["stage"],
                config=content["config"],
                inputs=content["inputs"],
                ancestors=content["ancestors"],
                licences=tuple(content["licences"]),
                files={name: FileState(**state) for name, state in content["files"].items()},
                version=content["version"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise StaleArtefactError(
                f"{path} cannot be read ({problem}); delete it and run the stage '{path.stem}' again."
            ) from None


def file_states(
    root: Path, files: Iterable[Path], known: Mapping[str, FileState] | None = None
) -> dict[str, FileState]:
    """Return the states of files below `root`, by relative path; those in `known` are hashed where they may differ."""
    return {name: _state(root / name, (known or {}).get(name)) for name in _names(root, files)}


def version_of(states: Mapping[str, FileState]) -> str:
    """Return one hash for the content of some files."""
    return config_hash({name: state.sha256 for name, state in states.items()})


def _names(root: Path, files: Iterable[Path]) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in files)


def _state(path: Path, known: FileState | None) -> FileState:
    status = path.stat()
    if known is not None and (known.n_bytes, known.modified_ns) == (status.st_size, status.st_mtime_ns):
        return known
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    return FileState(n_bytes=status.st_size, modified_ns=status.st_mtime_ns, sha256=content)
