"""The recovery experiment: write cohorts, embed them once, train and score under every condition, resumable.

Every training and every method's scores are kept as they are finished: a run that is killed goes on with the next one.
Cohorts of fewer training patients are parts of the whole one, judged on the same test patients.
"""

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from pipeline.cohort.normalization import LabScaler, fit_lab_scaler
from pipeline.evaluation.recovery import ORACLE, OURS, recovery_rows
from pipeline.evaluation.recovery_by import recovery_by
from pipeline.evaluation.recovery_conditions import CONDITIONS, LONG_CONDITIONS, Condition
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.artefact_notes import ArtefactNote, noted
from pipeline.foundation.atomic import require_writable, write_json, write_parquet, write_text
from pipeline.foundation.provenance import config_hash, to_plain
from pipeline.foundation.workers import worker_pool
from pipeline.labs.carry_forward import fit_carry_forward
from pipeline.prediction.scoring import score, score_estimator
from pipeline.report.made_of import made_of_sentence
from pipeline.report.recovery_figures import recovery_by_size_svg, recovery_by_svg
from pipeline.report.recovery_text import recovery_text
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.truth import oracle_estimates
from pipeline.stages.encoder_files import plain_experiment
from pipeline.stages.ideal_readers import ideal_readers
from pipeline.stages.ingest import COHORT_LICENCE
from pipeline.stages.made_of_kept import MADE_OF, kept_made_of
from pipeline.stages.planted_cohort import EmbeddedCohort
from pipeline.stages.recovery_circumstances import with_circumstances
from pipeline.stages.recovery_regimes import LongCohorts, LongRegime, Regime, ShortRegime
from pipeline.training.config import TrainingConfig
from pipeline.training.counting import makeup_of
from pipeline.training.method import train
from pipeline.training.ridge import FOLDS

logger = logging.getLogger(__name__)

TEST = ("test",)
JUDGED = 2
"""Raise when judging changes: what is kept of before is judged anew (2: recovery over the better history)."""


def run_recovery(
    experiment: ExperimentConfig,
    root: Path,
    conditions: Sequence[Condition] = CONDITIONS,
    *,
    methods: Sequence[str] | None = None,
    workers: int = 1,
) -> pd.DataFrame:
    """Run what is missing of the regime ``short`` and write ``recovery.parquet`` and ``recovery.txt`` into `root`.

    Parameters
    ----------
    methods : trained, in the place of every condition's own
    workers : trainings side by side, each a process with a thread of its own; 1: in this process

    Returns
    -------
    ``condition, coupling, null, emulated, seeds, train_patients`` and the columns of ``recovery.recovery_rows``.
    """
    require_writable(root / "recovery.txt")
    return _run(ShortRegime(experiment, root), "recovery", conditions, methods, workers)


def run_long_recovery(
    experiment: ExperimentConfig,
    root: Path,
    cohorts: LongCohorts | None = None,
    conditions: Sequence[Condition] = LONG_CONDITIONS,
    *,
    methods: Sequence[str] | None = None,
    workers: int = 1,
) -> pd.DataFrame:
    """Run what is missing of the regime ``long``: ``recovery_long.parquet``, ``.txt``, and its pictures, SVG.

    Parameters
    ----------
    cohorts : sizes; those of docs/recovery.md when None
    methods, workers : as in `run_recovery`

    Returns
    -------
    As `run_recovery`.

    Raises
    ------
    MissingArtifactError, CheckpointError : a condition is emulated and the encoder has no emulator; before any work
    """
    require_writable(root / "recovery_long.txt")
    emulates = any(condition.emulated for condition in conditions)
    regime = LongRegime(experiment, root, cohorts or LongCohorts(), emulates=emulates)
    return _run(regime, "recovery_long", conditions, methods, workers)


