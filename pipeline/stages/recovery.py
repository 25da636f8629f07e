"""The recovery experiment: write cohorts, embed them once, train and score under every condition, resumable.

The waveforms of a cohort do not depend on the coupling, so one store serves all couplings; cohorts of other
sizes are parts of the training patients, judged on the same test patients.
"""

import dataclasses
import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.alignment import align
from pipeline.cohort.normalization import fit_lab_scaler
from pipeline.cohort.sequences import cut_sequences
from pipeline.cohort.splits import Splits, split_subjects
from pipeline.embedding.progress import log_progress
from pipeline.embedding.run import embed
from pipeline.evaluation.recovery import CONDITIONS, LEARNED, ORACLE, Condition, recovery_rows, recovery_text
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.artefact_notes import add_licences
from pipeline.foundation.atomic import make_private_dir, write_json, write_parquet, write_text
from pipeline.foundation.provenance import config_hash, to_plain
from pipeline.labs.carry_forward import fit_carry_forward
from pipeline.labs.cleaning import LabEvents, clean_labs
from pipeline.prediction.scoring import score, score_estimator
from pipeline.sources.mimic3 import Mimic3Tables, Mimic3Waveforms
from pipeline.sources.synthetic.cohort import write_cohort
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.truth import CohortTruth, oracle_estimates
from pipeline.stages.embed import encoding_config, experiment_encoder
from pipeline.stages.encoder_patients import refuse_division
from pipeline.stages.ingest import COHORT_LICENCE
from pipeline.stages.provenance import noted_as
from pipeline.store.embeddings import EmbeddingStore
from pipeline.training.method import train

logger = logging.getLogger(__name__)

TEST = ("test",)


@dataclass(frozen=True, kw_only=True)
class _Cohort:
    """One cohort, read, aligned and with its truth."""

    aligned: AlignedCohort
    store: EmbeddingStore
    events: LabEvents
    splits: Splits
    truth: CohortTruth


@noted_as("recovery")
def run_recovery(
    experiment: ExperimentConfig, root: Path, conditions: Sequence[Condition] = CONDITIONS
) -> pd.DataFrame:
    """Run what is missing of `conditions` and write ``recovery.parquet`` and ``recovery.txt`` into `root`.

    Returns
    -------
    ``condition, coupling, train_patients`` and the columns of ``recovery.recovery_rows``.
    """
    make_private_dir(root)
    add_licences([COHORT_LICENCE])
    tables = []
    for condition in conditions:
        identity = config_hash({"experiment": to_plain(experiment), "condition": to_plain(condition)})[:12]
        folder = root / "conditions" / identity
        if not (folder / "rows.parquet").exists():
            logger.info("recovery: %s", condition.name)
            _run_condition(experiment, condition, root, folder)
        tables.append(pd.read_parquet(folder / "rows.parquet"))
        table = pd.concat(tables, ignore_index=True)
        write_parquet(root / "recovery.parquet", table)
        write_text(root / "recovery.txt", recovery_text(table))
    return pd.concat(tables, ignore_index=True)


def _run_condition(experiment: ExperimentConfig, condition: Condition, root: Path, folder: Path) -> None:
    cohort = _cohort(experiment, condition, root)
    scaler = fit_lab_scaler(cohort.events.frame, cohort.splits, experiment.scaler)
    for method in LEARNED:
        logger.info("recovery: %s, training %s", condition.name, method)
        train(
            method, cohort.aligned, cohort.store, scaler, cohort.splits, dataclasses.asdict(experiment.model),
            experiment.training, folder / method, experiment=to_plain(experiment),
        )  # fmt: skip
    rows = recovery_rows(_predictions(cohort, folder), experiment.evaluation)
    table = pd.DataFrame(rows)
    table.insert(0, "condition", condition.name)
    table.insert(1, "coupling", condition.coupling)
    table.insert(2, "train_patients", cohort.splits.counts["train"])
    write_json(
        folder / "condition.json", {"condition": to_plain(condition), "experiment": to_plain(experiment)}
    )
    write_parquet(folder / "rows.parquet", table)


def _predictions(cohort: _Cohort, folder: Path) -> pd.DataFrame:
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
        for method in LEARNED
    ]
    return pd.concat(tables, ignore_index=True)


def _cohort(experiment: ExperimentConfig, condition: Condition, root: Path) -> _Cohort:
    kind = "nothing_to_know" if condition.null == "b" else "planted"
    where = root / f"{kind}_{condition.coupling:g}"
    size = experiment.cohort.size
    size = dataclasses.replace(size, n_patients=max(1, round(condition.cohort_share * size.n_patients)))
    write_cohort(
        CohortParameters.load(), size, where, coupling=condition.coupling,
        null=condition.null, seed=experiment.cohort.seed, workers=min(2, os.cpu_count() or 1),
    )  # fmt: skip
    source = Mimic3Waveforms(where / "waveforms")
    patients = sorted({record.patient_id for record in source.catalog().records})
    splits = split_subjects(patients, experiment.splits)
    refuse_division(experiment, splits)
    store = EmbeddingStore.open(root / f"embeddings_{kind}", create=True)
    encoder = experiment_encoder(experiment)
    embed(source, store, encoder, encoding_config(experiment, encoder), progress=log_progress())
    tables = Mimic3Tables(where / "clinical").tables()
    events = clean_labs(tables, experiment.labs)
    sequences = cut_sequences(
        store, [p for p in patients if p in store], tables.admissions, experiment.sequences
    )
    return _Cohort(
        aligned=align(sequences, events, store, experiment.alignment), store=store, events=events,
        splits=reduced(splits, condition.train_share), truth=CohortTruth.load(where),
    )  # fmt: skip


def reduced(splits: Splits, train_share: float) -> Splits:
    """Keep a share of the training patients (the smaller share is a part of the larger one).

    The others count as calibration patients, whom nothing here reads.
    """
    ordered = sorted(splits.patients("train"), key=lambda p: hashlib.sha256(f"part:{p}".encode()).digest())
    kept = ordered[: max(1, round(train_share * len(ordered)))]
    aside = {*splits.patients("calibration"), *ordered} - set(kept)
    members = splits.members | {"train": tuple(sorted(kept)), "calibration": tuple(sorted(aside))}
    return Splits(members=members, seed=splits.seed)
