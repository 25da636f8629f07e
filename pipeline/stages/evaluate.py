"""Stages that score every method on the same draws, judge them and write the report."""

import itertools
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from pipeline.cohort.splits import Splits
from pipeline.cohort.summed_set import summed_sets
from pipeline.evaluation.coverage import coverage
from pipeline.evaluation.judge import EvaluationConfig, Judged, comparison_of, evaluation_of, judge_sets
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.artefact_notes import apart
from pipeline.foundation.atomic import write_json, write_parquet, write_text
from pipeline.foundation.errors import MissingArtifactError
from pipeline.foundation.number_format import short_label
from pipeline.foundation.progress import tracked
from pipeline.foundation.schema import METHOD_LABELS, TWINS
from pipeline.foundation.summary import StageSummary
from pipeline.foundation.workspace import Workspace, require
from pipeline.prediction.files import PredictionWriter, read_dense_sums, read_predictions
from pipeline.prediction.intervals import fit_intervals
from pipeline.report.claims import CLAIMED, RULE, claim_sentences, claims
from pipeline.report.comparison_text import comparison_table
from pipeline.report.initial_state import initial_state_table
from pipeline.report.made_of import (
    headline_text,
    made_of_sentence,
    made_of_table,
    of_method,
    patients_sentence,
)
from pipeline.report.page_tables import coverage_rows, followed_over_runs, metrics_by_lab
from pipeline.stages.made_of_kept import MADE_OF, keep_made_of
from pipeline.stages.provenance import recorded
from pipeline.store.embeddings import EmbeddingStore

if TYPE_CHECKING:
    from pipeline.cohort.aligned import AlignedCohort
    from pipeline.labs.base import CarryForward
    from pipeline.training.makeup import Makeup

logger = logging.getLogger(__name__)

INTERVAL_LEVEL = 0.9
PAIRS = (
    *((method, twin) for twin, method in TWINS.items()),
    ("mt_pcs", "locf"), ("mt_assim", "locf"), ("mt_pcs", "shrunk_locf"), ("mt_assim", "shrunk_locf"),
    ("mt_assim", "lines"), ("mt_assim", "mt_assim_lines"), ("mt_assim", "mt_pcs"), ("mt_pcs", "mt"),
)  # fmt: skip
"""Differences that are reported; those from twins first, which are what PPG added; last, what h0 from history adds."""
INITIAL_STATE = "initial_state.json"
"""Beside each checkpoint of a method with an h0: how long it lasts (``training.initial_state``)."""


@recorded("predictions")
def predictions(workspace: Workspace, experiment: ExperimentConfig) -> StageSummary:
    """Estimate every scored draw with every method that is trained, and put conformal intervals around it.

    With scoring ``dense``, sums over the points between draws are written beside.
    """
    trained = _trained(workspace, experiment)
    inputs = _ScoringInputs.load(workspace)
    writer = PredictionWriter(workspace)
    behind: dict[tuple[str, int], set[str]] = {}
    table = pd.concat(list(_scored(workspace, experiment, trained, inputs, behind)), ignore_index=True)
    intervals = fit_intervals(table, INTERVAL_LEVEL)
    table = intervals.apply(table)
    writer.write_measured(table, behind)
    for method in trained:
        for seed in experiment.seeds:
            folder = workspace.checkpoint(method, seed)
            write_text(folder / "intervals.json", intervals.to_json())
            _write_explanations(folder, inputs, experiment.evaluation.split)
    counts = _counts(table, experiment, trained)
    if "dense" in experiment.scorings:
        counts["dense_points_of_test_patients"] = _write_dense(workspace, experiment, trained, inputs, writer)
    writer.finish()
    claimed = coverage(table.loc[table["method"].isin(CLAIMED)], INTERVAL_LEVEL, gap_edges_hours=())
    return StageSummary(
        stage="predictions",
        counts=counts,
        tables={"coverage of the 90 % intervals": coverage_rows(claimed)},
        artefacts={"predictions": workspace.predictions},
    ).save(workspace.summary("predictions"))


def _write_explanations(folder: Path, inputs: "_ScoringInputs", split: str) -> None:
    """Write what makes a checkpoint's estimates beside it, and how long its h0 lasts where it has one."""
    from pipeline.prediction.explanations import explain  # imports torch, which definitions must not

    explained = explain(folder, inputs.aligned, inputs.store, inputs.splits, split=split)
    keep_made_of(folder, explained.made_of)
    if len(explained.initial_state):
        write_json(folder / INITIAL_STATE, explained.initial_state.to_dict("records"))


