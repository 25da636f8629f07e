"""Cross-validation by subject: every patient is scored once, by methods that were trained without them.

For cohorts too small to spare a test split. Each fold is a division of its own: scaling of the labs, baselines, choice
of the epoch and training see its training and validation patients alone. What is finished is kept: a run that is killed
goes on with the next fold.
"""

import dataclasses
import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from pipeline.cohort.normalization import fit_lab_scaler
from pipeline.cohort.splits import Splits, cross_validation_divisions
from pipeline.cohort.summed_set import summed_sets
from pipeline.evaluation.judge import evaluation_of, judge_sets
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.atomic import write_parquet, write_text
from pipeline.foundation.provenance import config_hash
from pipeline.foundation.summary import StageSummary
from pipeline.foundation.workspace import Workspace, require
from pipeline.report.comparison_text import comparison_table
from pipeline.report.made_of import made_of_sentence
from pipeline.stages.encoder_files import plain_experiment
from pipeline.stages.encoder_patients import refuse_division
from pipeline.stages.evaluate import compared_pairs
from pipeline.stages.lineage import training_stage
from pipeline.stages.made_of_kept import kept_made_of
from pipeline.stages.provenance import check_inputs, recorded
from pipeline.stages.training import check_devices
from pipeline.store.embeddings import EmbeddingStore

if TYPE_CHECKING:
    from pipeline.cohort.aligned import AlignedCohort

logger = logging.getLogger(__name__)

STAGE, TEST = "cross_validation", ("test",)


@recorded(STAGE)
def cross_validation(
    workspace: Workspace, experiment: ExperimentConfig, *, methods: Sequence[str], folds: int
) -> StageSummary:
    """Train `methods` once a fold and seed, and judge them, and what carries labs forward, on all patients together.

    Parameters
    ----------
    methods : of ``schema.TRAINED_METHODS``
    folds : divisions; each subject is a test patient of one

    Raises
    ------
    ConfigError : an unknown method, or too few patients for so many folds
    LeakError : a fold would test patients whom the encoder was fine-tuned on
    """
    for method in methods:
        training_stage(method)
    check_devices(experiment)
    cohort = _Cohort.load(workspace)
    divisions = cross_validation_divisions(cohort.patients, folds, experiment.splits)
    for splits in divisions:
        refuse_division(experiment, splits)
    made_of = {
        "experiment": plain_experiment(experiment),
        "inputs": dict(check_inputs(workspace, experiment, STAGE).versions),
        "folds": folds,
    }
    folder = workspace.cross_validation / "trained" / config_hash(made_of)[:12]
    tables = [cohort.baselines(splits, min(experiment.seeds)) for splits in divisions]
    tables += [
        cohort.scored(experiment, splits, method, seed, folder / method / f"fold{fold}_seed{seed}")
        for (fold, splits), method, seed in itertools.product(
            enumerate(divisions), dict.fromkeys(methods), experiment.seeds
        )
    ]
    made = [
        cohort.made_of(
            [folder / method / f"fold{fold}_seed{experiment.seeds[0]}" for fold in range(folds)], divisions
        )
        for method in dict.fromkeys(methods)
    ]
    return _judged(workspace, experiment, pd.concat(tables, ignore_index=True), folds, made)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Cohort:
    """What every fold is trained and scored on."""

    aligned: "AlignedCohort"
    events: pd.DataFrame
    store: EmbeddingStore

    @classmethod
    def load(cls, workspace: Workspace) -> "_Cohort":
        require(workspace.aligned, made_by="lab_alignment", asset=STAGE)
        from pipeline.cohort.aligned import AlignedCohort  # imports torch, which definitions must not

        return cls(
            aligned=AlignedCohort.load(workspace.aligned),
            events=pd.read_parquet(require(workspace.lab_events, made_by="lab_events", asset=STAGE)),
            store=EmbeddingStore.open(require(workspace.store, made_by="ppg_embeddings", asset=STAGE)),
        )

    @property
    def patients(self) -> list[str]:
        """Who has a sequence of windows: others could be neither learned from nor scored."""
        return sorted(set(self.aligned.sequences["patient_id"]))

    def baselines(self, splits: Splits, seed: int) -> pd.DataFrame:
        """Score what carries labs forward, fitted on the training patients of one fold."""
        from pipeline.labs.carry_forward import fit_carry_forward
        from pipeline.prediction.scoring import score_estimator  # imports torch, as above

        of_training = self.aligned.examples["patient_id"].isin(splits.patients("train"))
        fitted = fit_carry_forward(self.aligned.examples.loc[of_training])
        tables = [
            score_estimator(name, each.estimate, self.aligned, splits, splits_to_score=TEST, seed=seed)
            for name, each in fitted.items()
        ]
        return pd.concat(tables, ignore_index=True)

    def scored(
        self, experiment: ExperimentConfig, splits: Splits, method: str, seed: int, folder: Path
    ) -> pd.DataFrame:
        """Train one method on one fold and score its test patients; or read the scores that are kept."""
        kept = folder / "scores.parquet"
        if kept.exists():
            return pd.read_parquet(kept)
        from pipeline.prediction.scoring import score  # imports torch, as above
        from pipeline.training.method import train

        logger.info("cross-validation: %s, %s", method, folder.name)
        train(
            method, self.aligned, self.store, fit_lab_scaler(self.events, splits, experiment.scaler), splits,
            dataclasses.asdict(experiment.shape_of(method)), dataclasses.replace(experiment.training, seed=seed),
            folder, experiment=plain_experiment(experiment),
        )  # fmt: skip
        scores = score(folder, self.aligned, self.store, splits, splits_to_score=TEST)
        write_parquet(kept, scores)
        return scores

    def made_of(self, folders: Sequence[Path], divisions: Sequence[Splits]) -> str:
        """Say what made one method's estimates: numbers of the first fold's, shares over all of them."""
        from pipeline.training.counting import makeup_of  # imports torch, as above

        shares = [
            kept_made_of(folder, self.aligned, self.store, splits)
            for folder, splits in zip(folders, divisions, strict=True)
        ]
        return made_of_sentence(makeup_of(folders[0]), pd.concat(shares, ignore_index=True))