def _run(
    regime: Regime, name: str, conditions: Sequence[Condition], only: Sequence[str] | None, workers: int
) -> pd.DataFrame:
    root, tables, parts, sentences = regime.root, [], [], {}
    conditions = _large_enough(regime, conditions)
    for number, condition in enumerate(conditions, start=1):
        experiment, weights = regime.experiment(condition), regime.embeddings(condition)
        methods = only or condition.methods
        described = {"experiment": to_plain(experiment), "embeddings": weights,
                     "condition": condition.described(),
                     "most_steps": regime.most_steps(condition)}  # fmt: skip
        folder = root / "conditions" / config_hash(described)[:12]
        # More seeds or methods add to what is trained; what is judged together is named by both.
        judged = folder / "judged" / config_hash([condition.seeds, list(methods), JUDGED])[:12]
        if not (judged / "rows.parquet").exists():
            logger.info("recovery: %s", condition.name)
            with _noted(weights, described):
                cohort, fitting = _prepared(regime, condition)
                ideal = _ideal_predictions(
                    fitting, cohort, folder
                )  # first: it refuses a cohort that is too small
                train_side_by_side(
                    SideBySide(regime, condition, folder, described, weights), methods, workers
                )
                _judge(condition, cohort, fitting, ideal, folder, judged, methods)
        tables.append(pd.read_parquet(judged / "rows.parquet"))
        parts.append(_named(pd.read_parquet(judged / "by.parquet"), condition))
        sentences[condition.name] = json.loads((judged / MADE_OF).read_text(encoding="utf-8"))
        table, by = pd.concat(tables, ignore_index=True), pd.concat(parts, ignore_index=True)
        with _noted(weights, {"conditions": [to_plain(done) for done in conditions[:number]], **described}):
            write_parquet(root / f"{name}.parquet", table)
            write_parquet(root / f"{name}_by.parquet", by)
        write_text(
            root / f"{name}.txt", recovery_text(table, above=experiment.above_tables, made_of=sentences)
        )
        _write_pictures(root, name, table, by)
    return pd.concat(tables, ignore_index=True)


def _large_enough(regime: Regime, conditions: Sequence[Condition]) -> list[Condition]:
    """Leave out, and say so, parts of a cohort with fewer training patients than the ideal readers have folds."""
    kept = []
    for condition in conditions:
        patients = regime.train_patients(condition)
        if condition.train_share < 1 and patients < FOLDS:
            logger.warning(
                "recovery: %s is left out: %d training patients, of %d at least; make the cohort larger",
                condition.name, patients, FOLDS,
            )  # fmt: skip
        else:
            kept.append(condition)
    return kept or list(conditions)  # of none, the first one's error says what is wrong


def _write_pictures(root: Path, name: str, table: pd.DataFrame, by: pd.DataFrame) -> None:
    told = by.loc[by["coupling"] != 0]  # where nothing is planted there is nothing to recover
    for condition, part in told.groupby("condition", sort=False):
        for quantity, rows in part.groupby("quantity", sort=False):
            slug = "".join(c if c.isalnum() else "_" for c in str(condition))
            write_text(root / f"{name}_{quantity}_{slug}.svg", recovery_by_svg(rows, str(quantity)))
    if 1 in table["coupling"].to_list():
        write_text(root / f"{name}_train_patients.svg", recovery_by_size_svg(table))


def _named(table: pd.DataFrame, condition: Condition) -> pd.DataFrame:
    """Put in front what a table of rows is of."""
    named = {"condition": condition.name, "coupling": condition.coupling, "null": condition.null or "",
             "emulated": condition.emulated, "seeds": condition.seeds}  # fmt: skip
    for place, (column, value) in enumerate(named.items()):
        table.insert(place, column, value)
    return table


def _noted(weights: str, config: Mapping[str, Any]) -> AbstractContextManager[ArtefactNote]:
    """Open the note of what is made of a configuration, these embeddings and the cohort's parameters alone."""
    inputs = {"cohort parameters": CohortParameters.load().sha256, "encoder": weights}
    return noted(ArtefactNote.of("recovery", config=config, inputs=inputs, licences=[COHORT_LICENCE]))


