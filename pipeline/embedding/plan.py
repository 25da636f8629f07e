"""Which patients have to be embedded: those whose content, encoder or preprocessing is new."""

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field

from models.encoders.base import Encoder
from pipeline.embedding.encoders import encoder_label
from pipeline.foundation.provenance import config_hash
from pipeline.foundation.schema import WINDOW_US
from pipeline.sources.base import Catalog, Record
from pipeline.sources.content_hashes import SourceHashes
from pipeline.store.embeddings import EmbeddingStore
from pipeline.store.manifest import EmbeddingKey, ManifestEntry
from pipeline.windows.cutting import WindowConfig
from pipeline.windows.decoding import UNREADABLE


@dataclass(frozen=True, kw_only=True)
class PatientTask:
    """One patient to embed.

    Attributes
    ----------
    patient : keyed hash of the patient id
    patient_id, records : the patient; never shown
    fingerprint : of the source files when their content was hashed for `key`
    key : what the embeddings will be stored under
    planned_windows : windows that fit into the records' time, for progress alone
    """

    patient: str
    patient_id: str = field(repr=False)
    records: tuple[Record, ...] = field(repr=False)
    fingerprint: str
    key: EmbeddingKey
    planned_windows: int


@dataclass(frozen=True, kw_only=True)
class EmbeddingPlan:
    """What a run has to do.

    Attributes
    ----------
    stale : patients to embed, new ones and changed ones
    returned : entries of retired patients whose source is there again, unchanged
    unchanged : patients with nothing to do
    retired : patient hashes whose source has vanished since the last run; their embeddings are kept
    failures : patients whose source cannot be read, by reason; their last embeddings are kept
    """

    stale: tuple[PatientTask, ...]
    returned: tuple[ManifestEntry, ...] = ()
    unchanged: int = 0
    retired: tuple[str, ...] = ()
    failures: Counter[str] = field(default_factory=Counter)

    def batches(self, n_patients: int) -> list[tuple[PatientTask, ...]]:
        """Return the stale patients in groups of at most `n_patients`."""
        return [self.stale[first : first + n_patients] for first in range(0, len(self.stale), n_patients)]


def plan_embedding(
    catalog: Catalog,
    store: EmbeddingStore,
    encoder: Encoder,
    window: WindowConfig,
    *,
    only: Collection[str] | None = None,
) -> EmbeddingPlan:
    """Compare the catalogue with the manifest, by content.

    Parameters
    ----------
    only : patient hashes to look at, all when None; a partial plan retires nobody

    Raises
    ------
    StoreError : the store cannot be read
    """
    hashes, manifest = SourceHashes(store.storage), store.manifest()
    template = EmbeddingKey(
        source_hash="",
        encoder_name=encoder_label(encoder),
        weights_hash=encoder.weights_hash,
        preprocessing_version=f"{window.version}-{config_hash(window)[:12]}",
    )
    stale: list[PatientTask] = []
    current: list[ManifestEntry] = []
    failures: Counter[str] = Counter()
    patients = {
        store.patient_key(patient_id): (patient_id, records) for patient_id, records in _by_patient(catalog)
    }
    for patient, (patient_id, records) in patients.items():
        if only is not None and patient not in only:
            continue
        try:
            task = _task(patient, patient_id, records, hashes, template)
        except OSError:
            failures[UNREADABLE] += 1
            continue
        entry = manifest.get(patient)
        if entry is not None and entry.key == task.key:
            current.append(entry)
        else:
            stale.append(task)
    hashes.save()
    gone = [] if only is not None else [entry for entry in manifest.values() if entry.patient not in patients]
    return EmbeddingPlan(
        stale=tuple(stale),
        returned=tuple(entry for entry in current if entry.retired),
        unchanged=len(current),
        retired=tuple(entry.patient for entry in gone if not entry.retired),
        failures=failures,
    )


def _by_patient(catalog: Catalog) -> list[tuple[str, tuple[Record, ...]]]:
    records: dict[str, list[Record]] = defaultdict(list)
    for record in catalog.records:
        records[record.patient_id].append(record)
    return [(patient_id, tuple(found)) for patient_id, found in records.items()]


def _task(
    patient: str, patient_id: str, records: tuple[Record, ...], hashes: SourceHashes, template: EmbeddingKey
) -> PatientTask:
    fingerprint, content = hashes.of(patient, records)
    return PatientTask(
        patient=patient,
        patient_id=patient_id,
        records=records,
        fingerprint=fingerprint,
        key=template.for_source(content),
        planned_windows=sum((record.end_us - record.start_us) // WINDOW_US for record in records),
    )
