"""What an artefact tells by itself of the configuration that it was made with, where no record lies beside it.

For artefacts made before there were records, and for the embedding store, which several experiments may share.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from models.encoders.part_names import holds_parts
from pipeline.cohort.splits import Splits
from pipeline.embedding.names import WITHOUT_READOUTS
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.overrides import dotted
from pipeline.foundation.provenance import config_hash
from pipeline.foundation.schema import TRAINED_METHODS
from pipeline.foundation.workspace import Workspace
from pipeline.stages.encoder_files import plain_experiment, same_value
from pipeline.stages.lineage import LINEAGE, TRAIN, files_of, is_compared, is_of, own_fields
from pipeline.store.embeddings import EmbeddingStore

_RESOLVED = frozenset({"encoder_precision", "training.amp", "training.steps_per_micro_batch"})
"""Fields that an experiment may leave to the machine: a checkpoint may name what they came to, and tells nothing."""
_REDUCED = re.compile(r"_bfloat16_r\d+$")
"""How the store's names of encoders say that they ran in a reduced precision."""


class Contradiction(NamedTuple):
    """A field of the configuration, as an artefact has it and as this run has it."""

    field: str
    found: Any
    wanted: Any


def contradictions(stage: str, workspace: Workspace, experiment: ExperimentConfig) -> list[Contradiction]:
    """Return what in a stage's artefact contradicts the experiment; what it does not tell contradicts nothing."""
    if stage == "ppg_embeddings":
        return list(_of_store(workspace, experiment))
    trains_a_method = stage.removeprefix(TRAIN) in TRAINED_METHODS
    telling = _TELLING.get(TRAIN if trains_a_method else stage)
    return [] if telling is None else contradicted(telling(stage, workspace), experiment)


def contradicted(told: Mapping[str, Any], experiment: ExperimentConfig) -> list[Contradiction]:
    """Return the fields in which `told` differs from the experiment; fields that one of them lacks are left out."""
    wanted = dotted(plain_experiment(experiment))
    return [
        Contradiction(name, value, wanted[name])
        for name, value in told.items()
        if name in wanted and is_compared(name) and not same_value(name, value, wanted[name])
    ]


def of_training_data(folder: Path, workspace: Workspace, experiment: ExperimentConfig) -> list[Contradiction]:
    """Return where a run's checkpoints name other data than the experiment: what `predict` would repeat is then false.

    A training knows its data by content, and labs cleaned in another way may come out alike.
    """
    wanted: dict[str, Any] = {}
    for stage in LINEAGE:
        if stage in _behind_training():
            wanted |= own_fields(stage, workspace, experiment)
    told = [dotted(_json(path).get("experiment", {})) for path in sorted(folder.rglob("config.json"))]
    return [
        Contradiction(name, stored[name], value)
        for stored in told
        for name, value in wanted.items()
        if name in stored and name not in _RESOLVED and not same_value(name, stored[name], value)
    ]


def _behind_training() -> set[str]:
    """Return every stage that a training depends on, directly or not."""
    found, waiting = set[str](), list(LINEAGE[f"{TRAIN}mt_pcs"].inputs)
    while waiting:
        stage = waiting.pop()
        found.add(stage)
        waiting += LINEAGE[stage].inputs
    return found


def _of_store(workspace: Workspace, experiment: ExperimentConfig) -> Iterator[Contradiction]:
    """Read encoder and windows of each patient from the manifest, whoever embedded."""
    entries = EmbeddingStore.open(workspace.store).manifest().values()
    keys = [entry.key for entry in entries if not entry.retired]
    windows = f"{experiment.window.version}-{config_hash(experiment.window)[:12]}"
    if others := sorted({key.preprocessing_version for key in keys} - {windows}):
        yield Contradiction("window", others[0], windows)
    wanted, chosen = (
        experiment.encoder_precision,
        experiment.encoder.partition(":")[0] not in WITHOUT_READOUTS,
    )
    if chosen and wanted != "auto" and (others := sorted({key.precision for key in keys} - {wanted})):
        yield Contradiction("encoder_precision", others[0], wanted)
    path = Path(experiment.encoder)
    is_path = bool({"/", ":"} & set(experiment.encoder)) or path.is_file() or holds_parts(path)
    others = sorted({_REDUCED.sub("", key.encoder_name) for key in keys} - {experiment.encoder})
    if others and not is_path:
        yield Contradiction("encoder", others[0], experiment.encoder)


def _by_cohort(stage: str, workspace: Workspace) -> dict[str, Any]:
    facts = _json(workspace.cohort / "started.json")
    return _fields(
        "cohort", {name: facts[name] for name in ("size", "coupling", "null", "seed") if name in facts}
    )


def _by_splits(stage: str, workspace: Workspace) -> dict[str, Any]:
    seed = Splits.load(workspace.splits).seed
    return {} if seed is None else {"splits.seed": seed}


def _by_scaler(stage: str, workspace: Workspace) -> dict[str, Any]:
    content = _json(workspace.scaler)
    return _fields("scaler", {name: content[name] for name in ("fitted_on", "clip") if name in content})


def _by_alignment(stage: str, workspace: Workspace) -> dict[str, Any]:
    return _fields("alignment", _json(workspace.aligned / "alignment.json").get("config", {}))


def _by_checkpoints(stage: str, workspace: Workspace) -> dict[str, Any]:
    """Return what decides the method; the rest of what a checkpoint says of its experiment was never checked."""
    told: dict[str, Any] = {}
    for path in files_of(stage, workspace):
        stored = _json(path).get("experiment", {})
        for part in ("model", "lines", "assimilation"):
            told |= _fields(part, stored.get(part, {}))
        if stage != f"{TRAIN}lstm":  # whose epochs, rate and batches stand in the place of the others'
            told |= _fields("training", stored.get("training", {}))
    return {
        name: value
        for name, value in told.items()
        if name not in _RESOLVED and is_of(name, LINEAGE[stage].parts)
    }


_TELLING: Mapping[str, Callable[[str, Workspace], dict[str, Any]]] = {
    "synthetic_cohort": _by_cohort,
    "cohort_splits": _by_splits,
    "normalization_stats": _by_scaler,
    "lab_alignment": _by_alignment,
    TRAIN: _by_checkpoints,
}


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _fields(part: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{part}.{name}": value for name, value in dotted(values).items()}
