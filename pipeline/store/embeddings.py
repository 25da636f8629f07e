"""One Zarr group a patient behind a manifest: a reader sees the last commit, whole, or the one before it.

Layout: ``<keyed hash of the patient id>/<content hash>/{embeddings,start_us,quality}``, ``manifest.json``,
``provenance/<hash>.json``. A version folder is finished in ``<root>.staging``, flushed and renamed into
place; then the manifest is replaced. What the manifest does not name does not exist for a reader.

Source: our decision (ARCHITECTURE.md); a plain Zarr append that is killed leaves silent zeros.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.foundation.errors import StoreError
from pipeline.foundation.provenance import canonical_json, config_hash
from pipeline.store.base import ENTRY_FILE, Storage
from pipeline.store.local_folder import LocalFolder
from pipeline.store.manifest import (
    EmbeddingKey,
    Encoding,
    ManifestEntry,
    entry_from_json,
    manifest_from_json,
    manifest_to_json,
    manifest_version,
)
from pipeline.store.object_storage import ObjectFolder
from pipeline.store.zarr_version import PatientEmbeddings, PatientWriter

MANIFEST = "manifest.json"
KEY_FILE = "patient_key"


@dataclass(kw_only=True)
class EmbeddingStore:
    """The embedding cache; open one per process with `open`, share it between threads, pickle it freely."""

    storage: Storage
    _key: bytes = field(repr=False)
    _cached: tuple[Hashable, dict[str, ManifestEntry]] = field(default=(None, {}), repr=False)

    @classmethod
    def open(cls, root: Path | str, *, create: bool = False) -> "EmbeddingStore":
        """Open the store in a folder or at a URL (``s3://...``); `create` makes an empty one if there is none.

        Raises
        ------
        StoreError : no store there, its key file lost or readable by others, folder not writable
        """
        storage = (
            ObjectFolder(url=str(root)) if "://" in str(root) else LocalFolder(root=Path(root).absolute())
        )
        if create and storage.read(KEY_FILE) is None:
            if storage.read(MANIFEST) is not None:
                raise StoreError(f"{root} has a manifest and no {KEY_FILE}: restore that file from a backup")
            storage.create(KEY_FILE, secrets.token_bytes(32))
        key = storage.read(KEY_FILE)
        if key is None:
            raise StoreError(
                f"there is no embedding store at {root}: run the embed stage first, or check the path"
            )
        storage.require_private(KEY_FILE)
        return cls(storage=storage, _key=key)

    @property
    def root(self) -> Path:
        """The store's folder; a store in object storage has none.

        Raises
        ------
        StoreError : the store is in object storage
        """
        location = self.storage.locate("")
        if not isinstance(location, Path):
            raise StoreError(f"{self.storage} is no folder")
        return location

    def patient_key(self, patient_id: str) -> str:
        """Return the keyed hash that stands for a patient in every name: 32 hexadecimal digits."""
        return hashlib.blake2b(
            patient_id.encode(), key=self._key, digest_size=16, person=b"patient"
        ).hexdigest()

    def manifest(self) -> dict[str, ManifestEntry]:
        """Return the last committed entries by patient hash; do not change the dict."""
        token = self.storage.token(MANIFEST)
        if token is None or token != self._cached[0]:
            self._cached = (token, manifest_from_json(self.storage.read(MANIFEST)))
        return self._cached[1]

    def data_version(self) -> str:
        """Return the hash of the manifest: it changes when, and only when, what a reader sees changes."""
        return manifest_version(self.manifest())

    def __contains__(self, patient_id: str) -> bool:
        return self.patient_key(patient_id) in self.manifest()

    def read(self, patient_id: str) -> PatientEmbeddings:
        """Return a patient's committed version; it stays readable after a re-embedding until `gc`.

        Raises
        ------
        StoreError : the patient is not in the store
        """
        entry = self.manifest().get(self.patient_key(patient_id))
        if entry is None:
            raise StoreError(
                "this patient is not in the embedding store: run the embed stage for its waveforms"
            )
        return self.read_entry(entry)

    def read_entry(self, entry: ManifestEntry) -> PatientEmbeddings:
        """Return the version that an entry names."""
        return PatientEmbeddings(entry=entry, location=self.storage.locate(entry.path))

    def one_encoding(self) -> Encoding | None:
        """Return how all patients were embedded; None for an empty store.

        Raises
        ------
        StoreError : patients were embedded in different ways (a re-embedding was interrupted)
        """
        found = {entry.encoding for entry in self.manifest().values() if not entry.retired}
        if len(found) > 1:
            names = sorted(map(str, found))
            raise StoreError(f"the embedding store mixes {', '.join(names)}: run the embed stage to its end")
        return found.pop() if found else None

    @contextmanager
    def stage(
        self, patient_id: str, key: EmbeddingKey, *, width: int, provenance: str = ""
    ) -> Iterator[PatientWriter]:
        """Give a writer for one patient; what it has not finished when the block ends is removed."""
        writer = PatientWriter(self.storage, self.patient_key(patient_id), key, width, provenance)
        try:
            yield writer
        finally:
            writer.discard()

    def published(self, patient_id: str, key: EmbeddingKey) -> ManifestEntry | None:
        """Return the entry of a finished version with this key, even if its writer died before the commit."""
        data = self.storage.read(f"{self.patient_key(patient_id)}/{key.content_hash}/{ENTRY_FILE}")
        return None if data is None else entry_from_json(data)

    def has_finished(self, patient: str, encoding: Encoding) -> bool:
        """Whether some finished version of a patient hash, committed or not, was embedded in this way."""
        names = (f"{patient}/{version}/{ENTRY_FILE}" for version in self.storage.folders(patient))
        found = (self.storage.read(name) for name in names)
        return any(data is not None and entry_from_json(data).encoding == encoding for data in found)

    def commit(self, entries: Sequence[ManifestEntry], *, retired: Iterable[str] = ()) -> str:
        """Make `entries` the current versions, mark patient hashes as retired, and return the data version.

        Entries of other patients stay, those committed meanwhile by another process included.

        Raises
        ------
        StoreError : an entry's version folder is not there; disk full, read-only folder
        """
        for entry in entries:
            if self.storage.read(f"{entry.path}/{ENTRY_FILE}") is None:
                raise StoreError("a version to be committed is not in the store: embed that patient again")

        def change(current: dict[str, ManifestEntry]) -> None:
            current.update({entry.patient: replace(entry, retired=False) for entry in entries})
            for patient in set(retired) & set(current):
                current[patient] = replace(current[patient], retired=True)

        return self.change_manifest(change)

    def change_manifest(self, change: Callable[[dict[str, ManifestEntry]], None]) -> str:
        """Apply `change` to the latest manifest as one transaction and return the new data version."""
        changed: dict[str, ManifestEntry] = {}
        replaced: set[str] = set()

        def rewrite(before: bytes | None) -> bytes:
            current = manifest_from_json(before)
            changed.clear()
            replaced.clear()
            replaced.update(entry.path for entry in current.values())
            change(current)
            replaced.difference_update(entry.path for entry in current.values())
            changed.update(current)
            return manifest_to_json(current)

        self.storage.update(MANIFEST, rewrite)
        for path in replaced:
            self.storage.touch(path)  # readers hold it: `gc` counts its age from now
        return manifest_version(changed)

    def write_provenance(self, provenance: Mapping[str, Any]) -> str:
        """Keep what made some embeddings (encoder, config, versions, licence) and return its name."""
        name = config_hash(provenance)[:32]
        self.storage.create(f"provenance/{name}.json", canonical_json(provenance).encode())
        return name

    def read_provenance(self, entry: ManifestEntry) -> dict[str, Any]:
        """Return what made an entry's embeddings; empty when nobody wrote it."""
        data = self.storage.read(f"provenance/{entry.provenance}.json")
        return {} if data is None else json.loads(data)
