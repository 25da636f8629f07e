"""The embedded default input: a synthetic ICU cohort with a known truth, on disk like MIMIC-III.

``write_cohort`` writes ``waveforms/`` (true WFDB in the Matched Subset layout), ``clinical/`` (LABEVENTS,
ADMISSIONS, ICUSTAYS, PATIENTS) and ``truth/``, so that a run on it takes the road of the real database. Equal
arguments give equal bytes, whatever the number of workers; a patient's files do not depend on how many others
there are. Patients appear one by one, each whole: an interrupted run goes on where it stopped.
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.foundation.atomic import (
    explained_os_errors,
    make_private_dir,
    publish_folder,
    write_bytes,
    write_json,
    write_text,
)
from pipeline.foundation.progress import tracked
from pipeline.foundation.workers import worker_pool
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.physiology import Course, Stay, random_stream
from pipeline.sources.synthetic.plan import CohortPlan, CohortSize, claim, patient_count, plan_patient
from pipeline.sources.synthetic.ppg import SAMPLING_RATE_HZ
from pipeline.sources.synthetic.real_labs import real_table_files
from pipeline.sources.synthetic.tables import TABLE_FILES, lab_rows, stay_rows, write_tables
from pipeline.sources.synthetic.truth import TRUTH_TABLES, has_truth, truth_rows, write_truth
from pipeline.sources.synthetic.wfdb_files import RecordPlan, patient_folder, plan_record, write_record

logger = logging.getLogger(__name__)

_COMPLETE, _STAGING = "complete.json", ".staging"
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class CohortSummary:
    """What was written (or found complete)."""

    root: Path
    n_patients: int
    n_records: int
    n_samples: int
    """PLETH time base, samples at 125 Hz, gaps included."""
    n_labs: int
    """Draws of the five labs in the truth."""
    parameters_sha256: str
    reused: bool
    """Whether the cohort was there already."""

    @property
    def hours(self) -> float:
        """Recorded hours, gaps included."""
        return self.n_samples / SAMPLING_RATE_HZ / 3600


@dataclass(frozen=True, kw_only=True)
class _Written:
    """One patient's contribution to the cohort's tables."""

    subject_id: int
    records: int
    samples: int
    clinical: dict[str, pd.DataFrame]
    truth: dict[str, pd.DataFrame]


def write_waveforms(plan: CohortPlan, patient: int) -> list[RecordPlan]:
    """Write one patient's waveforms into ``plan.root / "waveforms"``, unless they are there, and nothing else."""
    stay, course = plan_patient(plan, patient)
    return _write_records(plan, patient, stay, course)


def _write_records(plan: CohortPlan, patient: int, stay: Stay, course: Course) -> list[RecordPlan]:
    rng = random_stream(plan.seed, patient, "records")
    records = [plan_record(plan.parameters, course, span, stay.subject_id, rng) for span in stay.recordings]
    folder = plan.root / "waveforms" / patient_folder(stay.subject_id)
    if not folder.exists():
        staging = make_private_dir(plan.root / _STAGING) / f"{patient:05d}"
        shutil.rmtree(staging, ignore_errors=True)
        make_private_dir(staging)
        names = [record.name for record in records] + [f"{r.name}n" for r in records if r.numerics]
        with explained_os_errors(staging):
            for record in records:
                write_record(staging, record)
            (staging / "RECORDS").write_text("\n".join(names) + "\n", encoding="ascii")
        publish_folder(staging, folder)
    return records


def _write_patient(plan: CohortPlan, patient: int) -> _Written:
    """Write one patient's waveforms, unless they are there, and give the rows of the tables."""
    stay, course = plan_patient(plan, patient)
    return _rows(plan, patient, stay, course, _write_records(plan, patient, stay, course))


def _rows(plan: CohortPlan, patient: int, stay: Stay, course: Course, records: list[RecordPlan]) -> _Written:
    clinical = {}
    if plan.real_labs is None:
        clinical = {"LABEVENTS": lab_rows(plan.parameters, stay, course, plan.seed, patient)}
        clinical |= stay_rows(stay, plan.seed, patient)
    return _Written(
        subject_id=stay.subject_id,
        records=len(records),
        samples=sum(record.samples for record in records),
        clinical=clinical,
        truth=truth_rows(plan.parameters, str(stay.subject_id), course, real_labs=plan.real_labs is not None),
    )


