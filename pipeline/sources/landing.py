"""What has landed: which recordings are complete and quiet, as one hash that changes when they do.

A patient's folder is at rest when nothing in it changed for a while and every file that its headers name is there
in full. A folder that is not at rest waits: until then it counts as it was when it last rested. Only names, sizes and
times are read here, and recent headers: a look at thousands of patients takes seconds. Whether content changed is
decided later, by content, in the embedding stage.

Source: our decision (orchestration notes, section 4).
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.foundation.atomic import make_private_dir, write_json
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.workspace import Workspace
from pipeline.sources.wfdb.codes import code_format
from pipeline.sources.wfdb.header import BadRecord, Header, read_header

QUIET_SECONDS = 60.0
"""A folder that changed less than this many seconds ago is still being copied into."""
QUIET_VARIABLE = "UNIPHY_QUIET_SECONDS"
RECENT_SECONDS = 2 * 86_400.0
"""Completeness is checked in folders that changed in this time; older ones are taken as they are."""


@dataclass(frozen=True, kw_only=True)
class Landing:
    """State of a landing folder.

    Attributes
    ----------
    state : hash of names, sizes and times of everything that has landed
    n_landed, n_waiting : folders at rest, and folders still being copied into
    folders : hash of each folder as it last was at rest, by a hash of its name
    """

    state: str
    n_landed: int
    n_waiting: int
    folders: Mapping[str, str] = field(default_factory=dict, repr=False)


def quiet_seconds_from_environment() -> float:
    """Return ``UNIPHY_QUIET_SECONDS``, or 60.

    Raises
    ------
    ConfigError : the variable holds no number of seconds
    """
    text = os.environ.get(QUIET_VARIABLE) or str(QUIET_SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ConfigError(f"{QUIET_VARIABLE} is {text!r}; it must be a number of seconds, such as 60.")
    return seconds


def landing_state(
    workspace: Workspace, *, quiet_seconds: float = QUIET_SECONDS, now: float | None = None
) -> Landing:
    """Return what has landed in the waveform folder (the synthetic cohort's where none is configured).

    What the folders were when they last rested is kept in ``landing.json``; without that file the worst is one run
    that finds nothing to do.
    """
    root = workspace.waveforms or workspace.cohort / "waveforms"
    memory = workspace.root / "landing.json"
    before = json.loads(memory.read_text()) if memory.exists() else {}
    landing = folder_state(root, quiet_seconds=quiet_seconds, now=now, before=before)
    if landing.folders != before:
        make_private_dir(workspace.root)
        write_json(memory, dict(landing.folders))
    return landing


def folder_state(
    root: Path,
    *,
    quiet_seconds: float = QUIET_SECONDS,
    now: float | None = None,
    before: Mapping[str, str] | None = None,
) -> Landing:
    """Return what has landed below `root`.

    Parameters
    ----------
    quiet_seconds : how long a folder must have been left alone
    now : seconds since the epoch, the clock's when None
    before : `Landing.folders` of an earlier look, for folders that are not at rest
    """
    clock = time.time() if now is None else now
    known, folders, waiting = before or {}, {}, 0
    for folder, files in _folders(root):
        name = _digest(str(folder.relative_to(root)))
        age = clock - max(
            max(stat.st_mtime, stat.st_ctime) for _, stat in files
        )  # copies may keep their mtime
        if age < quiet_seconds or (age < RECENT_SECONDS and is_half_copied(folder)):
            waiting += 1
            if name in known:
                folders[name] = known[name]
        else:
            folders[name] = _digest(*(f"{file}|{stat.st_size}|{stat.st_mtime_ns}" for file, stat in files))
    state = _digest(*(f"{name} {digest}" for name, digest in sorted(folders.items())))
    return Landing(state=state, n_landed=len(folders), n_waiting=waiting, folders=folders)


def labs_state(workspace: Workspace, *, quiet_seconds: float = QUIET_SECONDS) -> str | None:
    """Return a hash of the lab tables' names, sizes and times, or None while they are absent or being written."""
    root = workspace.labs or workspace.cohort / "clinical"
    if root.is_file():
        status = root.stat()
        quiet = time.time() - max(status.st_mtime, status.st_ctime) >= quiet_seconds
        return _digest(f"{root.name}|{status.st_size}|{status.st_mtime_ns}") if quiet else None
    landing = folder_state(root, quiet_seconds=quiet_seconds)
    return landing.state if landing.n_landed and not landing.n_waiting else None


def _digest(*lines: str) -> str:
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def _folders(root: Path) -> Iterator[tuple[Path, list[tuple[str, os.stat_result]]]]:
    """Folders that hold files, in order of their names; a file that vanishes meanwhile is left out."""
    if not root.is_dir():
        return
    for folder, _, names in sorted(os.walk(root)):
        files = []
        for name in sorted(names):
            if name.startswith("."):
                continue
            try:
                files.append((name, Path(folder, name).stat()))
            except FileNotFoundError:
                continue
        if files and not _holds_no_data(files):
            yield Path(folder), files


def _holds_no_data(files: list[tuple[str, os.stat_result]]) -> bool:
    """Whether a folder holds lists of records (RECORDS, SOURCE.txt) and no recording."""
    return all(Path(name).suffix in ("", ".txt", ".md", ".html", ".json") for name, _ in files)


def is_half_copied(folder: Path) -> bool:
    """Whether a header in `folder` names a segment or samples that are not there yet.

    A header that breaks a rule of the format is no sign of copying: the catalogue counts it with its reason.
    """
    for path in sorted(folder.glob("*.hea")):
        try:
            header = read_header(path, folder.resolve())
            if _lacks_segments(header, folder) or _lacks_bytes(header, folder):
                return True
        except BadRecord as problem:
            if problem.reason in (
                "header: empty",
                "header: number of segment lines",
                "header: number of signal lines",
            ):
                return True
    return False


def _lacks_segments(header: Header, folder: Path) -> bool:
    return any(name != "~" and not (folder / f"{name}.hea").exists() for name, _ in header.segments)


def _lacks_bytes(header: Header, folder: Path) -> bool:
    needed: dict[str, float] = {}
    for signal in header.signals:
        if signal.file_name == "~":
            continue
        size, samples = code_format(signal).bytes_per_samples
        values = (header.n_frames or 0) * signal.samples_per_frame
        needed[signal.file_name] = needed.get(signal.file_name, signal.byte_offset) + values * size / samples
    files = {name: folder / name for name in needed}
    return any(not file.exists() or file.stat().st_size < int(needed[name]) for name, file in files.items())