def _counts(
    table: pd.DataFrame, experiment: ExperimentConfig, trained: list[str]
) -> dict[str, int | float | str]:
    missing = [METHOD_LABELS[method] for method in experiment.methods if method not in trained]
    draws = table.loc[table["split"] == "test"].drop_duplicates(["protocol", "patient", "lab", "sampled_at"])
    return {
        "methods": len(set(table["method"])),
        "not_trained": ", ".join(missing) or "none",
        "scored_draws_of_test_patients": len(draws),
    }


def _trained(workspace: Workspace, experiment: ExperimentConfig) -> list[str]:
    """Methods whose training ended, for every seed: the stage writes its summary last."""
    found = [
        method
        for method in experiment.methods
        if workspace.summary(f"train_{method}").exists()
        and all(workspace.checkpoint(method, seed).exists() for seed in experiment.seeds)
    ]
    if not found:
        raise MissingArtifactError(
            f"No method is trained in {workspace.root}: materialise one with everything before it, for example "
            "dagster asset materialize --select '*train_mt_pcs'"
        )
    return found


@dataclass(frozen=True, kw_only=True)
class _ScoringInputs:
    """What every method is scored with."""

    aligned: "AlignedCohort"
    splits: Splits
    store: EmbeddingStore
    baselines: "dict[str, CarryForward]"

    @classmethod
    def load(cls, workspace: Workspace) -> "_ScoringInputs":
        from pipeline.cohort.aligned import AlignedCohort  # imports torch, which definitions must not
        from pipeline.labs.carry_forward import fit_carry_forward

        aligned = AlignedCohort.load(workspace.aligned)
        splits = Splits.load(require(workspace.splits, made_by="cohort_splits", asset="predictions"))
        of_training = aligned.examples["patient_id"].isin(splits.patients("train"))
        return cls(
            aligned=aligned,
            splits=splits,
            store=EmbeddingStore.open(workspace.store),
            baselines=fit_carry_forward(aligned.examples.loc[of_training]),
        )


def _scored(
    workspace: Workspace,
    experiment: ExperimentConfig,
    trained: list[str],
    inputs: _ScoringInputs,
    behind: dict[tuple[str, int], set[str]],
) -> Iterator[pd.DataFrame]:
    """Yield the measured draws of one method after another; those without weights once, under the lowest seed.

    What weights each was scored with is noted in `behind`.
    """
    from pipeline.prediction.scoring import score, score_estimator  # imports torch, as above

    for method, fitted in inputs.baselines.items():
        yield score_estimator(
            method, fitted.estimate, inputs.aligned, inputs.splits, seed=min(experiment.seeds)
        )
    for method, seed in tracked(list(itertools.product(trained, experiment.seeds)), "scoring", "models"):
        logger.info("scoring %s, seed %d", METHOD_LABELS[method], seed)
        with apart() as note:
            scored = score(workspace.checkpoint(method, seed), inputs.aligned, inputs.store, inputs.splits)
        behind[method, seed] = note.checkpoints
        yield scored


def _write_dense(
    workspace: Workspace,
    experiment: ExperimentConfig,
    trained: list[str],
    inputs: _ScoringInputs,
    writer: PredictionWriter,
) -> int:
    """Write the sums of one method after another; return how many points each method was scored on."""
    from pipeline.prediction.dense_scoring import (
        score_dense,
        score_estimators_dense,
    )  # imports torch, as above

    split = experiment.evaluation.split
    estimators = {method: fitted.estimate for method, fitted in inputs.baselines.items()}
    logger.info("scoring interpolated points of methods without weights")
    sums = score_estimators_dense(
        estimators, inputs.aligned, inputs.splits, split=split, seed=min(experiment.seeds)
    )
    writer.write_dense(sums)
    models = list(itertools.product(trained, experiment.seeds))
    for method, seed in tracked(models, "scoring interpolated points", "models"):
        logger.info("scoring %s, seed %d, interpolated points", METHOD_LABELS[method], seed)
        checkpoint = workspace.checkpoint(method, seed)
        with apart() as note:
            scored = score_dense(checkpoint, inputs.aligned, inputs.store, inputs.splits, split=split)
        writer.write_dense(scored, {(method, seed): note.checkpoints})
    return int(sums.loc[sums["method"] == "locf", "n_points"].sum())


