"""Does a method do as well on emulated embeddings as on rendered ones? Source: our decision (docs/rehearsal.md).

One planted cohort is rendered and embedded, then emulated at the very windows that were usable; lines (or MT+PCS) are
fitted to both and judged on the same draws of the same patients, under several divisions into training and test
patients. Beside it, latents are read from both by lines through running means. Resumable: what is finished is kept.
"""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.cohort.splits import split_subjects
from pipeline.emulation.fit import emulator_key
from pipeline.emulation.model import Emulator
from pipeline.emulation.running_means import compare_running_means
from pipeline.emulation.same_windows import SameWindows
from pipeline.evaluation.emulation import DivisionPredictions, emulation_rows
from pipeline.evaluation.recovery import MODEL
from pipeline.evaluation.recovery_conditions import Condition
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.artefact_notes import ArtefactNote, noted
from pipeline.foundation.atomic import require_writable, write_parquet, write_text
from pipeline.foundation.number_format import counted
from pipeline.foundation.provenance import config_hash, to_plain
from pipeline.report.emulation_text import emulation_text
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.plan import CohortPlan
from pipeline.stages.embed import experiment_encoder
from pipeline.stages.encoder_files import plain_experiment
from pipeline.stages.encoder_patients import refuse_division
from pipeline.stages.ingest import COHORT_LICENCE
from pipeline.stages.planted_cohort import EmbeddedCohort, embedded_cohort
from pipeline.stages.recovery import trained_predictions
from pipeline.stages.scale_study import ScaleStudy
from pipeline.store.embeddings import EmbeddingStore

logger = logging.getLogger(__name__)

_PLANTED = Condition(name="coupling 1", coupling=1.0)


@dataclass(frozen=True, kw_only=True)
class EmulationCheck:
    """What is compared, on whom, by which method and how often."""

    study: ScaleStudy
    """Cohort and method; its only encoder is the emulator's."""
    divisions: int = 5
    """Divisions into training and test patients: the experiment's split by its seed and the next ones."""
    draws: int = 2
    """Draws of the emulator."""

    def __post_init__(self) -> None:
        for name in ("divisions", "draws"):
            if not 1 <= getattr(self, name) <= 100:
                raise ValueError(f"{name} = {getattr(self, name)} must lie in 1..100")

    @property
    def words(self) -> str:
        """The check in one sentence."""
        size = f"{counted(self.divisions, 'divisions')}, {counted(self.draws, 'draws')}"
        return f"{self.study.encoders[0]}; {self.study.words}; {size}"


def run_emulation_check(
    base: ExperimentConfig, root: Path, check: EmulationCheck, emulator_folder: Path, *, fit: str
) -> str:
    """Run what is missing, write ``emulator_check.txt`` and two tables into `root`, and return the text.

    Parameters
    ----------
    fit : the command that fits the emulator, for messages

    Raises
    ------
    ConfigError : an encoder that there is not, before any work
    MissingArtifactError, CheckpointError : no emulator there, or another encoder's, likewise
    """
    require_writable(root / "emulator_check.txt")
    (name,) = check.study.encoders
    experiment = check.study.experiment(base, name)
    encoder = experiment_encoder(experiment)
    emulator = Emulator.load(emulator_folder, emulator_key(encoder, experiment.window), fit=fit)
    inputs = {"cohort parameters": CohortParameters.load().sha256, "emulator": emulator.identity}
    config = {**plain_experiment(experiment), "divisions": check.divisions, "draws": check.draws}
    with noted(ArtefactNote.of("emulator_check", config=config, inputs=inputs, licences=[COHORT_LICENCE])):
        pair = _Pair.made(experiment, root, encoder.weights_hash, emulator, check.draws)
        rows = compare_running_means(pair.plan, pair.rendered.store, [one.store for one in pair.emulated])
        readouts = pd.DataFrame([vars(row) for row in rows])
        write_parquet(root / "emulator_check_readouts.parquet", readouts)
        judged = [pair.division(experiment, number) for number in range(check.divisions)]
        table = emulation_rows(judged, MODEL, base.evaluation)
        write_parquet(root / "emulator_check.parquet", table)
        text = emulation_text(table, readouts, check.words, method=check.study.method)
        write_text(root / "emulator_check.txt", text)
    return text


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """One cohort over rendered embeddings and over each draw of emulated ones.

    Attributes
    ----------
    runs : folder of each one's trainings
    """

    plan: CohortPlan
    rendered: EmbeddedCohort
    emulated: Sequence[EmbeddedCohort]
    runs: Sequence[Path]

    @classmethod
    def made(
        cls, experiment: ExperimentConfig, root: Path, weights_hash: str, emulator: Emulator, draws: int
    ) -> "_Pair":
        """Render, embed and emulate what is missing; sequences and draws depend on times alone and are shared."""
        cohort = experiment.cohort
        where = root / f"cohort_{config_hash(to_plain(cohort))[:12]}"
        plan = CohortPlan(
            parameters=CohortParameters.load(), size=cohort.size, root=where, coupling=_PLANTED.coupling, null=None,
            seed=cohort.seed, real_labs=None,
        )  # fmt: skip
        kinds = [weights_hash[:12], *(_named(emulator, draw) for draw in range(draws))]
        stores, runs = (root / folder / where.name for folder in ("stores", "runs"))
        rendered = embedded_cohort(experiment, _PLANTED, where, stores / kinds[0])
        emulated = []
        for draw, kind in enumerate(kinds[1:]):
            store = EmbeddingStore.open(stores / kind, create=True)
            same = SameWindows(
                plan=plan, rendered=rendered.store, emulated=store, emulator=emulator, draw=draw
            )
            logger.info("emulator check: %d windows emulated, draw %d", same.write(), draw + 1)
            emulated.append(dataclasses.replace(rendered, store=store))
        return cls(plan=plan, rendered=rendered, emulated=emulated, runs=[runs / kind for kind in kinds])

    def division(self, experiment: ExperimentConfig, number: int) -> DivisionPredictions:
        """Train under one division, or take what is there, and return the predictions of its test patients."""
        splits = dataclasses.replace(experiment.splits, seed=experiment.splits.seed + number)
        divided = dataclasses.replace(experiment, splits=splits)
        logger.info("emulator check: division %d", number + 1)
        cohorts = (self.rendered, *self.emulated)
        rendered, *emulated = (
            _predictions(divided, cohort, runs) for cohort, runs in zip(cohorts, self.runs, strict=True)
        )
        return DivisionPredictions(rendered=rendered, emulated=tuple(emulated))


def _named(emulator: Emulator, draw: int) -> str:
    return f"{emulator.identity[:12]}{f'-{draw}' if draw else ''}"


def _predictions(experiment: ExperimentConfig, cohort: EmbeddedCohort, runs: Path) -> pd.DataFrame:
    folder = runs / config_hash(to_plain(experiment))[:12]
    file = folder / "predictions.parquet"
    if not file.exists():
        everyone = cohort.splits.patients(*cohort.splits.members)
        splits = split_subjects(sorted(everyone), experiment.splits)
        refuse_division(experiment, splits)
        ours = dataclasses.replace(cohort, splits=splits)
        write_parquet(file, trained_predictions(experiment, ours, folder, (MODEL,)))
    return pd.read_parquet(file)
