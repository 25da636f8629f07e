"""Which patients have to be embedded: those whose content, encoder or preprocessing is new."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from models.encoders.base import Encoder
from pipeline.embedding.config import available_cores
from pipeline.embedding.encoders import encoder_fields, encoder_label
from pipeline.foundation.number_format import counted
from pipeline.foundation.provenance import config_hash
from pipeline.foundation.schema import WINDOW_US
from pipeline.sources.base import Catalog, Record
from pipeline.sources.content_hashes import SourceHashes, SourceState, source_state
from pipeline.store.embeddings import EmbeddingStore
from pipeline.store.manifest import EmbeddingKey, ManifestEntry
from pipeline.windows.cutting import WindowConfig
from pipeline.windows.decoding import UNREADABLE

MAX_HASHERS = 8
"""Threads that read and hash at once; more only make a disk seek."""


@dataclass(frozen=True, kw_only=True)
class PatientTask:
    """One patient to embed.

    Attributes
    ----------
    patient : keyed hash of the patient id
    patient_id, records : the patient; never shown
    fingerprint : of the source files when their content was hashed for `key`; None where it was not: it will be when
        the files are decoded
    key : what the embeddings will be stored under, without the source's hash while that is not known
    planned_windows : windows that fit into the records' time, for progress alone
    """

    patient: str
    patient_id: str = field(repr=False)
    records: tuple[Record, ...] = field(repr=False)
    fingerprint: str | None
    key: EmbeddingKey
    planned_windows: int

    def of_state(self, state: SourceState | None) -> "PatientTask":
        """Return the task for records in this state; None: not known."""
        return replace(
            self,
            fingerprint=None if state is None else state.fingerprint,
            key=self.key.for_source("" if state is None else state.content),
        )


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
    replaced : how those to embed were embedded before, in words, where it was in another way
    encoding : how they will be
    """

    stale: tuple[PatientTask, ...]
    returned: tuple[ManifestEntry, ...] = ()
    unchanged: int = 0
    retired: tuple[str, ...] = ()
    failures: Counter[str] = field(default_factory=Counter)
    replaced: Counter[str] = field(default_factory=Counter)
    encoding: str = ""

    def __str__(self) -> str:
        """Say what is to be done in one sentence."""
        to_embed = counted(len(self.stale), "patients")
        text = f"{to_embed} to embed, {self.unchanged} unchanged, {len(self.retired)} vanished"
        before = ", ".join(f"{n} by {encoding}" for encoding, n in sorted(self.replaced.items()))
        return f"{text}; of the first, embedded before {before}, now by {self.encoding}" if before else text

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

    Costs one ``stat`` a file of a known patient and nothing for the files of a new one, whose content is hashed while
    it is decoded. Files are read here only where they changed their times under embeddings made in this very way.

    Parameters
    ----------
    only : patient hashes to look at, all when None; a partial plan retires nobody

    Raises
    ------
    StoreError : the store cannot be read
    """
    manifest, template = store.manifest(), key_template(encoder, window)
    records = _by_patient(catalog, store)
    tasks = [
        _task(patient, *found, template)
        for patient, found in records.items()
        if only is None or patient in only
    ]
    known = {patient for patient, entry in manifest.items() if entry.encoding == template.encoding}
    tasks, failures = _with_known_content(tasks, known, SourceHashes(store.storage))
    entries = {task.patient: manifest[task.patient] for task in tasks if task.patient in manifest}
    keys = {task.patient: task.key for task in tasks}
    current = {patient: entry for patient, entry in entries.items() if entry.key == keys[patient]}
    gone = [] if only is not None else [entry for entry in manifest.values() if entry.patient not in records]
    return EmbeddingPlan(
        stale=tuple(task for task in tasks if task.patient not in current),
        returned=tuple(entry for entry in current.values() if entry.retired),
        unchanged=len(current),
        retired=tuple(entry.patient for entry in gone if not entry.retired),
        failures=failures,
        replaced=Counter(str(entry.encoding) for entry in entries.values() if entry.patient not in known),
        encoding=str(template.encoding),
    )


def key_template(encoder: Encoder, window: WindowConfig) -> EmbeddingKey:
    """Return the key of records that nobody has read yet."""
    return EmbeddingKey(
        source_hash="",
        encoder_name=encoder_label(encoder),
        weights_hash=encoder.weights_hash,
        preprocessing_version=f"{window.version}-{config_hash(window)[:12]}",
        **encoder_fields(encoder),
    )


def _by_patient(catalog: Catalog, store: EmbeddingStore) -> dict[str, tuple[str, tuple[Record, ...]]]:
    """Return id and records by keyed hash, in the catalogue's order."""
    records: dict[str, list[Record]] = defaultdict(list)
    for record in catalog.records:
        records[record.patient_id].append(record)
    return {
        store.patient_key(patient_id): (patient_id, tuple(found)) for patient_id, found in records.items()
    }


def _task(patient: str, patient_id: str, records: tuple[Record, ...], template: EmbeddingKey) -> PatientTask:
    return PatientTask(
        patient=patient,
        patient_id=patient_id,
        records=records,
        fingerprint=None,
        key=template,
        planned_windows=sum((record.end_us - record.start_us) // WINDOW_US for record in records),
    )


def _with_known_content(
    tasks: list[PatientTask], embedded: Collection[str], hashes: SourceHashes
) -> tuple[list[PatientTask], Counter[str]]:
    """Fill in what is remembered of the sources, and hash what may turn out to be embedded already."""
    failures: Counter[str] = Counter()
    done: dict[str, PatientTask] = {}
    to_hash: list[PatientTask] = []
    for task in tasks:
        try:
            done[task.patient] = task.of_state(hashes.remembered(task.patient, task.records))
        except OSError:
            failures[UNREADABLE] += 1
            continue
        if done[task.patient].fingerprint is None and task.patient in embedded:
            to_hash.append(task)
    for task, state in hashed(to_hash, hashes):
        done[task.patient] = task.of_state(state)
        if state is None:
            failures[UNREADABLE] += 1
            del done[task.patient]
    return list(done.values()), failures


def hashed(
    tasks: Collection[PatientTask], hashes: SourceHashes
) -> Iterator[tuple[PatientTask, SourceState | None]]:
    """Read and hash the sources of some patients, several at once, and remember them as they come.

    Yields
    ------
    Each task, in order, and the state of its source; None: it cannot be read
    """
    if not tasks:
        return
    pool = ThreadPoolExecutor(min(MAX_HASHERS, available_cores()), thread_name_prefix="hash")
    try:
        for task, found in [(task, pool.submit(source_state, task.records)) for task in tasks]:
            try:
                state = found.result()
            except OSError:
                yield task, None
                continue
            hashes.remember(task.patient, state)
            yield task, state
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        hashes.save()
