"""Which folders an experiment's artefacts were read from: checked before any work, and never mixed.

``sources.json`` beside the artefacts names the folders. It stays on the machine: no other artefact names a folder.
"""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.foundation.atomic import write_json
from pipeline.foundation.errors import ConfigError, OtherSourceError
from pipeline.foundation.workspace import LABS_VARIABLE, Workspace
from pipeline.sources.detect import open_clinical, open_waveforms
from pipeline.store.embeddings import EmbeddingStore

SYNTHETIC = "the synthetic cohort"
CLAIMS = {
    "synthetic_cohort": ("waveforms", "labs"),
    "waveform_catalog": ("waveforms",),
    "lab_events": ("labs",),
}
"""What each stage that reads a source reads of it."""
STORE_MARK = "waveforms_of"
"""The file of an embedding store that tells its waveforms apart from others, and no folder's name."""
_LIKE_AN_ID = re.compile(r"[A-Za-z]?\d{4,}")


def check_sources(workspace: Workspace, *, waveforms: bool = True, labs_needed: bool = False) -> None:
    """Open the folders that the user names, so that one of no known kind is refused before any work.

    Parameters
    ----------
    waveforms : whether waveforms are read at all
    labs_needed : whether own waveforms without labs are refused

    Raises
    ------
    ConfigError : a folder that no adapter reads, or labs that are missing
    """
    if waveforms and workspace.waveforms is not None:
        if labs_needed and workspace.labs is None:
            raise missing_labs()
        open_waveforms(workspace.waveforms)
    if workspace.labs is not None:
        open_clinical(workspace.labs)


def missing_labs() -> ConfigError:
    """Return the error of waveforms that are named without labs."""
    return ConfigError(
        "Waveforms are named and labs are not: real waveforms need the labs of the same patients. Name the folder with "
        f"LABEVENTS, ADMISSIONS, ICUSTAYS and PATIENTS: --labs DIR, or {LABS_VARIABLE}."
    )


def refuse_another_source(workspace: Workspace) -> None:
    """Refuse a folder that holds artefacts of other waveforms or labs than those of this run.

    Raises
    ------
    OtherSourceError : it does; both are named, and what to do
    """
    held, named = _held(workspace), _named(workspace)
    for kind, now in named.items():
        before = held.get(kind)
        if before is not None and before != now:
            raise _other_source(workspace, kind, _shown(before), now)
    if "waveforms" not in held and _catalogue_is_of_another_source(workspace):
        raise _other_source(workspace, "waveforms", "another source", named["waveforms"])


def claim_source(workspace: Workspace, stage: str) -> None:
    """Note which folders a stage reads, before it writes anything."""
    named = _named(workspace)
    if stage == "synthetic_cohort" and not workspace.is_synthetic:
        return
    claimed = {kind: named[kind] for kind in CLAIMS.get(stage, ()) if kind in named}
    held = _held(workspace)
    if not claimed.items() <= held.items():
        write_json(workspace.sources, held | claimed)


def claim_store(workspace: Workspace, store: EmbeddingStore) -> None:
    """Mark a store apart from its artefacts as one of this run's waveforms, by a keyed hash, or refuse one of others.

    Where the store lies elsewhere (``--embeddings``), ``sources.json`` does not speak for it, and another source's run
    would replace patients of like ids and retire the rest.

    Raises
    ------
    OtherSourceError : it is marked as another source's
    """
    if workspace.embeddings is None:
        return
    own = store.patient_key(f"waveforms: {_place(workspace.waveforms)}").encode()
    if not store.storage.create(STORE_MARK, own) and store.storage.read(STORE_MARK) != own:
        place, mark = store.storage.locate(""), store.storage.locate(STORE_MARK)
        raise OtherSourceError(
            f"{place} holds embeddings of other waveforms than this run's, {_shown(_place(workspace.waveforms))}. "
            "Choose another place with --embeddings, or name the same waveforms again; if they are the same data in "
            f"another place, delete {mark} and run again."
        )


def _named(workspace: Workspace) -> dict[str, str]:
    """Return the sources of this run; labs are left out where own waveforms are named without them."""
    named = {"waveforms": _place(workspace.waveforms)}
    if workspace.labs is not None or workspace.is_synthetic:
        named["labs"] = _place(workspace.labs)
    return named


def _held(workspace: Workspace) -> dict[str, str]:
    if not workspace.sources.exists():
        return {}
    try:
        held = json.loads(workspace.sources.read_text(encoding="utf-8"))
    except ValueError:
        held = None
    if not isinstance(held, dict) or not all(isinstance(place, str) for place in held.values()):
        raise OtherSourceError(
            f"{workspace.sources} cannot be read; delete it if the artefacts beside it are of this run's sources."
        )
    return held


def _place(path: Path | None) -> str:
    return SYNTHETIC if path is None else str(path.resolve())


def _catalogue_is_of_another_source(workspace: Workspace) -> bool:
    """Whether the first record of a catalogue, made before sources were noted, is not in this run's folder."""
    if not workspace.catalog.exists():
        return False
    named = workspace.waveforms
    root = workspace.cohort / "waveforms" if named is None else open_waveforms(named).root
    first = next(pq.ParquetFile(workspace.catalog).iter_batches(batch_size=1, columns=["path"]), None)
    return first is not None and first.num_rows > 0 and not (root / first["path"][0].as_py()).exists()


def _other_source(workspace: Workspace, kind: str, before: str, now: str) -> OtherSourceError:
    return OtherSourceError(
        f"{workspace.root} holds artefacts whose {kind} are from {before}, and this run's {kind} are from "
        f"{_shown(now)}. Choose another folder with --artifacts, or name the same {kind} again; if it is the same "
        f"data in another place, delete {workspace.sources} and run again."
    )


def _shown(place: str) -> str:
    """Return a folder's path without parts that may be a patient's number."""
    return "/".join("…" if _LIKE_AN_ID.fullmatch(part) else part for part in place.split("/"))
