"""The recovery experiment: write cohorts, embed them once, train and score under every condition, resumable.

The waveforms of a cohort do not depend on the coupling, so one store serves all couplings; cohorts of other
sizes are parts of the training patients, judged on the same test patients.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.cohort.normalization import fit_lab_scaler
from pipeline.evaluation.recovery import CONDITIONS, LEARNED, ORACLE, Condition, recovery_rows
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.artefact_notes import ArtefactNote, noted
from pipeline.foundation.atomic import require_writable, write_json, write_parquet, write_text
from pipeline.foundation.provenance import config_hash, to_plain
from pipeline.labs.carry_forward import fit_carry_forward
from pipeline.prediction.scoring import score, score_estimator
from pipeline.report.recovery_text import recovery_text
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.truth import oracle_estimates
from pipeline.stages.embed import experiment_encoder
from pipeline.stages.encoder_files import plain_experiment
from pipeline.stages.ingest import COHORT_LICENCE
from pipeline.stages.planted_cohort import EmbeddedCohort, embedded_cohort
from pipeline.training.method import train

logger = logging.getLogger(__name__)

TEST = ("test",)


def run_recovery(
    experiment: ExperimentConfig, root: Path, conditions: Sequence[Condition] = CONDITIONS
) -> pd.DataFrame:
    """Run what is missing of `conditions` and write ``recovery.parquet`` and ``recovery.txt`` into `root`.

    Returns
    -------
    ``condition, coupling, train_patients`` and the columns of ``recovery.recovery_rows``.
    """
    require_writable(root / "recovery.txt")
    tables = []
    for number, condition in enumerate(conditions, start=1):
        described = {"experiment": to_plain(experiment), "condition": to_plain(condition)}
        folder = root / "conditions" / config_hash(described)[:12]
        if not (folder / "rows.parquet").exists():
            logger.info("recovery: %s", condition.name)
            with _noted(experiment, described):
                _run_condition(experiment, condition, root, folder)
        tables.append(pd.read_parquet(folder / "rows.parquet"))
        table = pd.concat(tables, ignore_index=True)
        with _noted(experiment, {"experiment": experiment, "conditions": conditions[:number]}):
            write_parquet(root / "recovery.parquet", table)
        write_text(root / "recovery.txt", recovery_text(table))
    return pd.concat(tables, ignore_index=True)


def _noted(experiment: ExperimentConfig, config: Mapping[str, Any]) -> AbstractContextManager[ArtefactNote]:
    """Open the note of what is made of a configuration, this encoder and the cohort's parameters alone."""
    inputs = {
        "cohort parameters": CohortParameters.load().sha256,
        "encoder": experiment_encoder(experiment).weights_hash,
    }
    return noted(ArtefactNote.of("recovery", config=config, inputs=inputs, licences=[COHORT_LICENCE]))


def _run_condition(experiment: ExperimentConfig, condition: Condition, root: Path, folder: Path) -> None:
    kind = "nothing_to_know" if condition.null == "b" else "planted"
    where = root / f"{kind}_{condition.coupling:g}"
    cohort = embedded_cohort(experiment, condition, where, root / f"embeddings_{kind}")
    predictions = trained_predictions(experiment, cohort, folder, LEARNED)
    rows = recovery_rows(predictions, experiment.evaluation)
    table = pd.DataFrame(rows)
    table.insert(0, "condition", condition.name)
    table.insert(1, "coupling", condition.coupling)
    table.insert(2, "train_patients", cohort.splits.counts["train"])
    write_json(
        folder / "condition.json",
        {"condition": to_plain(condition), "experiment": plain_experiment(experiment)},
    )
    write_parquet(folder / "rows.parquet", table)


def trained_predictions(
    experiment: ExperimentConfig, cohort: EmbeddedCohort, folder: Path, methods: Sequence[str]
) -> pd.DataFrame:
    """Train `methods` into `folder`, or go on there, and score them beside LOCF and the oracle on test patients."""
    scaler = fit_lab_scaler(cohort.events.frame, cohort.splits, experiment.scaler)
    for method in methods:
        logger.info("recovery: training %s", method)
        shape = dataclasses.asdict(experiment.shape_of(method))
        train(
            method, cohort.aligned, cohort.store, scaler, cohort.splits, shape, experiment.training, folder / method,
            experiment=plain_experiment(experiment),
        )  # fmt: skip
    of_training = cohort.aligned.examples["patient_id"].isin(cohort.splits.patients("train"))
    fitted = fit_carry_forward(cohort.aligned.examples.loc[of_training])
    estimators = {name: fitted[name].estimate for name in ("locf", "shrunk_locf")}
    estimators[ORACLE] = lambda examples: oracle_estimates(cohort.truth, examples)
    tables = [
        score_estimator(name, estimate, cohort.aligned, cohort.splits, splits_to_score=TEST)
        for name, estimate in estimators.items()
    ]
    tables += [
        score(folder / method, cohort.aligned, cohort.store, cohort.splits, splits_to_score=TEST)
        for method in methods
    ]
    return pd.concat(tables, ignore_index=True)
