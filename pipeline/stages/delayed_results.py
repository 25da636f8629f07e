"""The stage that scores the trained models again with results that come later."""

import pandas as pd

from pipeline.cohort.splits import Splits
from pipeline.evaluation.delay_methods import DELAY_METHODS
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.atomic import write_parquet
from pipeline.foundation.errors import MissingArtifactError
from pipeline.foundation.summary import StageSummary
from pipeline.foundation.workspace import Workspace, require
from pipeline.report.result_delay_text import delay_text
from pipeline.stages.provenance import recorded
from pipeline.store.embeddings import EmbeddingStore


@recorded("result_delay")
def result_delay(workspace: Workspace, experiment: ExperimentConfig) -> StageSummary:
    """Judge MT+PCS, its twin and LOCF with results 0, 30 and 60 minutes after their draw."""
    from pipeline.cohort.aligned import AlignedCohort  # imports torch, which definitions must not
    from pipeline.evaluation.result_delay import delay_table

    folders = {
        method: [workspace.checkpoint(method, seed) for seed in experiment.seeds]
        for method in DELAY_METHODS
        if all(workspace.checkpoint(method, seed).exists() for seed in experiment.seeds)
    }
    if not folders:
        raise MissingArtifactError(
            f"Neither MT+PCS nor its twin is trained in {workspace.root}. Train them first: python -m pipeline train"
        )
    table = delay_table(
        AlignedCohort.load(workspace.aligned),
        pd.read_parquet(require(workspace.lab_events, made_by="lab_events", asset="report")),
        EmbeddingStore.open(workspace.store),
        Splits.load(require(workspace.splits, made_by="cohort_splits", asset="report")),
        folders,
        experiment.evaluation,
    )
    write_parquet(workspace.result_delay, table)
    return StageSummary(
        stage="result_delay",
        counts={"rows": len(table)},
        tables={"by delay": table.round(3).to_dict(orient="records")},
        artefacts={"table": workspace.result_delay},
    ).save(workspace.summary("result_delay"))


def printed_result_delay(workspace: Workspace, experiment: ExperimentConfig) -> str:
    """Run the stage and return its table as text."""
    result_delay(workspace, experiment)
    return delay_text(pd.read_parquet(workspace.result_delay))
