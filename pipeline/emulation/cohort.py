"""Write a whole emulated cohort: embedding store, clinical tables and truth of planted patients, no waveform.

Patients come in batches, each batch's tables whole on disk before the next is counted: a run that is killed goes on
where it stopped, memory does not grow with patients, and the result does not depend on the number of workers.
"""

import gzip
import io
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.emulation.inputs import signal_inputs
from pipeline.emulation.model import Emulator
from pipeline.emulation.recording import EmulatedRecording, emulated_quality, emulated_recordings
from pipeline.foundation.artefact_notes import NOTE_KEY, current_note
from pipeline.foundation.atomic import make_private_dir, write_bytes, write_json, write_parquet
from pipeline.foundation.claims import only_writer
from pipeline.foundation.progress import tracked
from pipeline.foundation.provenance import config_hash, versions
from pipeline.foundation.schema import WINDOW_US
from pipeline.foundation.workers import worker_pool
from pipeline.sources.base import Record
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.physiology import Course, Stay, morphology_at
from pipeline.sources.synthetic.plan import CohortPlan, plan_patient
from pipeline.sources.synthetic.tables import TABLE_FILES, lab_rows, stay_rows
from pipeline.sources.synthetic.truth import TRUTH_TABLES, truth_rows
from pipeline.store.embeddings import EmbeddingStore
from pipeline.store.manifest import ManifestEntry

EMULATED_LICENCE = "synthetic, no patient: CC0, share freely"
BATCH_PATIENTS = 32
_DRAWS = 100
"""Purpose of the generator that draws embeddings, beside those of ``physiology.random_stream``."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class EmulatedCohort:
    """What is to be written.

    Attributes
    ----------
    plan : patients and their physiology; ``plan.root`` gets ``clinical/`` and ``truth/``
    store : gets the embeddings
    emulator : of the encoder
    """

    plan: CohortPlan
    store: EmbeddingStore
    emulator: Emulator

    @property
    def identity(self) -> str:
        """Hash of everything that the embeddings depend on besides the patient."""
        plan = self.plan
        return config_hash(
            {
                "parameters": plan.parameters.sha256, "size": plan.size, "coupling": plan.coupling,
                "null": plan.null, "seed": plan.seed, "emulator": self.emulator.identity,
            }
        )  # fmt: skip


def write_emulated_cohort(
    cohort: EmulatedCohort, *, workers: int = 1, progress: Progress | None = None
) -> list[Record]:
    """Write the cohort, or what is missing of it, and return its records as a catalogue would list them.

    While another process writes into the same folder, it waits.

    Parameters
    ----------
    workers : processes; equal content whatever it is
    progress : called with (patients done, patients in all)

    Raises
    ------
    StoreError
        The disk is full or may not be written; run again to go on.
    """
    with only_writer(cohort.plan.root):
        return _write(cohort, workers, progress)


def _write(cohort: EmulatedCohort, workers: int, progress: Progress | None) -> list[Record]:
    patients, root = cohort.plan.size.n_patients, cohort.plan.root
    parts = _own_parts(cohort)
    provenance = cohort.store.write_provenance(_provenance(cohort))
    starts = range(0, patients, BATCH_PATIENTS)
    records: list[Record] = []
    batches = tracked(
        _batches(cohort, provenance, parts, starts, workers), "drawing embeddings", "batches", len(starts)
    )
    for done, batch in zip(starts, batches, strict=True):
        cohort.store.commit(batch.entries)
        records += batch.records
        if progress is not None:
            progress(min(done + BATCH_PATIENTS, patients), patients)
    _write_clinical(root / "clinical", parts)
    _write_truth(cohort.plan, parts)
    shutil.rmtree(parts)
    return records


def _own_parts(cohort: EmulatedCohort) -> Path:
    """Return the folder of this cohort's batches; what a killed run of another one left in `root` goes."""
    root, own = cohort.plan.root, f"parts-{cohort.identity[:12]}"
    for left in root.glob("parts*"):
        if left.name != own:
            shutil.rmtree(left)
    return make_private_dir(root / own)


@dataclass(frozen=True, kw_only=True)
class _Batch:
    entries: list[ManifestEntry]
    records: list[Record]


def _batches(
    cohort: EmulatedCohort, provenance: str, parts: Path, starts: range, workers: int
) -> Iterator[_Batch]:
    arguments = ([cohort] * len(starts), [provenance] * len(starts), [parts] * len(starts), starts)
    if workers <= 1:
        yield from map(_write_batch, *arguments)
        return
    with worker_pool(workers) as pool:
        yield from pool.map(_write_batch, *arguments)


def _write_batch(cohort: EmulatedCohort, provenance: str, parts: Path, first: int) -> _Batch:
    """Write the embeddings and tables of a batch, unless both are there."""
    plan, entries, records = cohort.plan, [], []
    tables: dict[str, list[pd.DataFrame]] = {}
    whole = all((parts / f"{name}-{first:06d}.parquet").exists() for name in (*TABLE_FILES, *TRUTH_TABLES))
    for patient in range(first, min(first + BATCH_PATIENTS, plan.size.n_patients)):
        stay, course = plan_patient(plan, patient)
        entries.append(_embedded(cohort, provenance, patient, stay, course))
        records += [_record(stay, span) for span in stay.recordings]
        if not whole:
            for name, frame in _rows(plan, patient, stay, course).items():
                tables.setdefault(name, []).append(frame)
    for name, frames in tables.items():
        write_parquet(parts / f"{name}-{first:06d}.parquet", pd.concat(frames, ignore_index=True))
    return _Batch(entries=entries, records=records)


