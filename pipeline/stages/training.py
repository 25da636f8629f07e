"""The stage that trains one method, for every seed of the experiment."""

import dataclasses
import datetime
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cohort.normalization import LabScaler
from pipeline.cohort.splits import Splits
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.atomic import make_private_dir
from pipeline.foundation.errors import OtherRunError
from pipeline.foundation.progress import Bar, progress
from pipeline.foundation.summary import StageSummary
from pipeline.foundation.workspace import Workspace, require
from pipeline.stages.encoder_files import plain_experiment
from pipeline.stages.evidence import of_training_data
from pipeline.stages.ingest import source_note
from pipeline.stages.provenance import recorded
from pipeline.store.embeddings import EmbeddingStore

if TYPE_CHECKING:
    from pipeline.training.config import TrainingProgress, TrainingResult
    from pipeline.training.distributed import Ranks

logger = logging.getLogger(__name__)


def check_devices(experiment: ExperimentConfig) -> None:
    """Refuse devices that this machine has not, before hours of work that end on them.

    Raises
    ------
    ConfigError : ``training.device`` or ``embedding.device`` names a GPU that PyTorch does not see
    """
    from pipeline.embedding.encoders import chosen_device  # both import torch, which definitions must not
    from pipeline.training.distributed import pick_device

    chosen_device(experiment.embedding.device)
    pick_device(experiment.training.device, field="training.device")


@recorded("train")
def train(workspace: Workspace, experiment: ExperimentConfig, *, method: str) -> StageSummary:
    """Train `method`, or go on where an interrupted training stopped."""
    asset = f"train_{method}"
    require(workspace.aligned, made_by="lab_alignment", asset=asset)  # a wrong start fails before torch loads

    from pipeline.training.distributed import joined_ranks  # imports torch, which definitions must not

    folders = [workspace.checkpoint(method, seed) for seed in experiment.seeds]
    before = weight_files(folders)
    with joined_ranks() as ranks:
        results = _trained(workspace, experiment, method, asset, ranks)
        unchanged = unchanged_since(before, weight_files(folders), method)
        if unchanged:
            logger.info("%s: %s", asset, unchanged)
        summary = _summary(asset, results, unchanged)
        ranks.alone(lambda: summary.save(workspace.summary(asset)))
    return summary


