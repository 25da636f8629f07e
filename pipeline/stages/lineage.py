"""What each stage's artefact depends on: parts of the configuration, and the artefacts of earlier stages.

The one table that `pipeline.stages.provenance` works from, for command line, Dagster and ``table1`` alike.
"""

import functools
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cohort.splits import Splits
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.overrides import dotted
from pipeline.foundation.schema import TRAINED_METHODS
from pipeline.foundation.workspace import Workspace
from pipeline.stages.encoder_files import plain_experiment
from pipeline.store.embeddings import EmbeddingStore
from pipeline.training.config import FIELDS_OF_THE_MACHINE
from pipeline.training.encoder.config import ENCODER_FIELDS_OF_THE_MACHINE

TRAIN = "train_"
UNCOMPARED = frozenset(
    {"name", "encoder_patients", "embedding_executor", "embedding", "training.seed"}
    | {f"training.{name}" for name in FIELDS_OF_THE_MACHINE}
    | {f"encoder_training.{name}" for name in ENCODER_FIELDS_OF_THE_MACHINE}
)
"""Fields, or groups of them, that decide no artefact's content, or (a run's seed) are chosen by another field."""

Artefact = Callable[[Workspace], Iterable[Path]]


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """One stage and its artefact.

    Attributes
    ----------
    command : what makes it, after ``python -m pipeline``
    artefact : its files, or folders whose files are meant; empty for the embedding store
    shown : what the artefact is called in a message
    parts : fields, or groups of fields, of the experiment that it depends on by itself
    inputs : stages whose artefacts it is made from
    grows : new patients come into it and leave what was made from it valid: its version is noted, never compared
    """

    command: str
    artefact: Artefact
    shown: str
    parts: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    grows: bool = False


_TRAINED: tuple[str, ...] = tuple(f"{TRAIN}{method}" for method in TRAINED_METHODS)
_SCORED = ("cohort_splits", "ppg_embeddings", "lab_alignment")
"""What scoring and training read; training reads the scaling of the labs beside it."""
_PARTS = {
    "lines": ("lines", "training.protocols", "training.allow_leaks"),
    "mt_assim": ("assimilation", "training.allow_leaks"),
    "mt_assim_twin": ("assimilation", "training.allow_leaks"),
    "mt_assim_lines": ("assimilation", "training.allow_leaks"),
}
"""Of the methods that are fitted in one go."""


def _training(method: str) -> Lineage:
    return Lineage(
        command=f"train --method {method}",
        artefact=lambda workspace: (workspace.root / "checkpoints" / method).glob(
            "seed*/**/best/config.json"
        ),
        shown=f"checkpoints/{method}",
        parts=_PARTS.get(method, ("model", "training")),
        inputs=("normalization_stats", *_SCORED),
    )


LINEAGE: dict[str, Lineage] = {
    "synthetic_cohort": Lineage(
        command="cohort",
        artefact=lambda workspace: [workspace.cohort / "complete.json", workspace.cohort / "started.json"],
        shown="cohort/", parts=("cohort",),
    ),
    "waveform_catalog": Lineage(
        command="catalog", artefact=lambda workspace: [workspace.catalog], shown="catalog.parquet",
        inputs=("synthetic_cohort",), grows=True,
    ),
    "lab_events": Lineage(
        command="labs", artefact=lambda workspace: [workspace.lab_events, workspace.admissions],
        shown="lab_events.parquet", parts=("labs",), inputs=("synthetic_cohort",),
    ),
    "ppg_embeddings": Lineage(
        command="embed", artefact=lambda workspace: [], shown="the embedding store",
        parts=("encoder", "encoder_precision", "window"), inputs=("waveform_catalog",),
    ),
    "cohort_splits": Lineage(
        command="split", artefact=lambda workspace: [workspace.splits], shown="splits.json", parts=("splits",),
        inputs=("waveform_catalog",),
    ),
    "normalization_stats": Lineage(
        command="normalize", artefact=lambda workspace: [workspace.scaler], shown="normalization.json",
        parts=("scaler",), inputs=("lab_events", "cohort_splits"),
    ),
    "lab_alignment": Lineage(
        command="align", artefact=lambda workspace: [workspace.aligned], shown="aligned/",
        parts=("sequences", "alignment"), inputs=("lab_events", "cohort_splits", "ppg_embeddings"),
    ),
    "train_encoder": Lineage(
        command="train_encoder",
        artefact=lambda workspace: [*workspace.encoder.glob("*.safetensors"), *workspace.encoder.glob("*.json")],
        shown="encoder/", parts=("encoder_training",), inputs=("waveform_catalog", *_SCORED),
    ),
    **{f"{TRAIN}{method}": _training(method) for method in TRAINED_METHODS},
    "predictions": Lineage(
        command="score", artefact=lambda workspace: [workspace.predictions], shown="predictions",
        parts=("methods", "seeds", "scorings"), inputs=(*_SCORED, *_TRAINED),
    ),
    "evaluation": Lineage(
        command="evaluate", artefact=lambda workspace: [workspace.evaluation, workspace.comparisons],
        shown="evaluation.parquet", parts=("evaluation",), inputs=("predictions",),
    ),
    "report": Lineage(
        command="report", artefact=lambda workspace: [workspace.report], shown="report.html", parts=("caveat",),
        inputs=("lab_events", *_SCORED, *_TRAINED, "predictions", "evaluation"),
    ),
    "table1": Lineage(
        command="table1",
        artefact=lambda workspace: [workspace.table1_text, workspace.table1_text.with_suffix(".parquet")],
        shown="table1.txt", parts=("caveat",), inputs=("evaluation",),
    ),
    "result_delay": Lineage(
        command="result-delay", artefact=lambda workspace: [workspace.result_delay], shown="result_delay.parquet",
        parts=("evaluation",), inputs=("lab_events", *_SCORED, f"{TRAIN}mt_pcs", f"{TRAIN}mt_pcs_twin"),
    ),
    "cross_validation": Lineage(
        command="cross-validate",
        artefact=lambda workspace: [*workspace.cross_validation.glob("*.parquet")],
        shown="cross_validation/",
        parts=("splits", "scaler", "seeds", "model", "lines", "assimilation", "training", "evaluation"),
        inputs=("lab_events", *_SCORED),
    ),
}  # fmt: skip
"""Every stage after those it depends on."""


