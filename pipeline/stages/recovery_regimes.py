"""The two regimes of the recovery experiment: which cohort stands behind a condition, and the recipe of its trainings.

``short``: many patients of hours, every waveform kept. ``long``: patients of days with rendered waveforms, which are
deleted as soon as they are embedded, and many patients of a week with emulated embeddings.
"""

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.emulation.model import EMULATED, Emulator
from pipeline.evaluation.recovery_conditions import Condition
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.provenance import config_hash, to_plain
from pipeline.sources.synthetic.plan import CohortSize
from pipeline.stages.embed import experiment_encoder
from pipeline.stages.planted_cohort import EmbeddedCohort, checked_emulator, divided, embedded_cohort
from pipeline.training.config import TrainingConfig

MOST_STEPS = {"rendered": 300_000, "emulated": 600_000}
"""Steps of 30 s that an epoch on recordings of days learns from: what three hours on two cores allow, and what it costs
stands in docs/recovery.md. A week is as long as two or three recordings: twice the steps make as many batches."""
FEW_PIECES = 1
"""Pieces in a batch where epochs are cut to `MOST_STEPS`: recordings are long, and few of them make an epoch."""


@dataclass(frozen=True, kw_only=True)
class LongCohorts:
    """Sizes of the cohorts of the regime ``long``."""

    rendered: CohortSize = field(
        default_factory=lambda: CohortSize(n_patients=160, hours_low=48.0, hours_high=96.0)
    )
    """With waveforms."""
    emulated: CohortSize = field(
        default_factory=lambda: CohortSize(n_patients=1000, hours_low=168.0, hours_high=168.0)
    )
    """With embeddings that the encoder's emulator draws."""


class Regime(ABC):
    """Cohorts and recipes of one regime, in the folder `root`."""

    def __init__(self, experiment: ExperimentConfig, root: Path) -> None:
        self.base, self.root = experiment, root

    @abstractmethod
    def experiment(self, condition: Condition) -> ExperimentConfig:
        """Return the whole configuration of a condition's cohort and methods."""

    @abstractmethod
    def cohort(self, condition: Condition, *, written: bool = False) -> EmbeddedCohort:
        """Write and embed what is missing of a condition's cohort, and read it; `written`: read it alone."""

    def train_patients(self, condition: Condition) -> int:
        """Return how many patients a condition trains on, before any of them is made."""
        return divided(self.experiment(condition), condition).counts["train"]

    def embeddings(self, condition: Condition) -> str:
        """Return the hash of what makes a condition's embeddings."""
        del condition
        return experiment_encoder(self.base).weights_hash

    def most_steps(self, condition: Condition) -> int | None:
        """Return how many steps an epoch learns from at most; None: from all."""
        del condition
        return None

    def recipe(self, condition: Condition, cohort: EmbeddedCohort) -> TrainingConfig:
        """Return how networks are trained on a condition's cohort."""
        most = self.most_steps(condition)
        return self.base.training if most is None else within_steps(self.base.training, cohort, most)


class ShortRegime(Regime):
    """The experiment's own cohort; its waveforms do not depend on the coupling, so one store serves all couplings."""

    def experiment(self, condition: Condition) -> ExperimentConfig:
        """Return the experiment as it is."""
        del condition
        return self.base

    def cohort(self, condition: Condition, *, written: bool = False) -> EmbeddedCohort:
        """Write and embed what is missing; null B has waveforms of its own."""
        kind = "nothing_to_know" if condition.null == "b" else "planted"
        where = self.root / f"{kind}_{condition.coupling:g}"
        store = self.root / f"embeddings_{kind}"
        return embedded_cohort(self.base, condition, where, store, written=written)


class LongRegime(Regime):
    """Recordings of days: rendered ones, and emulated ones of a week.

    Raises
    ------
    MissingArtifactError, CheckpointError : `emulates`, and the encoder has no emulator; before any work
    """

    def __init__(
        self, experiment: ExperimentConfig, root: Path, cohorts: LongCohorts, *, emulates: bool
    ) -> None:
        super().__init__(experiment, root)
        self.cohorts = cohorts
        self._emulator: Emulator | None = None
        if emulates:
            named = dataclasses.replace(experiment, encoder=f"{EMULATED}{experiment.encoder}")
            self._emulator = checked_emulator(named, root.parent)

    def experiment(self, condition: Condition) -> ExperimentConfig:
        """Return the experiment with the condition's cohort and encoder."""
        size = self.cohorts.emulated if condition.emulated else self.cohorts.rendered
        return dataclasses.replace(
            self.base,
            cohort=dataclasses.replace(self.base.cohort, size=size, coupling=condition.coupling),
            encoder=f"{EMULATED}{self.base.encoder}" if condition.emulated else self.base.encoder,
        )

    def embeddings(self, condition: Condition) -> str:
        """Return the encoder's weights, or all that its emulator draws from."""
        if not condition.emulated:
            return super().embeddings(condition)
        assert self._emulator is not None
        return self._emulator.identity

    def cohort(self, condition: Condition, *, written: bool = False) -> EmbeddedCohort:
        """Write and embed what is missing: couplings of one size and seed share their embeddings."""
        experiment = self.experiment(condition)
        shared = {"cohort": to_plain(dataclasses.replace(experiment.cohort, coupling=1.0)),
                  "embeddings": self.embeddings(condition)}  # fmt: skip
        kind = "emulated" if condition.emulated else "rendered"
        folder = self.root / f"{kind}_{config_hash(shared)[:12]}"
        return embedded_cohort(
            experiment, condition, folder / f"coupling_{condition.coupling:g}", folder / "store",
            self._emulator if condition.emulated else None, keep_waveforms=False, written=written,
        )  # fmt: skip

    def most_steps(self, condition: Condition) -> int | None:
        """Return the `MOST_STEPS` of the condition's kind of cohort."""
        return MOST_STEPS["emulated" if condition.emulated else "rendered"]


def within_steps(training: TrainingConfig, cohort: EmbeddedCohort, most: int) -> TrainingConfig:
    """Return the recipe with epochs of about `most` steps where one pass would be more.

    Pieces stay whole. An epoch then draws as many batches of `FEW_PIECES` as make `most` steps on average, half of
    them of each protocol, other ones every epoch.
    """
    pieces = cohort.aligned.pieces
    pieces = pieces.loc[pieces["patient_id"].isin(cohort.splits.patients("train"))]
    of_protocol = pieces.groupby("protocol")["n_steps"]
    counts, means = of_protocol.count(), of_protocol.mean()
    wanted = [protocol for protocol in training.protocols if protocol in counts.index]
    if not wanted:
        return training
    steps = sum(float(means[protocol]) for protocol in wanted)  # of one piece of each protocol
    fewest = min(-(-int(counts[protocol]) // training.batch_pieces) for protocol in wanted)
    if steps * fewest * training.batch_pieces <= most:
        return training
    return dataclasses.replace(
        training, batch_pieces=FEW_PIECES, batches_per_epoch=max(1, int(most / (FEW_PIECES * steps)))
    )