def weight_files(folders: Sequence[Path]) -> dict[Path, int]:
    """Return when each file of weights below some folders was written, ns."""
    return {path: path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*.safetensors")}


def unchanged_since(before: Mapping[Path, int], after: Mapping[Path, int], method: str) -> str:
    """Say that a finished training was found, and how to train anew; "" where something was trained."""
    if not before or before != after:
        return ""
    day = datetime.datetime.fromtimestamp(max(before.values()) / 1e9).date()  # noqa: DTZ006 - the reader's calendar
    return (
        f"trained on {day.isoformat()}, nothing to do; to train anew, move checkpoints/{method} away, or change the "
        "configuration, and start it again"
    )


def _trained(
    workspace: Workspace, experiment: ExperimentConfig, method: str, asset: str, ranks: "Ranks"
) -> list["TrainingResult"]:
    """Train every seed of the experiment."""
    from pipeline.cohort.aligned import AlignedCohort
    from pipeline.training.distributed import pick_device
    from pipeline.training.method import train as train_method

    with ranks.in_step():
        # One that is not here is refused before anything is read.
        pick_device(experiment.training.device, field="training.device")
        aligned = AlignedCohort.load(workspace.aligned)
        store = EmbeddingStore.open(require(workspace.store, made_by="ppg_embeddings", asset=asset))
        scaler_file = require(workspace.scaler, made_by="normalization_stats", asset=asset)
        scaler = LabScaler.from_json(json.loads(scaler_file.read_text()))
        splits = Splits.load(require(workspace.splits, made_by="cohort_splits", asset=asset))
        provenance = {"source": source_note(workspace), "data_version": store.data_version()}
    scored = workspace.summary(asset)

    def heard(count: Callable[["TrainingProgress"], None], now: "TrainingProgress") -> None:
        scored.unlink(missing_ok=True)  # half trained, it must not be scored
        count(now)
        _log_epoch(now)

    def unscored(work: Callable[[], None]) -> None:
        ranks.alone(lambda: (scored.unlink(missing_ok=True), work()))

    results = []
    for seed in experiment.seeds:
        folder = workspace.checkpoint(method, seed)
        with progress(f"training {method}, seed {seed}", unit="batches") as bar:
            train_once = partial(
                train_method, method, aligned, store, scaler, splits,
                dataclasses.asdict(experiment.shape_of(method)), dataclasses.replace(experiment.training, seed=seed),
                folder, partial(heard, _batch_counter(bar)),
                experiment=plain_experiment(experiment), provenance=provenance,
            )  # fmt: skip
            on_these_data = partial(_on_these_data, folder, workspace, experiment, train_once, ranks)
            results.append(_anew_where_inputs_changed(folder, on_these_data, unscored))
    return results


def _batch_counter(bar: Bar) -> Callable[["TrainingProgress"], None]:
    """Return what moves a bar over all batches of a model, those that early stopping may leave out included."""
    counted = ""

    def told(now: "TrainingProgress") -> None:
        nonlocal counted
        of = f"training {now.method}{'' if now.part == 'all' else f' {now.part}'}"
        done, total = (now.epoch - 1) * now.batches + now.batch, now.epochs * now.batches
        if of != counted:  # a resumed run begins in the middle
            bar.begin(of, total, done - 1)
            counted = of
        bar.reach(done, total, f"{of}, epoch {now.epoch} of {now.epochs}")

    return told


def _on_these_data(
    folder: Path,
    workspace: Workspace,
    experiment: ExperimentConfig,
    train_once: "Callable[[], TrainingResult]",
    ranks: "Ranks",
) -> "TrainingResult":
    """Train, unless the folder's checkpoints say that their data were made with another configuration."""

    def check() -> None:
        for field, found, wanted in of_training_data(folder, workspace, experiment):
            raise OtherRunError(f"{folder} was trained on data made with {field} = {found}, not {wanted}")

    ranks.alone(check)
    return train_once()


def _anew_where_inputs_changed(
    folder: Path,
    train_once: "Callable[[], TrainingResult]",
    alone: Callable[[Callable[[], None]], object] = lambda work: work(),
) -> "TrainingResult":
    """Train; a run of another configuration, cohort or split in the folder is set aside first, and kept.

    `alone` lets one of several processes do something while the others wait.
    """
    try:
        return train_once()
    except OtherRunError:
        alone(partial(set_aside, folder))
        logger.info(
            "configuration, cohort or splits changed: training anew, the earlier run is kept in %s/previous",
            folder.parent.name,
        )
        return train_once()


def set_aside(folder: Path) -> None:
    """Move a run to ``previous/<name>``, and what was there before to ``previous/<name>.<number>``: nothing is lost."""
    previous = make_private_dir(folder.parent / "previous")
    place = previous / folder.name
    if place.exists():
        numbers = (
            int(path.suffix[1:]) for path in previous.glob(f"{folder.name}.*") if path.suffix[1:].isdigit()
        )
        place.rename(previous / f"{folder.name}.{max(numbers, default=0) + 1}")
    folder.rename(place)


def _log_epoch(progress: "TrainingProgress") -> None:
    if progress.validation is None:
        return
    part = "" if progress.part == "all" else f" {progress.part}"
    errors = ", ".join(f"{lab} {error:.4f}" for lab, error in progress.validation.items())
    logger.info(
        "%s%s: epoch %d of %d, loss %.4f, %s, validation error %s",
        progress.method, part, progress.epoch, progress.epochs, progress.loss, _pace(progress), errors,
    )  # fmt: skip


def _pace(progress: "TrainingProgress") -> str:
    busy, pace = progress.busy_share or 0.0, progress.steps_per_second or 0.0
    return f"{pace:,.0f} steps/s, busy {busy:.0%}"


def _summary(asset: str, results: list["TrainingResult"], unchanged: str) -> StageSummary:
    from pipeline.report.figures import loss_curve_svg
    from pipeline.report.made_of import made_of_sentence
    from pipeline.training.counting import makeup_of

    first = results[0]
    counts: dict[str, int | float | str] = {"unchanged": unchanged} if unchanged else {}
    counts["made_of"] = made_of_sentence(makeup_of(first.checkpoint_dir))
    counts |= {"seeds": len(results), **_where_it_ended(first.epochs)}
    for part, numbers in first.counts.items():
        prefix = "" if part == "all" else f"{part}_"
        counts |= {f"{prefix}{name}": value for name, value in numbers.items()}
        counts[f"{prefix}best_epoch"] = first.best_epochs[part]
    learnt = any(
        row["loss"] is not None for row in first.epochs
    )  # else fitted in one go: a curve of one point
    return StageSummary(
        stage=asset,
        counts=counts,
        tables={"epochs": [_shown(row) for row in first.epochs]} if learnt else {},
        figures={"loss curve": loss_curve_svg(first.epochs)} if learnt else {},
        artefacts={"checkpoint": first.checkpoint_dir},
    )


def _where_it_ended(epochs: list[dict]) -> dict[str, float]:
    """Loss of the last epoch, and the validation error of what is kept: means over the parts (st_pcs: labs)."""
    last = {row["part"]: row["loss"] for row in epochs if row["loss"] is not None}
    kept = {
        row["part"]: row["selection_error"]
        for row in epochs
        if row.get("kept") and row.get("selection_error") is not None
    }
    ended = {"final_loss": sum(last.values()) / len(last)} if last else {}
    return ended | ({"best_validation_error": sum(kept.values()) / len(kept)} if kept else {})


def _shown(row: dict) -> dict:
    """Return an epoch as a person reads it; its errors by lab are in ``metrics.jsonl`` and in the picture."""
    part = {} if row["part"] == "all" else {"lab": row["part"]}
    shown = {"epoch": row["epoch"], "training loss": row["loss"]}
    if row.get("selection_error") is not None:
        shown["validation error"] = row["selection_error"]
    return part | shown | {"learning rate": row["learning_rate"], "seconds": row["seconds"]}