def _prepared(
    regime: Regime, condition: Condition, *, written: bool = False
) -> tuple[EmbeddedCohort, ExperimentConfig]:
    """Return a condition's cohort, and the experiment with its recipe of training."""
    cohort, experiment = regime.cohort(condition, written=written), regime.experiment(condition)
    return cohort, dataclasses.replace(experiment, training=regime.recipe(condition, cohort))


class SideBySide(NamedTuple):
    """What a process needs to train the methods of one condition."""

    regime: Regime
    condition: Condition
    folder: Path
    described: Mapping[str, Any]
    weights: str


def train_side_by_side(what: SideBySide, methods: Sequence[str], workers: int) -> None:
    """Train and score what is missing of a condition, several methods and seeds at once; 1 worker leaves it undone."""
    missing = [
        (method, run)
        for run in range(what.condition.seeds)  # first seeds first: later ones may turn out to be the same
        for method in methods
        if run in what.condition.runs(method) and not _scores(what.folder, method, run).exists()
    ]
    if workers < 2 or len(missing) < 2:
        return
    with worker_pool(min(workers, len(missing)), _begin, (what,)) as pool:
        done = {pool.submit(_trained_by_worker, *each): each for each in missing}
        for one in as_completed(done):
            seconds = one.result()
            logger.info("recovery: trained and scored %s, seed %d, in %.0f s", *done[one], seconds)


_BEGUN: dict[str, tuple[SideBySide, EmbeddedCohort, ExperimentConfig]] = {}
"""Of a worker: its condition's cohort, read once."""


def _begin(what: SideBySide) -> None:
    torch.set_num_threads(1)
    _BEGUN["condition"] = what, *_prepared(what.regime, what.condition, written=True)


def _trained_by_worker(method: str, run: int) -> float:
    """Train and score one method with one seed; return the seconds that took."""
    start = time.monotonic()
    what, cohort, experiment = _BEGUN["condition"]
    scaler = fit_lab_scaler(cohort.events.frame, cohort.splits, experiment.scaler)
    with _noted(what.weights, what.described):
        _scored_run(experiment, cohort, scaler, what.folder, method, run)
    return time.monotonic() - start


def _judge(
    condition: Condition,
    cohort: EmbeddedCohort,
    experiment: ExperimentConfig,
    ideal: pd.DataFrame,
    folder: Path,
    judged: Path,
    methods: Sequence[str],
) -> None:
    """Train what is missing, and write what the condition shows."""
    trained = trained_predictions(experiment, cohort, folder, methods, runs=condition.runs)
    scored = with_circumstances(pd.concat([trained, ideal], ignore_index=True), cohort.aligned)
    table = _named(pd.DataFrame(recovery_rows(scored, experiment.evaluation)), condition)
    table.insert(5, "train_patients", cohort.splits.counts["train"])
    write_json(
        folder / "condition.json",
        {"condition": to_plain(condition), "experiment": plain_experiment(experiment)},
    )
    write_json(judged / MADE_OF, _made_of(cohort, folder, methods))
    write_parquet(judged / "predictions.parquet", scored)
    write_parquet(judged / "by.parquet", recovery_by(scored, experiment.evaluation))
    write_parquet(judged / "rows.parquet", table)


def _once(method: str) -> range:
    del method
    return range(1)


