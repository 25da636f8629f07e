"""What has landed: which recordings are complete and quiet, as one hash that changes when they do.

A patient's folder counts as landed when nothing in it changed for a while and every file that its headers name is
there in full. Only names, sizes and times are read here, and recent headers: a check of thousands of patients takes
seconds. Whether content changed is decided later, by content, in the embedding stage.

Source: our decision (orchestration notes, section 4).
"""

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.wfdb_codes import code_format
from pipeline.wfdb_header import BadRecord, Header, read_header
from pipeline.workspace import Workspace

QUIET_SECONDS = 60.0
"""A folder that changed less than this many seconds ago is still being copied into."""
RECENT_SECONDS = 2 * 86_400.0
"""Completeness is checked in folders that changed in this time; older ones are taken as they are."""


@dataclass(frozen=True, kw_only=True)
class Landing:
    """State of a landing folder.

    Attributes
    ----------
    state : hash of names, sizes and times of everything that has landed
    n_landed, n_waiting : folders with complete recordings, and folders still being copied into
    """

    state: str
    n_landed: int
    n_waiting: int


def landing_state(
    workspace: Workspace, *, quiet_seconds: float = QUIET_SECONDS, now: float | None = None
) -> Landing:
    """Return what has landed in the waveform folder (the synthetic cohort's where none is configured)."""
    root = workspace.waveforms or workspace.cohort / "waveforms"
    return folder_state(root, quiet_seconds=quiet_seconds, now=now)


def folder_state(root: Path, *, quiet_seconds: float = QUIET_SECONDS, now: float | None = None) -> Landing:
    """Return what has landed below `root`.

    Parameters
    ----------
    quiet_seconds : how long a folder must have been left alone
    now : seconds since the epoch, the clock's when None
    """
    clock = time.time() if now is None else now
    digest, landed, waiting = hashlib.blake2b(digest_size=16), 0, 0
    for folder, files in _folders(root):
        age = clock - max(stat.st_mtime for _, stat in files)
        if age < quiet_seconds or (age < RECENT_SECONDS and is_half_copied(folder)):
            waiting += 1
            continue
        landed += 1
        for name, stat in files:
            digest.update(f"{folder.relative_to(root)}/{name}|{stat.st_size}|{stat.st_mtime_ns}\n".encode())
    return Landing(state=digest.hexdigest(), n_landed=landed, n_waiting=waiting)


def labs_state(workspace: Workspace, *, quiet_seconds: float = QUIET_SECONDS) -> str | None:
    """Return a hash of the lab tables' names, sizes and times, or None while they are absent or being written."""
    root = workspace.labs or workspace.cohort / "clinical"
    landing = folder_state(root, quiet_seconds=quiet_seconds)
    return landing.state if landing.n_landed and not landing.n_waiting else None


def _folders(root: Path) -> Iterator[tuple[Path, list[tuple[str, os.stat_result]]]]:
    """Folders that hold files, in order of their names; a file that vanishes meanwhile is left out."""
    if not root.is_dir():
        return
    for folder, _, names in sorted(os.walk(root)):
        files = []
        for name in sorted(names):
            path = Path(folder, name)
            if not name.startswith(".") and path.exists():
                files.append((name, path.stat()))
        if files and not _holds_no_data(files):
            yield Path(folder), files


def _holds_no_data(files: list[tuple[str, os.stat_result]]) -> bool:
    """Whether a folder holds lists of records (RECORDS, SOURCE.txt) and no recording."""
    return all(Path(name).suffix in ("", ".txt", ".md", ".html") for name, _ in files)


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
