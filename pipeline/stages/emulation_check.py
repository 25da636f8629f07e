"""Does a method do as well on emulated embeddings as on rendered ones? Source: our decision (docs/rehearsal.md).

One planted cohort is rendered and embedded, then emulated at the very windows that were usable; MT+PCS and its twin are
trained on both and judged on the same draws of the same patients. Resumable: what is finished is kept.
"""

import dataclasses
import logging
from pathlib import Path

import pandas as pd

from pipeline.emulation.fit import emulator_key
from pipeline.emulation.model import Emulator
from pipeline.emulation.same_windows import SameWindows
from pipeline.evaluation.recovery import MODEL, TWIN
from pipeline.evaluation.recovery_conditions import Condition
from pipeline.evaluation.scale_study import EncoderCost, StudiedEncoder, scale_rows
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.artefact_notes import ArtefactNote, noted
from pipeline.foundation.atomic import require_writable, write_parquet, write_text
from pipeline.foundation.provenance import config_hash, to_plain
from pipeline.report.emulation_text import EMULATED_TOO, RENDERED, emulation_text
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.plan import CohortPlan
from pipeline.stages.embed import experiment_encoder
from pipeline.stages.encoder_files import plain_experiment
from pipeline.stages.ingest import COHORT_LICENCE
from pipeline.stages.planted_cohort import EmbeddedCohort, embedded_cohort
from pipeline.stages.recovery import trained_predictions
from pipeline.stages.scale_study import ScaleStudy
from pipeline.store.embeddings import EmbeddingStore

logger = logging.getLogger(__name__)

_PLANTED = Condition(name="coupling 1", coupling=1.0)


def run_emulation_check(
    base: ExperimentConfig, root: Path, study: ScaleStudy, emulator_folder: Path, *, fit: str
) -> str:
    """Run what is missing, write ``emulator_check.parquet`` and ``.txt`` into `root`, and return the text.

    Parameters
    ----------
    study : cohort and method; its only encoder is the emulator's
    fit : the command that fits the emulator, for messages

    Raises
    ------
    ConfigError : an encoder that there is not, before any work
    MissingArtifactError, CheckpointError : no emulator there, or another encoder's, likewise
    """
    require_writable(root / "emulator_check.txt")
    (name,) = study.encoders
    experiment = study.experiment(base, name)
    encoder = experiment_encoder(experiment)
    emulator = Emulator.load(emulator_folder, emulator_key(encoder, experiment.window), fit=fit)
    inputs = {"cohort parameters": CohortParameters.load().sha256, "emulator": emulator.identity}
    config = plain_experiment(experiment)
    with noted(ArtefactNote.of("emulator_check", config=config, inputs=inputs, licences=[COHORT_LICENCE])):
        found = _run(experiment, root, encoder.weights_hash, emulator)
        table = scale_rows(found, base.evaluation)
        write_parquet(root / "emulator_check.parquet", table)
        text = emulation_text(table, f"{name}; {study.words}")
        write_text(root / "emulator_check.txt", text)
    return text


def _run(
    experiment: ExperimentConfig, root: Path, weights_hash: str, emulator: Emulator
) -> dict[str, StudiedEncoder]:
    where = root / f"cohort_{config_hash(to_plain(experiment.cohort))[:12]}"
    stores = root / "stores" / where.name
    runs = root / "runs" / config_hash([to_plain(experiment), emulator.identity])[:12]
    rendered = embedded_cohort(experiment, _PLANTED, where, stores / weights_hash[:12])
    emulated = _emulated(experiment, rendered, emulator, where, stores / emulator.identity[:12])
    return {
        kind: _studied(experiment, cohort, runs / kind)
        for kind, cohort in ((RENDERED, rendered), (EMULATED_TOO, emulated))
    }


def _emulated(
    experiment: ExperimentConfig, rendered: EmbeddedCohort, emulator: Emulator, where: Path, store: Path
) -> EmbeddedCohort:
    """Return the same cohort over emulated embeddings; sequences and draws depend on times alone and stay."""
    cohort = experiment.cohort
    plan = CohortPlan(
        parameters=CohortParameters.load(), size=cohort.size, root=where, coupling=_PLANTED.coupling, null=None,
        seed=cohort.seed, real_labs=None,
    )  # fmt: skip
    emulated = EmbeddingStore.open(store, create=True)
    windows = SameWindows(plan=plan, rendered=rendered.store, emulated=emulated, emulator=emulator).write()
    logger.info("emulator check: %d windows emulated", windows)
    return dataclasses.replace(rendered, store=emulated)


def _studied(experiment: ExperimentConfig, cohort: EmbeddedCohort, folder: Path) -> StudiedEncoder:
    file = folder / "predictions.parquet"
    if not file.exists():
        write_parquet(file, trained_predictions(experiment, cohort, folder, (MODEL, TWIN)))
    encoding = cohort.store.read(next(iter(cohort.aligned.sequences["patient_id"])))
    cost = EncoderCost(width=encoding.width, windows=0, seconds=0.0, cohort_windows=cohort.embedding.windows)
    return StudiedEncoder(
        predictions=pd.read_parquet(file), cost=cost, train_patients=cohort.splits.counts["train"]
    )