def _judged(
    workspace: Workspace, experiment: ExperimentConfig, table: pd.DataFrame, folds: int, made: Sequence[str]
) -> StageSummary:
    """Judge all folds' test patients together, and write the tables; `made`: a sentence of each method's makeup."""
    config = dataclasses.replace(experiment.evaluation, split="test")
    judged = judge_sets(summed_sets(table, None, config.split), config)
    metrics, compared = evaluation_of(judged, config), compared_pairs(judged, set(table["method"]), config)
    place = workspace.cross_validation
    write_parquet(place / "predictions.parquet", table)
    write_parquet(place / "evaluation.parquet", metrics)
    if compared is not None:
        write_parquet(place / "comparisons.parquet", compared)
    how = (
        f"Cross-validated over {folds} folds of subjects: every patient is scored once, by methods trained without "
        "them; all folds' draws are judged together."
    )
    above = "\n".join(filter(None, [experiment.above_tables, how]))
    told = ["What made the estimates: numbers of the first fold's methods, shares over all folds.", *made]
    text = comparison_table(metrics, compared, above)
    write_text(place / "comparison.txt", "\n".join([text, *told]) + "\n")
    return StageSummary(
        stage=STAGE,
        counts={
            "folds": folds,
            "patients": len(set(table["patient"])),
            "draws": len(table.drop_duplicates(["protocol", "patient", "lab", "sampled_at"])),
        },
        artefacts={"table": place / "comparison.txt"},
    ).save(workspace.summary(STAGE))


def printed_cross_validation(
    workspace: Workspace, experiment: ExperimentConfig, *, methods: Sequence[str], folds: int
) -> str:
    """Run the stage and return its table as text."""
    cross_validation(workspace, experiment, methods=methods, folds=folds)
    return (workspace.cross_validation / "comparison.txt").read_text(encoding="utf-8")
