"""Stages of a rehearsal that plan training at full size, and train, validate and score a sample of it."""

import dataclasses
import json
import shutil
import time

from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.normalization import LabScaler
from pipeline.cohort.splits import Splits
from pipeline.foundation.schema import LAB_NAMES
from pipeline.rehearsal.measure import Outcome
from pipeline.rehearsal.plan import Rehearsal
from pipeline.rehearsal.sample import epoch_steps, one_epoch, part_of, sampled_patients, scored_steps
from pipeline.stages.encoder_files import plain_experiment
from pipeline.stages.lineage import training_stage
from pipeline.stages.provenance import recording
from pipeline.store.embeddings import EmbeddingStore

METHOD = "mt_pcs"
_PLAN, _SAMPLE = "epoch_plan.json", "sample.json"
SCORED = ("validation", "calibration", "test")


def _cohort(rehearsal: Rehearsal) -> tuple[AlignedCohort, Splits, LabScaler]:
    workspace = rehearsal.workspace
    scaler = LabScaler.from_json(json.loads(workspace.scaler.read_text()))
    return AlignedCohort.load(workspace.aligned), Splits.load(workspace.splits), scaler


def plan_training(rehearsal: Rehearsal) -> Outcome:
    """Build the pieces of all training patients with their target weights, and plan one epoch."""
    from pipeline.foundation.atomic import write_json
    from pipeline.training.batches import PieceSource

    aligned, splits, scaler = _cohort(rehearsal)
    config = rehearsal.experiment.training
    source = PieceSource(
        aligned, EmbeddingStore.open(rehearsal.workspace.store), scaler, patients=splits.patients("train"),
        protocols=config.protocols, labs=LAB_NAMES, twin=False, seed=config.seed,
    )  # fmt: skip
    steps = epoch_steps(source, config)
    counts = source.counts()
    write_json(rehearsal.root / _PLAN, {"epoch_steps": steps})
    return Outcome(
        counts={
            "pieces": counts["pieces"], "steps_an_epoch": steps, "measured_targets": counts["targets_measured"],
            "interpolated_targets": counts["targets_interpolated"],
        }
    )  # fmt: skip