def trained_predictions(
    experiment: ExperimentConfig,
    cohort: EmbeddedCohort,
    folder: Path,
    methods: Sequence[str],
    *,
    runs: Callable[[str], range] = _once,
) -> pd.DataFrame:
    """Train `methods` into `folder`, or go on there, and score them beside LOCF and the oracle on test patients.

    Parameters
    ----------
    runs : training seeds of a method, counted from the experiment's
    """
    scaler = fit_lab_scaler(cohort.events.frame, cohort.splits, experiment.scaler)
    learned = [
        _scored_run(experiment, cohort, scaler, folder, method, run)
        for method in methods
        for run in runs(method)
    ]
    of_training = cohort.aligned.examples["patient_id"].isin(cohort.splits.patients("train"))
    fitted = fit_carry_forward(cohort.aligned.examples.loc[of_training])
    estimators = {name: fitted[name].estimate for name in ("locf", "shrunk_locf")}
    estimators[ORACLE] = lambda examples: oracle_estimates(cohort.truth, examples)
    tables = [
        score_estimator(
            name, estimate, cohort.aligned, cohort.splits, splits_to_score=TEST, seed=experiment.training.seed
        )
        for name, estimate in estimators.items()
    ]
    return pd.concat([*tables, *learned], ignore_index=True)


def _made_of(cohort: EmbeddedCohort, folder: Path, methods: Sequence[str]) -> list[str]:
    """Say of each trained method, first seed, what makes its estimates; the shares are kept beside its checkpoint."""
    told = []
    for method in methods:
        run = _scores(folder, method, 0).parent
        shares = kept_made_of(run, cohort.aligned, cohort.store, cohort.splits)
        told.append(made_of_sentence(makeup_of(run), shares))
    return told


def _scores(folder: Path, method: str, run: int) -> Path:
    return folder / (method if run == 0 else f"{method}_{run}") / "scores.parquet"


def _scored_run(
    experiment: ExperimentConfig,
    cohort: EmbeddedCohort,
    scaler: LabScaler,
    folder: Path,
    method: str,
    run: int,
) -> pd.DataFrame:
    """Train one method with one seed, score it, and keep the scores; or read those that are kept."""
    kept, seed = _scores(folder, method, run), experiment.training.seed + run
    if kept.exists():
        return pd.read_parquet(kept)
    if run and _left_to_chance(folder, method) is False:
        scores = pd.read_parquet(_scores(folder, method, 0)).assign(seed=seed)
        write_parquet(kept, scores)
        return scores
    logger.info("recovery: training %s, seed %d", method, run)
    recipe: TrainingConfig = dataclasses.replace(experiment.training, seed=seed)
    train(
        method, cohort.aligned, cohort.store, scaler, cohort.splits,
        dataclasses.asdict(experiment.shape_of(method)), recipe, kept.parent, experiment=plain_experiment(experiment),
    )  # fmt: skip
    scores = score(kept.parent, cohort.aligned, cohort.store, cohort.splits, splits_to_score=TEST)
    if run == 0:
        kept_made_of(kept.parent, cohort.aligned, cohort.store, cohort.splits)
    write_parquet(kept, scores)
    return scores


def _left_to_chance(folder: Path, method: str) -> bool | None:
    """Whether another seed gives another fit, which of filters read by lines it does not; None: not known yet."""
    if method != OURS:
        return True
    first = _scores(folder, method, 0)
    return bool(makeup_of(first.parent).numbers.get("network")) if first.exists() else None


def _ideal_predictions(experiment: ExperimentConfig, cohort: EmbeddedCohort, folder: Path) -> pd.DataFrame:
    """Score the readers that know the cohort's law, and keep how much of the shape the embedding tells."""
    kept = folder / "ideal.parquet"
    if kept.exists():
        return pd.read_parquet(kept)
    logger.info("recovery: ideal readers")
    readers, readout = ideal_readers(cohort, experiment.labs)
    tables = [
        score_estimator(
            name, estimate, cohort.aligned, cohort.splits, splits_to_score=TEST, seed=experiment.training.seed
        )
        for name, estimate in readers.items()
    ]
    names = list(cohort.truth.parameters.morphology)
    explained = {name: float(share) for name, share in zip(names, readout.explained, strict=True)}
    write_json(folder / "shape_readout.json", {"explained": explained, "quadratic": readout.quadratic})
    scores = pd.concat(tables, ignore_index=True)
    write_parquet(kept, scores)
    return scores