@recorded("evaluation")
def evaluation(workspace: Workspace, experiment: ExperimentConfig) -> StageSummary:
    """Compute metrics, skill and paired differences with intervals."""
    table = read_predictions(workspace, asset="evaluation")
    dense = read_dense_sums(workspace, asset="evaluation")
    config = experiment.evaluation
    judged = judge_sets(summed_sets(table, dense, config.split), config)
    metrics = evaluation_of(judged, config)
    write_parquet(workspace.evaluation, metrics)
    compared = compared_pairs(judged, set(table["method"]), config)
    if compared is not None:
        write_parquet(workspace.comparisons, compared)
    return StageSummary(
        stage="evaluation",
        counts={
            **_headline_counts(workspace, experiment, table),
            "methods": len(set(metrics["method"])),
            **followed_over_runs(metrics),
        },
        tables=_claimed(compared) | metrics_by_lab(metrics),
        figures=_what_ppg_added(compared),
        artefacts={"evaluation": workspace.evaluation},
    ).save(workspace.summary("evaluation"))


def compared_pairs(
    judged: Sequence[Judged], methods: set[str], config: EvaluationConfig
) -> pd.DataFrame | None:
    """Return the differences of those `PAIRS` of which both are there; None: of none."""
    pairs = [comparison_of(judged, a, b, config) for a, b in PAIRS if {a, b} <= methods]
    return pd.concat(pairs, ignore_index=True) if pairs else None


def _headline_counts(
    workspace: Workspace, experiment: ExperimentConfig, table: pd.DataFrame
) -> dict[str, str]:
    """Say, first of all, what made the estimates, on whom they were tested and by which rule anything is claimed."""
    shares = made_of_shares(workspace, experiment)
    made = {
        f"made of, {short_label(one.method)}": made_of_sentence(one, of_method(shares, one.method))
        for one in makeups(workspace, experiment)
    }
    return {
        **made,
        "tested on": patients_sentence(table, experiment.evaluation.split),
        "rule for every claim": RULE,
    }


def _claimed(compared: pd.DataFrame | None) -> dict[str, list[dict]]:
    rows: list[dict] = [{"by the rule": sentence} for sentence in claim_sentences(claims(compared, CLAIMED))]
    return {"what is shown": rows}


def _what_ppg_added(compared: pd.DataFrame | None) -> dict[str, str]:
    """Draw each method minus its twin."""
    from pipeline.report.figures import (
        added_svg,
    )  # draws with matplotlib, which definitions need not wait for

    figures: dict[str, str] = {}
    if compared is None:
        return figures
    for twin, method in TWINS.items():
        rows = compared.loc[(compared["method_a"] == method) & (compared["method_b"] == twin)]
        if len(rows):
            figures[f"What PPG added to {short_label(method)}"] = added_svg(rows, short_label(method))
    return figures


def printed_table(workspace: Workspace, experiment: ExperimentConfig) -> str:
    """Return the comparison as text for the terminal."""
    metrics = pd.read_parquet(require(workspace.evaluation, made_by="evaluation", asset="report"))
    pairs = pd.read_parquet(workspace.comparisons) if workspace.comparisons.exists() else None
    shares = made_of_shares(workspace, experiment)
    table = comparison_table(metrics, pairs, experiment.above_tables)
    lasts = initial_state_table(initial_states(workspace, experiment))
    return f"{table}\n{made_of_table(shares)}\n{lasts}{headline(workspace, experiment)}\n"


def headline(workspace: Workspace, experiment: ExperimentConfig) -> str:
    """Return what stands under every table: which parts made each method's estimates, on whom they were tested."""
    return headline_text(
        makeups(workspace, experiment),
        made_of_shares(workspace, experiment),
        read_predictions(workspace, asset="report"),
        split=experiment.evaluation.split,
    )


def makeups(workspace: Workspace, experiment: ExperimentConfig) -> "list[Makeup]":
    """Count the numbers of every trained method, first seed."""
    from pipeline.training.counting import makeup_of  # imports torch, which definitions must not

    seed = experiment.seeds[0]
    trained = [method for method in experiment.methods if workspace.summary(f"train_{method}").exists()]
    return [makeup_of(workspace.checkpoint(method, seed)) for method in trained]


def made_of_shares(workspace: Workspace, experiment: ExperimentConfig) -> pd.DataFrame:
    """Return the shares beside the checkpoints of the first seed, and a column ``method``; empty without any."""
    return _beside_checkpoints(workspace, experiment, MADE_OF)


def initial_states(workspace: Workspace, experiment: ExperimentConfig) -> pd.DataFrame:
    """Return how long h0 lasts, likewise; empty where no method has one."""
    return _beside_checkpoints(workspace, experiment, INITIAL_STATE)


def _beside_checkpoints(workspace: Workspace, experiment: ExperimentConfig, name: str) -> pd.DataFrame:
    tables = []
    for method in experiment.methods:
        path = workspace.checkpoint(method, experiment.seeds[0]) / name
        if path.exists():
            tables.append(pd.DataFrame(json.loads(path.read_text(encoding="utf-8"))).assign(method=method))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
