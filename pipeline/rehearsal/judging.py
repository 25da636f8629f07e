"""Stages of a rehearsal that judge planted predictions of every method at full size."""

import pandas as pd

from pipeline import stages
from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.dense_sums import accumulate_dense_sums
from pipeline.cohort.splits import Splits
from pipeline.foundation.atomic import write_text
from pipeline.foundation.summary import StageSummary
from pipeline.labs.carry_forward import fit_carry_forward
from pipeline.prediction.files import PredictionWriter
from pipeline.prediction.intervals import fit_intervals
from pipeline.prediction.scoring import score_estimator
from pipeline.rehearsal.learning import METHOD
from pipeline.rehearsal.measure import Outcome
from pipeline.rehearsal.plan import Rehearsal
from pipeline.rehearsal.planted import planted_blocks, planted_predictions
from pipeline.stages.evaluate import INTERVAL_LEVEL
from pipeline.stages.provenance import recording


def predict_planted(rehearsal: Rehearsal) -> Outcome:
    """Write planted predictions of every method and seed, with intervals, and the sums of dense scoring."""
    workspace, experiment = rehearsal.workspace, rehearsal.experiment
    aligned, splits = AlignedCohort.load(workspace.aligned), Splits.load(workspace.splits)
    fitted = fit_carry_forward(
        aligned.examples.loc[aligned.examples["patient_id"].isin(splits.patients("train"))]
    )
    tables = [
        score_estimator(method, line.estimate, aligned, splits, seed=min(experiment.seeds))
        for method, line in fitted.items()
    ]
    tables += planted_predictions(experiment.methods, experiment.seeds, aligned, splits)
    table = pd.concat(tables, ignore_index=True)
    del tables
    intervals = fit_intervals(table, INTERVAL_LEVEL)
    table = intervals.apply(table)
    points = 0
    with recording(workspace, rehearsal.staged, "predictions"):
        writer = PredictionWriter(workspace)
        writer.write_measured(table)
        if "dense" in experiment.scorings:
            points = _write_dense(rehearsal, aligned, splits, list(fitted), writer)
        writer.finish()
    checkpoint = workspace.checkpoint(METHOD, experiment.seeds[0])
    write_text(checkpoint / "intervals.json", intervals.to_json())
    draws = len(
        table.loc[table["split"] == "test"].drop_duplicates(["protocol", "patient", "lab", "sampled_at"])
    )
    counts = {"methods": table["method"].nunique(), "scored_draws_of_test_patients": draws}
    StageSummary(stage="predictions", counts=counts).save(workspace.summary("predictions"))
    return Outcome(counts={**counts, "rows": len(table), "dense_points": points})


def _write_dense(
    rehearsal: Rehearsal,
    aligned: AlignedCohort,
    splits: Splits,
    seedless: list[str],
    writer: PredictionWriter,
) -> int:
    """Write dense sums of all methods; those without weights are planted as well, under the first seed."""
    experiment, points = rehearsal.experiment, 0
    for seed in experiment.seeds:
        methods = [*experiment.methods, *(seedless if seed == min(experiment.seeds) else ())]
        blocks = planted_blocks(methods, seed, aligned, splits, experiment.evaluation.split)
        sums = accumulate_dense_sums(blocks, seed=seed)
        writer.write_dense(sums)
        points = int(sums["n_points"].to_numpy()[(sums["method"] == experiment.methods[0]).to_numpy()].sum())
    return points


def stream_sums(rehearsal: Rehearsal) -> Outcome:
    """Stream every scored point of the test patients through the sums once, as one method and seed does."""
    workspace, experiment = rehearsal.workspace, rehearsal.experiment
    aligned, splits = AlignedCohort.load(workspace.aligned), Splits.load(workspace.splits)
    blocks = planted_blocks((METHOD,), 0, aligned, splits, experiment.evaluation.split)
    sums = accumulate_dense_sums(blocks, seed=0)
    return Outcome(counts={"points": int(sums["n_points"].to_numpy().sum()), "rows": len(sums)})


def evaluate(rehearsal: Rehearsal) -> Outcome:
    """Judge every method."""
    stages.evaluation(rehearsal.workspace, rehearsal.staged)
    return Outcome(counts={"rows": len(pd.read_parquet(rehearsal.workspace.evaluation))})


def report(rehearsal: Rehearsal) -> Outcome:
    """Write the report."""
    summary = stages.report(rehearsal.workspace, rehearsal.staged)
    return Outcome(counts=dict(summary.counts))  # type: ignore[arg-type]
