"""What a synthetic cohort is made from: its size and arguments, one patient's course, and the claim on a folder."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.foundation.atomic import make_private_dir, write_json
from pipeline.foundation.errors import ConfigError
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.physiology import Course, Stay, plan_course, plan_stay
from pipeline.sources.synthetic.real_labs import RealLabs, content_hash

_MOST_PATIENTS = 99_900
_STARTED = "started.json"


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
class CohortPlan:
    """Everything a cohort depends on; `write_cohort` explains the fields."""

    parameters: CohortParameters
    size: CohortSize
    root: Path
    coupling: float
    null: str | None
    seed: int
    real_labs: Path | None


def subject_id_of(seed: int, patient: int) -> int:
    """Give the patient's MIMIC-like subject id, 20..99919, unique within a cohort."""
    return 20 + (patient * 7_919 + seed * 10_007) % _MOST_PATIENTS


@cache
def _real_labs(folder: Path, least_hours: float) -> RealLabs:
    return RealLabs(folder, least_hours)


def plan_patient(plan: CohortPlan, patient: int) -> tuple[Stay, Course]:
    """Draw one patient's stay and course; no waveform is made."""
    parameters, size = plan.parameters, plan.size
    if plan.real_labs is not None:
        real = _real_labs(plan.real_labs, size.hours_low)
        stay = real.stay(patient, size.hours_high, plan.seed)
        tie = 0.0 if plan.null == "a" else plan.coupling
        return stay, real.course(parameters, stay, coupling=tie, seed=plan.seed, patient=patient)
    hours = (size.hours_low, size.hours_high)
    stay = plan_stay(parameters, hours, plan.seed, patient, subject_id_of(plan.seed, patient))
    return stay, plan_course(
        parameters, stay, coupling=plan.coupling, null=plan.null, seed=plan.seed, patient=patient
    )


def patient_count(plan: CohortPlan) -> int:
    """Give the number of patients: what was asked for, or as many as the real labs have.

    Raises
    ------
    ConfigError
        When no real stay is long enough.
    """
    if plan.real_labs is None:
        return plan.size.n_patients
    there = len(_real_labs(plan.real_labs, plan.size.hours_low).stays)
    if there == 0:
        raise ConfigError(
            f"No ICU stay in {plan.real_labs} lasts {plan.size.hours_low:g} hours: lower hours_low"
        )
    return min(plan.size.n_patients, there)


def _identity(plan: CohortPlan) -> dict[str, Any]:
    """Give what two cohorts must share to be the same."""
    real = content_hash(plan.real_labs) if plan.real_labs is not None else None
    facts = {
        "parameters": plan.parameters.sha256, "size": asdict(plan.size), "coupling": plan.coupling,
        "null": plan.null, "seed": plan.seed, "real_labs": real,
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return facts | {"identity": digest}


def _check(plan: CohortPlan) -> None:
    if not 0 <= plan.coupling <= 1:
        raise ConfigError(
            f"coupling {plan.coupling!r} must lie in 0..1: 0 ties no lab to the waveform, 1 ties all"
        )
    if plan.null not in (None, "a", "b"):
        raise ConfigError(
            f"null {plan.null!r} is unknown: use None, 'a' (no coupling) or 'b' (no pattern at all)"
        )
    if plan.null == "b" and plan.real_labs is not None:
        raise ConfigError(
            "null 'b' makes labs without any pattern, which real labs have: leave one of the two out"
        )
    if plan.seed < 0:
        raise ConfigError(f"seed {plan.seed!r} must not be negative")


def claim(plan: CohortPlan) -> None:
    """Mark the cohort's folder as ours.

    Raises
    ------
    ConfigError
        Impossible arguments, or a folder that holds anything else.
    """
    _check(plan)
    identity = _identity(plan)
    started = plan.root / _STARTED
    if started.is_file():
        if json.loads(started.read_text(encoding="utf-8"))["identity"] != identity["identity"]:
            raise ConfigError(
                f"{plan.root} holds another synthetic cohort: delete it or choose another folder"
            )
        return
    if plan.root.exists() and any(plan.root.iterdir()):
        raise ConfigError(f"{plan.root} is not empty and holds no synthetic cohort: choose another folder")
    make_private_dir(plan.root)
    write_json(started, identity)
