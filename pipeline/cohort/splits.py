"""One division of the patients into train, validation, calibration and test; a leaking one is refused."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pipeline.foundation.atomic import write_json
from pipeline.foundation.errors import ConfigError, LeakError
from pipeline.foundation.schema import SPLITS

LEAST_FOLDS, LEAST_OTHERS = 2, 3
"""Of a cross-validation: divisions, and patients in each who are not tested (train, validation, calibration)."""


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Shares of the patients; docs/evaluation.md."""

    seed: int = 0
    """Which of the possible divisions."""
    fractions: tuple[float, float, float] = (0.70, 0.15, 0.15)
    """Train, validation (calibration included), test; they add up to 1."""
    calibration_share: float = 1 / 3
    """Share of validation that is set aside for calibration and never used for selection."""

    def __post_init__(self):
        if any(share <= 0 for share in self.fractions) or abs(sum(self.fractions) - 1) > 1e-9:
            raise ValueError(f"fractions must be positive and add up to 1, not {self.fractions}")
        if not 0 < self.calibration_share < 1:
            raise ValueError(f"calibration_share must lie between 0 and 1, not {self.calibration_share}")


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Which patient belongs to which split.

    Attributes
    ----------
    members : for each of ``schema.SPLITS`` its patients, sorted
    seed : seed that drew them; None for a division that a user brought
    """

    members: dict[str, tuple[str, ...]]
    seed: int | None = None
    _split: dict[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        _refuse_leak(self.members)
        split = {patient: name for name, patients in self.members.items() for patient in patients}
        object.__setattr__(self, "_split", split)

    def __repr__(self) -> str:
        """Show counts, never identifiers."""
        counts = ", ".join(f"{name}={len(self.members[name])}" for name in SPLITS)
        return f"Splits({counts}, hash={self.hash[:8]})"

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the membership: what a normaliser was fitted on can be recognised by it."""
        canonical = json.dumps({name: sorted(self.members[name]) for name in SPLITS}, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def counts(self) -> dict[str, int]:
        """Patients in each split."""
        return {name: len(self.members[name]) for name in SPLITS}

    def split_of(self, patient_id: str) -> str:
        """Return the split of one patient.

        Raises
        ------
        ConfigError
            The patient is in no split: the division was drawn for another cohort.
        """
        try:
            return self._split[patient_id]
        except KeyError:
            raise ConfigError(
                "A patient of this cohort is in no split. Draw the splits anew for this cohort, or bring "
                "a split file that names every patient."
            ) from None

    def patients(self, *names: str) -> tuple[str, ...]:
        """Return the patients of the named splits together, sorted."""
        return tuple(sorted(patient for name in names for patient in self.members[name]))

    def save(self, path: Path) -> None:
        """Write as JSON, readable by the owner alone, since it names patients."""
        patients = {name: list(self.members[name]) for name in SPLITS}
        write_json(path, {"seed": self.seed, "hash": self.hash, "patients": patients})

    @classmethod
    def load(cls, path: Path) -> "Splits":
        """Read what ``save`` wrote, or a file a user brought: ``{"patients": {"train": [...], ...}}``.

        Raises
        ------
        ConfigError
            The file is no such JSON, or a split is missing.
        LeakError
            A patient is in two splits (ids that differ only in spelling count as one), or the membership is
            not the one that was stored.
        """
        content = _read(path)
        patients = content["patients"]
        splits = cls(
            members={name: tuple(sorted(str(p) for p in patients[name])) for name in SPLITS},
            seed=content.get("seed"),
        )
        if content.get("hash") not in (None, splits.hash):
            raise LeakError(
                f"The split file {path} was changed after it was drawn: its hash does not fit its "
                "patients. Draw it anew, or remove the hash to declare it your own division."
            )
        return splits


def split_subjects(patient_ids: Iterable[str], config: SplitConfig = SplitConfig()) -> Splits:
    """Divide patients by a hash of seed and id, so that neither order nor repetition of the ids matters.

    Raises
    ------
    ConfigError
        Fewer than four patients, so that a split would be empty.
    """
    patients = _shuffled(patient_ids, config.seed)
    if len(patients) < len(SPLITS):
        raise ConfigError(
            f"{len(patients)} patients cannot fill the {len(SPLITS)} splits {', '.join(SPLITS)}; at least "
            f"{len(SPLITS)} are needed."
        )
    test = max(1, round(len(patients) * config.fractions[2]))
    return _divided(patients[: len(patients) - test], patients[len(patients) - test :], len(patients), config)


def cross_validation_divisions(
    patient_ids: Iterable[str], folds: int, config: SplitConfig = SplitConfig()
) -> list[Splits]:
    """Divide patients once a fold, so that each is a test patient of exactly one division.

    Of the others validation and calibration get what they have of them in `config`. Neither order nor repetition of the
    ids matters. Source: our decision.

    Raises
    ------
    ConfigError
        Fewer than two folds, or too few patients for two test patients a fold and three others.
    """
    patients = _shuffled(patient_ids, config.seed)
    least = max(2 * folds, LEAST_FOLDS * LEAST_OTHERS)
    if folds < LEAST_FOLDS or len(patients) < least:
        raise ConfigError(
            f"folds = {folds} of {len(patients)} patients: at least {LEAST_FOLDS} folds, of two test patients each, "
            f"beside whom {LEAST_OTHERS} others fill the other splits. Ask for fewer folds, or bring more patients."
        )
    train, validation, _ = config.fractions
    divisions = []
    for fold in range(folds):
        test = patients[fold::folds]
        others = [patient for place, patient in enumerate(patients) if place % folds != fold]
        # As if the others were the cohort's share of them, so that the configured shares mean what they say.
        divisions.append(_divided(others, test, round(len(others) / (train + validation)), config))
    return divisions


def _shuffled(patient_ids: Iterable[str], seed: int) -> list[str]:
    """Return every patient once, in an order that a hash of seed and id decides."""
    return sorted(set(patient_ids), key=lambda p: hashlib.sha256(f"{seed}:{p}".encode()).digest())


def _divided(others: list[str], test: list[str], n: int, config: SplitConfig) -> Splits:
    """Divide `others`, of a cohort of `n`, so that every split has a patient; training takes what is left."""
    held = min(max(2, round(n * config.fractions[1])), len(others) - 1)
    calibration = min(held - 1, max(1, round(held * config.calibration_share)))
    validation = held - calibration
    train = len(others) - held
    members = {
        "train": others[:train], "validation": others[train : train + validation],
        "calibration": others[train + validation :], "test": test,
    }  # fmt: skip
    return Splits(members={name: tuple(sorted(members[name])) for name in SPLITS}, seed=config.seed)


def _read(path: Path) -> dict:
    try:
        content = json.loads(Path(path).read_text())
        complete = all(isinstance(content["patients"][name], list) for name in SPLITS)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        complete = False
        content = {}
    if not complete:
        raise ConfigError(
            f'The split file {path} is not JSON of the form {{"patients": {{...}}}} with a list for each of '
            f"{', '.join(SPLITS)}."
        )
    return content


def normal_id(patient_id: str) -> str:
    """Return one spelling of an id: `p010013`, `010013`, `10013` and `10013.0` are one patient."""
    plain = str(patient_id).strip().lower()
    number = re.fullmatch(r"p?0*(\d+)(?:\.0)?", plain)
    return number[1] if number else plain


def _refuse_leak(members: dict[str, tuple[str, ...]]) -> None:
    if set(members) != set(SPLITS):
        raise ConfigError(f"A division needs the splits {', '.join(SPLITS)}, not {', '.join(members)}.")
    seen: dict[str, str] = {}
    shared: set[str] = set()
    for name, patients in members.items():
        for patient in map(normal_id, patients):
            if seen.setdefault(patient, name) != name:
                shared.add(patient)
    if shared:
        raise LeakError(
            f"{len(shared)} patient(s) are in more than one split (ids that differ only in leading zeros "
            "or a p count as one). Each patient may be in one split only."
        )
