"""The embedded default input: a synthetic ICU cohort with a known truth, on disk like MIMIC-III.

``write_cohort`` writes ``waveforms/`` (true WFDB in the Matched Subset layout), ``clinical/`` (LABEVENTS,
ADMISSIONS, ICUSTAYS, PATIENTS) and ``truth/``, so that a run on it takes the road of the real database. Equal
arguments give equal bytes, whatever the number of workers; a patient's files do not depend on how many others
there are. Patients appear one by one, each whole: an interrupted run goes on where it stopped.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.atomic import make_private_dir, publish_folder, write_bytes, write_json, write_text
from pipeline.errors import ConfigError
from pipeline.sources.synthetic_parameters import CohortParameters
from pipeline.sources.synthetic_physiology import Course, Stay, plan_course, plan_stay, random_stream
from pipeline.sources.synthetic_real import RealLabs, content_hash, real_table_files
from pipeline.sources.synthetic_tables import TABLE_FILES, lab_rows, stay_rows, write_tables
from pipeline.sources.synthetic_truth import TRUTH_TABLES, truth_rows, write_truth
from pipeline.sources.synthetic_wfdb import SAMPLING_RATE_HZ, patient_folder, plan_record, write_record

logger = logging.getLogger(__name__)

_MOST_PATIENTS = 99_900
_COMPLETE, _STARTED, _STAGING = "complete.json", "started.json", ".staging"
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class CohortSize:
    """How large a cohort is."""

    n_patients: int
    """Patients; with real labs at most so many, in order of subject."""
    hours_low: float = 12.0
    """Least recorded time of a patient, hours."""
    hours_high: float = 48.0
    """Most recorded time of a patient, hours."""
    lower_case_columns: bool = False
    """Column names as in the MIMIC-III demo rather than as in the full release."""

    def __post_init__(self) -> None:
        if not 1 <= self.n_patients <= _MOST_PATIENTS:
            raise ValueError(
                f"CohortSize.n_patients must lie in 1..{_MOST_PATIENTS}, not {self.n_patients!r}"
            )
        if not 0 < self.hours_low <= self.hours_high:
            low, high = self.hours_low, self.hours_high
            raise ValueError(f"CohortSize needs 0 < hours_low <= hours_high, not {low!r} and {high!r}")


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
class _Task:
    """What one patient's files depend on."""

    parameters: CohortParameters
    size: CohortSize
    root: Path
    coupling: float
    null: str | None
    seed: int
    real_labs: Path | None


@dataclass(frozen=True, kw_only=True)
class _Written:
    """One patient's contribution to the cohort's tables."""

    subject_id: int
    records: int
    samples: int
    numerics: int
    clinical: dict[str, pd.DataFrame]
    truth: dict[str, pd.DataFrame]


def subject_id_of(seed: int, patient: int) -> int:
    """Give the patient's MIMIC-like subject id, 20..99919, unique within a cohort."""
    return 20 + (patient * 7_919 + seed * 10_007) % _MOST_PATIENTS


@cache
def _real_labs(folder: Path, least_hours: float) -> RealLabs:
    return RealLabs(folder, least_hours)


def plan_patient(task: _Task, patient: int) -> tuple[Stay, Course]:
    """Draw one patient's stay and course; no waveform is made."""
    parameters, size = task.parameters, task.size
    if task.real_labs is not None:
        real = _real_labs(task.real_labs, size.hours_low)
        stay = real.stay(patient, size.hours_high, task.seed)
        tie = 0.0 if task.null == "a" else task.coupling
        return stay, real.course(parameters, stay, coupling=tie, seed=task.seed, patient=patient)
    hours = (size.hours_low, size.hours_high)
    stay = plan_stay(parameters, hours, task.seed, patient, subject_id_of(task.seed, patient))
    return stay, plan_course(
        parameters, stay, coupling=task.coupling, null=task.null, seed=task.seed, patient=patient
    )


def _write_patient(task: _Task, patient: int) -> _Written:
    """Write one patient's waveforms, unless they are there, and give the rows of the tables."""
    stay, course = plan_patient(task, patient)
    rng = random_stream(task.seed, patient, "records")
    plans = [plan_record(task.parameters, course, span, stay.subject_id, rng) for span in stay.recordings]
    folder = task.root / "waveforms" / patient_folder(stay.subject_id)
    if not folder.exists():
        staging = make_private_dir(task.root / _STAGING) / f"{patient:05d}"
        shutil.rmtree(staging, ignore_errors=True)
        make_private_dir(staging)
        for plan in plans:
            write_record(staging, plan)
        names = [plan.name for plan in plans] + [f"{plan.name}n" for plan in plans if plan.numerics]
        (staging / "RECORDS").write_text("\n".join(names) + "\n", encoding="ascii")
        publish_folder(staging, folder)
    clinical = {}
    if task.real_labs is None:
        clinical = {"LABEVENTS": lab_rows(task.parameters, stay, course, task.seed, patient)}
        clinical |= stay_rows(stay, task.seed, patient)
    return _Written(
        subject_id=stay.subject_id,
        records=len(plans),
        samples=sum(plan.samples for plan in plans),
        numerics=sum(plan.numerics for plan in plans),
        clinical=clinical,
        truth=truth_rows(task.parameters, str(stay.subject_id), course, real_labs=task.real_labs is not None),
    )


