"""What is rehearsed, where it lies, and the claim on that folder."""

import dataclasses
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.emulation.cohort import EMULATED_LICENCE
from pipeline.emulation.model import EMULATED
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.artefact_notes import ArtefactNote
from pipeline.foundation.atomic import make_private_dir, write_json
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.provenance import config_hash
from pipeline.foundation.workspace import Workspace
from pipeline.sources.synthetic.plan import CohortSize

RECORD_FILE = "rehearsal.json"
MOST_SAMPLE_STEPS = 2_000_000
MOST_DAYS = 7.0


@dataclass(frozen=True, kw_only=True)
class RehearsalSize:
    """How large a rehearsal is; the defaults take a minute."""

    patients: int = 24
    """Planted patients (MIMIC-III's matched subset: 4146)."""
    days: float = 1.0
    """Recorded days of each, at most 7."""
    sample_steps: int = 200_000
    """Steps that training, validation and scoring run on, each; at most 2 million."""
    records: int = 20
    """Generated WFDB records for catalogue and planning (the matched subset: 22,000); 0: none."""
    files: int = 40
    """Files of each."""
    seed: int = 0
    """Of the planted patients and of the sample."""

    def __post_init__(self) -> None:
        bounds = {
            "patients": (8, 99_900), "days": (0.25, MOST_DAYS), "sample_steps": (1_000, MOST_SAMPLE_STEPS),
            "records": (0, 200_000), "files": (4, 1000), "seed": (0, 2**31),
        }  # fmt: skip
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} = {getattr(self, name)} must lie in {low}..{high}")


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """One rehearsal.

    Attributes
    ----------
    experiment : whose stages run
    size : how large
    base : the artefacts' folder; the rehearsal lies in ``rehearsal/`` below it and touches nothing else there
    emulator : folder of the encoder's emulator
    workers : processes that write
    """

    experiment: ExperimentConfig
    size: RehearsalSize
    base: Path
    emulator: Path
    workers: int = field(default=2, compare=False)

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.experiment.name}-{self.size.patients}x{self.size.days:g}"

    @property
    def root(self) -> Path:
        """Everything of it."""
        return self.base / "rehearsal" / self.name

    @property
    def workspace(self) -> Workspace:
        """Where the stages read and write; the user's own folders play no part."""
        return Workspace(root=self.root)

    @property
    def staged(self) -> ExperimentConfig:
        """The experiment as its stages run: with its planted cohort, and its encoder called emulated."""
        hours = self.size.days * 24
        cohort = dataclasses.replace(
            self.experiment.cohort,
            size=CohortSize(n_patients=self.size.patients, hours_low=hours, hours_high=hours),
            seed=self.size.seed,
        )
        return dataclasses.replace(
            self.experiment, cohort=cohort, encoder=f"{EMULATED}{self.experiment.encoder}"
        )

    def note(self, stage: str) -> ArtefactNote:
        """Return the note of what is no stage's artefact: it is made of the rehearsal's size alone."""
        return ArtefactNote.of(
            f"rehearsal: {stage}", config=self.size, inputs={"experiment": config_hash(self.staged)},
            licences=[EMULATED_LICENCE],
        )  # fmt: skip

    @property
    def generated_records(self) -> Path:
        """Folder of the generated WFDB headers."""
        return self.root / "generated_records"

    def row_file(self, stage: str) -> Path:
        """Where a finished stage's measurements lie."""
        return self.root / "measured" / f"{stage}.json"

    def claim(self, emulator_identity: str) -> None:
        """Mark the folder as this rehearsal's.

        Raises
        ------
        ConfigError
            The folder holds another rehearsal, or something else.
        """
        identity = self._identity(emulator_identity)
        found = read_record(self.root)
        if found is None:
            if self.root.exists() and any(self.root.iterdir()):
                raise ConfigError(
                    f"{self.root} is no rehearsal's folder: move it away, or choose --artifacts"
                )
            write_json(make_private_dir(self.root) / RECORD_FILE, identity)
        elif found != identity:
            differing = sorted(k for k in identity.keys() | found.keys() if identity.get(k) != found.get(k))
            raise ConfigError(
                f"{self.root} holds a rehearsal with another {', '.join(differing)}: remove it first with "
                f"python -m pipeline rehearse --experiment {self.experiment.name} --patients "
                f"{self.size.patients} --days {self.size.days:g} --clean"
            )

    def clean(self) -> bool:
        """Remove the rehearsal's folder; return whether there was one.

        Raises
        ------
        ConfigError
            The folder is no rehearsal's.
        """
        if not self.root.exists():
            return False
        if read_record(self.root) is None:
            raise ConfigError(f"{self.root} is no rehearsal's folder ({RECORD_FILE} is missing): not removed")
        shutil.rmtree(self.root)
        shutil.rmtree(self.root.with_name(f"{self.root.name}.staging"), ignore_errors=True)
        return True

    def _identity(self, emulator_identity: str) -> dict[str, Any]:
        size = {name: getattr(self.size, name) for name in ("patients", "days", "sample_steps", "seed")}
        generated = {name: getattr(self.size, name) for name in ("records", "files")}
        configuration = config_hash(self.experiment)[:16]
        return {**size, **generated, "configuration": configuration, "emulator": emulator_identity[:16]}


def read_record(root: Path) -> dict[str, Any] | None:
    """Return what a rehearsal's folder says of itself; None where it is none."""
    path = root / RECORD_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
