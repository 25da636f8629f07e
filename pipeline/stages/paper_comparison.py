"""The stage that sets the paper's Table 1 beside ours, and the run that makes all it needs."""

import logging

import pandas as pd

from pipeline.experiments import PAPER_METHODS, ExperimentConfig
from pipeline.foundation.atomic import write_parquet, write_text
from pipeline.foundation.summary import StageSummary
from pipeline.foundation.workspace import Workspace, require
from pipeline.report.page_tables import table1_by_method
from pipeline.report.paper_table import table1 as beside_the_paper
from pipeline.report.paper_text import table1_text
from pipeline.stages.align import cohort_splits, lab_alignment, normalization_stats
from pipeline.stages.embed import check_encoder, ppg_embeddings
from pipeline.stages.evaluate import evaluation, headline, predictions
from pipeline.stages.ingest import lab_events, source_note, synthetic_cohort, waveform_catalog
from pipeline.stages.lineage import is_there, training_stage
from pipeline.stages.planted_truth import synthetic_cohort_of
from pipeline.stages.provenance import is_current, recorded
from pipeline.stages.sources import check_sources
from pipeline.stages.training import check_devices, train

logger = logging.getLogger(__name__)

UPSTREAM = (
    synthetic_cohort,
    waveform_catalog,
    ppg_embeddings,
    lab_events,
    cohort_splits,
    normalization_stats,
    lab_alignment,
)
TITLES = {
    ("start", "measured"): "Protocol start, measured draws",
    ("start", "dense"): "Protocol start, dense: interpolated points are scored too, for every method alike",
    ("anchored", "measured"): "Protocol anchored, measured draws",
    (
        "anchored",
        "dense",
    ): "Protocol anchored, dense: interpolated points are scored too, for every method alike",
}


@recorded("table1")
def table1(workspace: Workspace, experiment: ExperimentConfig) -> StageSummary:
    """Write Table 1 for every protocol and scoring that was evaluated, as text and as Parquet."""
    metrics = pd.read_parquet(require(workspace.evaluation, made_by="evaluation", asset="table1"))
    texts, parts = [source_note(workspace) + "\n"], []
    synthetic, below = synthetic_cohort_of(workspace, experiment), headline(workspace, experiment)
    for (protocol, scoring), title in TITLES.items():
        rows = metrics.loc[(metrics["protocol"] == protocol) & (metrics["scoring"] == scoring)]
        if rows.empty:
            continue
        table = beside_the_paper(rows, protocol=protocol, scoring=scoring)
        text = table1_text(table, experiment.above_tables, synthetic=synthetic, below=below)
        texts.append(f"{title}\n\n{text}")
        parts.append(table.assign(protocol=protocol, scoring=scoring))
    text, table = "\n".join(texts), pd.concat(parts, ignore_index=True)
    write_text(workspace.table1_text, text)
    write_parquet(workspace.table1_text.with_suffix(".parquet"), table)
    return StageSummary(
        stage="table1",
        counts={"rows": len(table), "seeds": len(experiment.seeds)},
        tables=table1_by_method(table),
        artefacts={"table": workspace.table1_text},
    ).save(workspace.summary("table1"))


def reproduce_table1(workspace: Workspace, experiment: ExperimentConfig) -> str:
    """Return the text of Table 1 after making whatever it still lacks: data, trained methods, scores.

    A stage whose artefact was made with another configuration, or from other inputs, runs again; a training that is
    finished is not repeated, and one that was interrupted goes on. Methods beside the paper's that were trained here
    before are trained again where they have to be: their old checkpoints would have the scores refused at the end.
    """
    check_sources(workspace, labs_needed=True)
    check_devices(experiment)
    if not is_current(workspace, experiment, "ppg_embeddings"):
        check_encoder(workspace, experiment)
    for stage in UPSTREAM:
        if not is_current(workspace, experiment, stage.__name__):
            logger.info("table1: %s", stage.__name__)
            stage(workspace, experiment)
    for method in _methods(workspace, experiment):
        logger.info("table1: training %s", method)
        train(workspace, experiment, method=method)
    predictions(workspace, experiment)
    evaluation(workspace, experiment)
    table1(workspace, experiment)
    return workspace.table1_text.read_text(encoding="utf-8")


def _methods(workspace: Workspace, experiment: ExperimentConfig) -> tuple[str, ...]:
    """Return the paper's methods, and those of the experiment's others that have been trained."""
    others = (method for method in experiment.methods if method not in PAPER_METHODS)
    return (*PAPER_METHODS, *(method for method in others if is_there(training_stage(method), workspace)))