def _results(task: _Task, patients: int, workers: int) -> Iterator[_Written]:
    if workers <= 1:
        yield from (_write_patient(task, patient) for patient in range(patients))
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_write_patient, [task] * patients, range(patients))


def _identity(task: _Task) -> dict[str, Any]:
    """Give what two cohorts must share to be the same."""
    real = content_hash(task.real_labs) if task.real_labs is not None else None
    facts = {
        "parameters": task.parameters.sha256, "size": asdict(task.size), "coupling": task.coupling,
        "null": task.null, "seed": task.seed, "real_labs": real,
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return facts | {"identity": digest}


def _check(task: _Task) -> None:
    if not 0 <= task.coupling <= 1:
        raise ConfigError(
            f"coupling {task.coupling!r} must lie in 0..1: 0 ties no lab to the waveform, 1 ties all"
        )
    if task.null not in (None, "a", "b"):
        raise ConfigError(
            f"null {task.null!r} is unknown: use None, 'a' (no coupling) or 'b' (no pattern at all)"
        )
    if task.null == "b" and task.real_labs is not None:
        raise ConfigError(
            "null 'b' makes labs without any pattern, which real labs have: leave one of the two out"
        )
    if task.seed < 0:
        raise ConfigError(f"seed {task.seed!r} must not be negative")


def _claim(task: _Task, identity: dict[str, Any]) -> None:
    """Mark `root` as ours, or refuse a folder that holds anything else."""
    started = task.root / _STARTED
    if started.is_file():
        if json.loads(started.read_text(encoding="utf-8"))["identity"] != identity["identity"]:
            raise ConfigError(
                f"{task.root} holds another synthetic cohort: delete it or choose another folder"
            )
        return
    if task.root.exists() and any(task.root.iterdir()):
        raise ConfigError(f"{task.root} is not empty and holds no synthetic cohort: choose another folder")
    make_private_dir(task.root)
    write_json(started, identity)


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
    workers : processes; the bytes do not depend on it
    progress : called with (patients done, patients in all)

    Raises
    ------
    ConfigError
        Impossible arguments, or `root` holds something else.
    """
    folder = Path(real_labs).resolve() if real_labs is not None else None
    task = _Task(
        parameters=parameters, size=size, root=Path(root), coupling=float(coupling), null=null, seed=seed,
        real_labs=folder,
    )  # fmt: skip
    _check(task)
    identity = _identity(task)
    _claim(task, identity)
    complete = task.root / _COMPLETE
    if complete.is_file():
        return CohortSummary(root=task.root, reused=True, **json.loads(complete.read_text(encoding="utf-8")))
    patients = size.n_patients
    if folder is not None:
        patients = min(patients, len(_real_labs(folder, size.hours_low).stays))
        if patients == 0:
            raise ConfigError(f"No ICU stay in {folder} lasts {size.hours_low:g} hours: lower hours_low")
    written = []
    for done, result in enumerate(_results(task, patients, workers), start=1):
        written.append(result)
        if progress is not None:
            progress(done, patients)
    _write_tables(task, written)
    totals = {
        "n_patients": patients,
        "n_records": sum(w.records for w in written),
        "n_samples": sum(w.samples for w in written),
        "n_labs": sum(len(w.truth["draws"]) for w in written),
        "parameters_sha256": parameters.sha256,
    }
    shutil.rmtree(task.root / _STAGING, ignore_errors=True)
    write_json(complete, totals)
    logger.info("synthetic cohort written: %d patients, %d records", patients, totals["n_records"])
    return CohortSummary(root=task.root, reused=False, **totals)


def _write_tables(task: _Task, written: list[_Written]) -> None:
    """Write what needs all patients: clinical tables, truth and the list of records."""
    clinical = task.root / "clinical"
    if task.real_labs is not None:
        for path in real_table_files(task.real_labs).values():
            write_bytes(clinical / path.name, path.read_bytes())
    else:
        tables = {name: pd.concat([w.clinical[name] for w in written]) for name in TABLE_FILES}
        write_tables(clinical, tables, lower_case=task.size.lower_case_columns)
    truth = {name: pd.concat([w.truth[name] for w in written], ignore_index=True) for name in TRUTH_TABLES}
    write_truth(
        task.root / "truth",
        truth,
        {
            "parameters": task.parameters.raw,
            "coupling": task.coupling,
            "null": task.null,
            "seed": task.seed,
            "real_labs": task.real_labs is not None,
        },
    )
    folders = sorted(patient_folder(w.subject_id) + "/" for w in written)
    write_text(task.root / "waveforms" / "RECORDS", "\n".join(folders) + "\n")