def _rows(plan: CohortPlan, patient: int, stay: Stay, course: Course) -> dict[str, pd.DataFrame]:
    clinical = {"LABEVENTS": lab_rows(plan.parameters, stay, course, plan.seed, patient)}
    truth = truth_rows(plan.parameters, str(stay.subject_id), course, real_labs=False)
    return clinical | stay_rows(stay, plan.seed, patient) | truth


def _embedded(
    cohort: EmulatedCohort, provenance: str, patient: int, stay: Stay, course: Course
) -> ManifestEntry:
    """Draw and publish one patient's embeddings, or adopt what a killed run published."""
    patient_id, emulator = str(stay.subject_id), cohort.emulator
    key = emulator.key.store_key(config_hash([cohort.identity, patient])[:32])
    found = cohort.store.published(patient_id, key)
    if found is not None:
        return found
    rng = np.random.default_rng([cohort.plan.seed, patient, _DRAWS])
    exclusions: Counter[str] = Counter()
    with cohort.store.stage(patient_id, key, width=emulator.width, provenance=provenance) as writer:
        last_us = -1
        # All before the first embedding is drawn: the same windows whatever the embedding's width.
        for recording in list(emulated_recordings(cohort.plan.parameters, stay, rng, exclusions)):
            drawn = _drawn(cohort.plan.parameters, emulator, course, recording, rng)
            new = recording.start_us > last_us  # records that follow one another may share a window
            writer.append(recording.start_us[new], drawn[0][new], drawn[1][new])
            last_us = int(recording.start_us[-1]) if len(recording.start_us) else last_us
        return writer.finish(exclusions)


def _drawn(
    parameters: CohortParameters,
    emulator: Emulator,
    course: Course,
    recording: EmulatedRecording,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings and quality of one record's windows."""
    shape = morphology_at(parameters, course, recording.start_us + WINDOW_US // 2)
    amplitude = recording.level / (1 + shape["modulation"])
    inputs = signal_inputs(parameters, shape, recording.noise / amplitude)
    embeddings = emulator.draw(inputs, recording.step, rng)
    concentration = emulator.draw_concentration(len(recording.step), rng)
    return embeddings, emulated_quality(recording, shape["heart_rate"], concentration)


def _record(stay: Stay, span: tuple[int, int]) -> Record:
    name = f"{stay.subject_id}-{span[0]}"
    return Record(
        patient_id=str(stay.subject_id), name=name, path=Path(f"{name}.hea"), files=(), start_us=span[0],
        end_us=span[1],
    )  # fmt: skip


def _provenance(cohort: EmulatedCohort) -> dict[str, object]:
    return {
        "encoder": vars(cohort.emulator.key) | {"width": cohort.emulator.width},
        "emulator": cohort.emulator.identity,
        "source": {"kind": "emulated cohort", "licence": EMULATED_LICENCE},
        "versions": versions(),
    }


def _parts(parts: Path, name: str) -> Iterator[Path]:
    yield from sorted(parts.glob(f"{name}-*.parquet"))


def _write_clinical(folder: Path, parts: Path) -> None:
    """Write each table as MIMIC-III has it, part by part; equal tables give equal bytes."""
    for name, file in TABLE_FILES.items():
        packed = file.endswith(".gz")
        buffer = io.BytesIO()
        stream = gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1, mtime=0) if packed else buffer
        for number, path in enumerate(_parts(parts, name)):
            text = pd.read_parquet(path).to_csv(index=False, header=number == 0, lineterminator="\n")
            stream.write(text.encode())
        if packed:
            stream.close()
        write_bytes(folder / file, buffer.getvalue())


def _write_truth(plan: CohortPlan, parts: Path) -> None:
    """Write the truth that ``CohortTruth`` reads, a row group a batch."""
    folder = make_private_dir(plan.root / "truth")
    for name in TRUTH_TABLES:
        schema = _schema_of(_parts(parts, name))
        unfinished = folder / f".{name}.parquet.tmp"
        with pq.ParquetWriter(unfinished, schema) as writer:
            for path in _parts(parts, name):
                writer.write_table(pq.read_table(path).cast(schema))
        unfinished.chmod(0o600)
        unfinished.replace(folder / f"{name}.parquet")
    write_json(
        folder / "cohort.json",
        {
            "parameters": plan.parameters.raw, "coupling": plan.coupling, "null": plan.null, "seed": plan.seed,
            "real_labs": False,
        },
    )  # fmt: skip


def _schema_of(paths: Iterator[Path]) -> pa.Schema:
    """Return the columns, with the open note in place of the parts' own metadata."""
    return pq.read_schema(next(paths)).with_metadata({NOTE_KEY: current_note().as_json()})