def train_sample(rehearsal: Rehearsal) -> Outcome:
    """Train one epoch on a sample; the validation that ends it is the next stage's to report.

    What counts is the time of the batches alone, as the run itself measures it: neither validation nor saving.
    """
    from pipeline.foundation.atomic import write_json
    from pipeline.training.batches import PieceSource
    from pipeline.training.method import train

    aligned, splits, scaler = _cohort(rehearsal)
    size, workspace = rehearsal.size, rehearsal.workspace
    config = one_epoch(rehearsal.experiment.training, rehearsal.experiment.seeds[0])
    training = sampled_patients(aligned, splits.patients("train"), size.sample_steps, size.seed)
    validation = sampled_patients(aligned, splits.patients("validation"), size.sample_steps // 2, size.seed)
    part = part_of(aligned, [*training, *validation])
    store = EmbeddingStore.open(workspace.store)
    folder = workspace.checkpoint(METHOD, config.seed)
    shutil.rmtree(
        folder, ignore_errors=True
    )  # of a killed rehearsal: a run that goes on tells no epoch's time
    sampled = dataclasses.replace(rehearsal.staged, training=config)
    with recording(workspace, sampled, training_stage(METHOD)):
        result = train(
            METHOD, part, store, scaler, splits, dataclasses.asdict(rehearsal.experiment.shape_of(METHOD)), config,
            folder, experiment=plain_experiment(sampled), provenance={"source": "rehearsal on planted patients"},
        )  # fmt: skip
    source = PieceSource(
        part, store, scaler, patients=training, protocols=config.protocols, labs=LAB_NAMES, twin=False,
        seed=config.seed,
    )  # fmt: skip
    steps = epoch_steps(source, config)
    (times,) = result.epochs
    seconds = float(times["training_seconds"])
    checked = scored_steps(part, validation, config.protocols)
    write_json(
        rehearsal.root / _SAMPLE,
        {"validation_seconds": times["validation_seconds"], "validation_steps": checked},
    )
    epoch = json.loads((rehearsal.root / _PLAN).read_text())["epoch_steps"]
    whole = epoch / steps * seconds
    return Outcome(
        seconds=seconds,
        counts={
            "patients": len(training),
            "steps": steps,
            "steps_per_second": round(steps / seconds, 1),
            "saving_seconds": round(times["saving_seconds"], 3),
        },
        whole_seconds=whole * rehearsal.experiment.training.epochs,
        whole_means=f"{rehearsal.experiment.training.epochs} epochs of one method and seed on this machine",
    )


def validate_sample(rehearsal: Rehearsal) -> Outcome:
    """Report the validation that ended the sample's epoch."""
    aligned, splits, _ = _cohort(rehearsal)
    sample = json.loads((rehearsal.root / _SAMPLE).read_text())
    training = rehearsal.experiment.training
    every = scored_steps(aligned, splits.patients("validation"), training.protocols)
    steps, seconds = sample["validation_steps"], sample["validation_seconds"]
    return Outcome(
        seconds=seconds,
        counts={"steps": steps, "steps_of_all": every, "steps_per_second": round(steps / seconds, 1)},
        whole_seconds=seconds * every / max(steps, 1) * training.epochs,
        whole_means=f"after each of {training.epochs} epochs",
    )


def score_sample(rehearsal: Rehearsal) -> Outcome:
    """Score the sample's checkpoint on some test patients."""
    from pipeline.prediction.scoring import score

    aligned, splits, _ = _cohort(rehearsal)
    workspace, protocols = rehearsal.workspace, rehearsal.experiment.alignment.protocols
    part, chosen = _tested_part(rehearsal, aligned, splits)
    checkpoint = workspace.checkpoint(METHOD, rehearsal.experiment.seeds[0])
    began = time.monotonic()
    table = score(checkpoint, part, EmbeddingStore.open(workspace.store), splits, splits_to_score=("test",))
    seconds = time.monotonic() - began
    steps = scored_steps(part, chosen, protocols)
    every = scored_steps(aligned, splits.patients(*SCORED), protocols)
    return Outcome(
        seconds=seconds,
        counts={"patients": len(chosen), "steps": steps, "steps_of_all": every, "draws": len(table)},
        whole_seconds=seconds * every / max(steps, 1),
        whole_means="measured draws of one method and seed",
    )


def explain_sample(rehearsal: Rehearsal) -> Outcome:
    """Tell what makes the sample's estimates, and how long its h0 lasts, on the test patients that were scored."""
    from pipeline.prediction.explanations import explain
    from pipeline.training.shares import MOST_PATIENTS

    aligned, splits, _ = _cohort(rehearsal)
    workspace = rehearsal.workspace
    part, chosen = _tested_part(rehearsal, aligned, splits)
    checkpoint = workspace.checkpoint(METHOD, rehearsal.experiment.seeds[0])
    began = time.monotonic()
    explained = explain(checkpoint, part, EmbeddingStore.open(workspace.store), splits)
    seconds = time.monotonic() - began
    asked = min(MOST_PATIENTS, len(splits.patients("test")))
    return Outcome(
        seconds=seconds,
        counts={
            "patients": len(chosen), "patients_of_all": asked, "shares": len(explained.made_of),
            "survival_rows": len(explained.initial_state),
        },
        whole_seconds=seconds * asked / len(chosen),
        whole_means="one method and seed",
    )  # fmt: skip


def _tested_part(
    rehearsal: Rehearsal, aligned: AlignedCohort, splits: Splits
) -> tuple[AlignedCohort, list[str]]:
    """Return the sample's test patients, and the cohort of them alone."""
    size = rehearsal.size
    chosen = sampled_patients(aligned, splits.patients("test"), size.sample_steps // 2, size.seed)
    return part_of(aligned, chosen), chosen