def training_stage(method: str) -> str:
    """Return the stage that trains a method.

    Raises
    ------
    ConfigError : there is no such method
    """
    if method not in TRAINED_METHODS:
        raise ConfigError(
            f"There is no method {method!r} to train; choose one of {', '.join(TRAINED_METHODS)}."
        )
    return f"{TRAIN}{method}"


def inputs_of(stage: str, workspace: Workspace, experiment: ExperimentConfig) -> tuple[str, ...]:
    """Return the stages whose artefacts are there and that `stage` will read, earliest first."""
    unused = {f"{TRAIN}{method}" for method in TRAINED_METHODS if method not in experiment.methods}
    if not workspace.is_synthetic:
        unused.add("synthetic_cohort")
    chosen = set(LINEAGE[stage].inputs) - unused
    return tuple(name for name in LINEAGE if name in chosen and is_there(name, workspace))


def files_of(stage: str, workspace: Workspace) -> list[Path]:
    """Return the files that a stage's artefact consists of; half-written ones are hidden and left out."""
    files: list[Path] = []
    for path in LINEAGE[stage].artefact(workspace):
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        files += [file for file in inside if file.is_file() and not file.name.startswith(".")]
    return files


def is_there(stage: str, workspace: Workspace) -> bool:
    """Whether a stage has made its artefact; a method counts as trained once its stage has ended."""
    if stage == "ppg_embeddings":
        return not isinstance(workspace.store, Path) or workspace.store.exists()
    if stage.startswith(TRAIN) and not workspace.summary(stage).exists():
        return False
    return bool(files_of(stage, workspace))


def own_fields(stage: str, workspace: Workspace, experiment: ExperimentConfig) -> dict[str, Any]:
    """Return the fields, by dotted name, that decide a stage's artefact beside its inputs."""
    if stage == "synthetic_cohort" and not workspace.is_synthetic:
        return {}
    parts = LINEAGE[stage].parts
    return {
        name: value for name, value in dotted(plain_experiment(experiment)).items() if _belongs(name, parts)
    }


@functools.cache
def is_compared(field: str) -> bool:
    """Whether a field decides the content of any artefact."""
    return not is_of(field, UNCOMPARED)


@functools.cache
def _belongs(field: str, parts: tuple[str, ...]) -> bool:
    return is_compared(field) and is_of(field, parts)


def is_of(field: str, parts: Iterable[str]) -> bool:
    """Whether a field, by its dotted name, is one of `parts` or lies in one."""
    return any(field == part or field.startswith(f"{part}.") for part in parts)


def embeddings_version(workspace: Workspace) -> str:
    """Return the hash of the embeddings of the patients who are in the splits: new patients leave it as it is."""
    store = EmbeddingStore.open(workspace.store)
    if not workspace.splits.exists():
        return store.data_version()
    splits, manifest = Splits.load(workspace.splits), store.manifest()
    keys = (store.patient_key(patient) for patient in splits.patients(*splits.members))
    lines = sorted(f"{manifest[key].path} {manifest[key].data_hash}" for key in keys if key in manifest)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