def _results(plan: CohortPlan, patients: int, workers: int) -> Iterator[_Written]:
    if workers <= 1:
        yield from (_write_patient(plan, patient) for patient in range(patients))
        return
    with worker_pool(workers) as pool:
        yield from pool.map(_write_patient, [plan] * patients, range(patients))


def write_cohort(
    parameters: CohortParameters,
    size: CohortSize,
    root: Path,
    *,
    coupling: float = 1.0,
    null: str | None = None,
    seed: int = 0,
    real_labs: Path | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> CohortSummary:
    """Write a synthetic cohort, or find it complete; see the module.

    Parameters
    ----------
    root : an empty or new folder, or one with the same cohort, begun or complete
    coupling : 0..1, how far labs follow what the pulse wave shows
    null : "a": coupling 0; "b": draws independent in time, no patient offset
    real_labs : folder of MIMIC-III tables: real labs, planted waveforms (tables are copied, licence applies)
    workers : processes (spawned: a script that asks for more than one guards its main); equal bytes whatever it is
    progress : called with (patients done, patients in all)

    Raises
    ------
    ConfigError
        Impossible arguments, or `root` holds something else.
    StoreError
        The disk is full or may not be written; run again to go on.
    """
    folder = Path(real_labs).resolve() if real_labs is not None else None
    plan = CohortPlan(
        parameters=parameters, size=size, root=Path(root), coupling=float(coupling), null=null, seed=seed,
        real_labs=folder,
    )  # fmt: skip
    claim(plan)
    complete = plan.root / _COMPLETE
    if complete.is_file():
        return CohortSummary(root=plan.root, reused=True, **json.loads(complete.read_text(encoding="utf-8")))
    patients = patient_count(plan)
    written = []
    results = tracked(_results(plan, patients, workers), "writing the cohort", "patients", patients)
    for done, result in enumerate(results, start=1):
        written.append(result)
        if progress is not None:
            progress(done, patients)
    _write_tables(plan, written)
    folders = sorted(patient_folder(w.subject_id) + "/" for w in written)
    write_text(plan.root / "waveforms" / "RECORDS", "\n".join(folders) + "\n")
    shutil.rmtree(plan.root / _STAGING, ignore_errors=True)
    totals = _totals(plan, written)
    write_json(complete, totals)
    logger.info("synthetic cohort written: %d patients, %d records", patients, totals["n_records"])
    return CohortSummary(root=plan.root, reused=False, **totals)


def write_without_waveforms(plan: CohortPlan) -> None:
    """Write the clinical tables and the truth of a cohort whose waveforms lie elsewhere, or nowhere any more.

    Raises
    ------
    ConfigError
        Impossible arguments, or ``plan.root`` holds something else.
    StoreError
        The disk is full or may not be written; run again to go on.
    """
    claim(plan)
    if has_truth(plan.root):
        return
    written = [
        _rows(plan, patient, *plan_patient(plan, patient), records=[])
        for patient in range(patient_count(plan))
    ]
    _write_tables(plan, written)


def _totals(plan: CohortPlan, written: list[_Written]) -> dict[str, Any]:
    return {
        "n_patients": len(written),
        "n_records": sum(w.records for w in written),
        "n_samples": sum(w.samples for w in written),
        "n_labs": sum(len(w.truth["draws"]) for w in written),
        "parameters_sha256": plan.parameters.sha256,
    }


def _write_tables(plan: CohortPlan, written: list[_Written]) -> None:
    """Write what needs all patients: clinical tables and truth."""
    clinical = plan.root / "clinical"
    if plan.real_labs is not None:
        for path in real_table_files(plan.real_labs).values():
            write_bytes(clinical / path.name, path.read_bytes())
    else:
        tables = {name: pd.concat([w.clinical[name] for w in written]) for name in TABLE_FILES}
        write_tables(clinical, tables, lower_case=plan.size.lower_case_columns)
    truth = {name: pd.concat([w.truth[name] for w in written], ignore_index=True) for name in TRUTH_TABLES}
    write_truth(
        plan.root / "truth",
        truth,
        {
            "parameters": plan.parameters.raw,
            "coupling": plan.coupling,
            "null": plan.null,
            "seed": plan.seed,
            "real_labs": plan.real_labs is not None,
        },
    )
