"""What a person does with a store: list it, verify and repair it, collect what nothing refers to, forget a patient.

The command line's ``store ls | verify | gc | forget``. Nothing here shows a patient id.
"""

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from pipeline.foundation.errors import StoreError
from pipeline.foundation.schema import WINDOW_SECONDS, WINDOW_US
from pipeline.sources.content_hashes import forget_hash
from pipeline.store.base import ENTRY_FILE
from pipeline.store.embeddings import EmbeddingStore
from pipeline.store.manifest import ManifestEntry
from pipeline.store.zarr_version import CHUNK_WINDOWS, check_layout

GC_HOURS = 24.0
OTHER_ARTEFACTS = (
    "the source records and lab tables: remove them first, or the next embed run brings the patient back",
    "catalog.parquet, lab_events.parquet, admissions.parquet, splits.json and aligned/",
    "predictions/, evaluation.parquet and report.html",
    "checkpoints trained on the patient, and normalization.json fitted with it",
    "backups and snapshots of the store",
)


@dataclass(frozen=True, kw_only=True)
class StoreListing:
    """What a store holds.

    Attributes
    ----------
    patients, retired : retired ones are not among `patients`
    windows, hours : of both
    encodings : patients by how they were embedded, in words
    bytes_referenced : raw size of the current versions' arrays
    exclusions : windows and segments left out, by reason
    licences : of the sources, as the provenance has them
    data_version : hash of the manifest
    """

    patients: int
    retired: int
    windows: int
    hours: float
    encodings: Counter[str]
    bytes_referenced: int
    exclusions: Counter[str]
    licences: tuple[str, ...]
    data_version: str


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """Outcome of reading everything.

    Attributes
    ----------
    checked : versions read
    damaged : patient hash -> what is wrong
    """

    checked: int
    damaged: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """True when nothing is damaged."""
        return not self.damaged


@dataclass(frozen=True, kw_only=True)
class GcReport:
    """What was removed, or would be."""

    versions: int
    staging_folders: int
    dry_run: bool


def list_store(store: EmbeddingStore) -> StoreListing:
    """Sum up a store from its manifest; reads no embedding."""
    entries = list(store.manifest().values())
    windows = sum(entry.n_windows for entry in entries)
    notes = {entry.provenance: store.read_provenance(entry) for entry in entries}.values()
    return StoreListing(
        patients=sum(not entry.retired for entry in entries),
        retired=sum(entry.retired for entry in entries),
        windows=windows,
        hours=windows * WINDOW_SECONDS / 3600,
        encodings=Counter(str(entry.encoding) for entry in entries),
        bytes_referenced=sum(entry.n_windows * (2 * entry.width + 8 + 4 * 6) for entry in entries),
        exclusions=sum((Counter(entry.exclusions) for entry in entries), Counter[str]()),
        licences=tuple(sorted({note["source"]["licence"] for note in notes if "source" in note})),
        data_version=store.data_version(),
    )


def verify_store(store: EmbeddingStore) -> VerifyReport:
    """Read every current version and compare shapes, finiteness, order and hash with the manifest."""
    damaged = {}
    entries = store.manifest()
    for patient, entry in entries.items():
        problem = _problem(store, entry)
        if problem is not None:
            damaged[patient] = problem
    return VerifyReport(checked=len(entries), damaged=damaged)


def repair_store(store: EmbeddingStore, report: VerifyReport) -> tuple[int, int]:
    """Take the damaged versions of a report out of the store, so that the next embed run makes them anew.

    Retired patients' stay: their waveforms are gone, and nothing would come back.

    Returns
    -------
    How many patients were taken out, and how many stay because they are retired
    """
    retired = [patient for patient, entry in store.manifest().items() if entry.retired]
    taken = [patient for patient in report.damaged if patient not in retired]
    for patient in taken:
        with store.storage.claim(patient, wait=True):
            _remove(store, patient)
    return len(taken), len(report.damaged) - len(taken)


def _remove(store: EmbeddingStore, patient: str) -> None:
    """Remove a patient whose folder is claimed."""
    versions = store.storage.folders(patient)
    store.change_manifest(partial(_drop, patient))
    for version in versions:
        store.storage.remove(f"{patient}/{version}")
    forget_hash(store.storage, patient)


def gc_store(store: EmbeddingStore, *, older_than_hours: float = GC_HOURS, dry_run: bool = False) -> GcReport:
    """Remove versions that the manifest does not name and staging folders of killed writers.

    Parameters
    ----------
    older_than_hours : a version stays for so long after it was written or replaced, because a run may be
        about to commit it or a reader may hold it; a staging folder for so long after its last change
    dry_run : count only
    """
    unreferenced = list(_unreferenced(store, older_than_hours))
    staging = store.storage.stale_staging(older_than_hours)
    if not dry_run:
        for path in unreferenced:
            store.storage.remove(path)
        for folder in staging:
            shutil.rmtree(folder, ignore_errors=True)
    return GcReport(versions=len(unreferenced), staging_folders=len(staging), dry_run=dry_run)


def forget_patient(store: EmbeddingStore, patient_id: str) -> tuple[str, ...]:
    """Remove every trace of a patient from the store; return where else the patient may be found.

    Raises
    ------
    StoreError : the store holds nothing of this patient
    """
    patient = store.patient_key(patient_id)
    with store.storage.claim(patient, wait=True):
        if patient not in store.manifest() and not store.storage.folders(patient):
            raise StoreError(
                "the embedding store holds nothing of this patient; check the id as the catalogue has it"
            )
        _remove(store, patient)
    return OTHER_ARTEFACTS


def _unreferenced(store: EmbeddingStore, older_than_hours: float) -> Iterator[str]:
    referenced = {entry.path for entry in store.manifest().values()}
    for patient in store.storage.folders():
        for version in store.storage.folders(patient):
            path = f"{patient}/{version}"
            is_version = store.storage.read(f"{path}/{ENTRY_FILE}") is not None
            if is_version and path not in referenced and store.storage.age_hours(path) > older_than_hours:
                yield path


def _problem(store: EmbeddingStore, entry: ManifestEntry) -> str | None:
    """Return what is wrong with a version, None when nothing is."""
    read = store.read_entry(entry)
    digest = hashlib.blake2b(digest_size=16)
    try:
        check_layout(read)
        for first in range(0, len(read), CHUNK_WINDOWS):
            digest.update(read.embeddings[first : first + CHUNK_WINDOWS].tobytes())
        start_us, quality = read.start_us, read.quality
    except StoreError as error:
        return str(error)
    digest.update(start_us.tobytes() + quality.tobytes())
    if (np.diff(start_us) < WINDOW_US).any() or (start_us % WINDOW_US != 0).any():
        return "windows are not in time order on the 30 s grid"
    if digest.hexdigest() != entry.data_hash:
        return "content differs from its hash"
    return None


def _drop(patient: str, entries: dict[str, ManifestEntry]) -> None:
    entries.pop(patient, None)
