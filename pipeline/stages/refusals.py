"""What is said of an artefact that a stage refuses: what differs, both values, and the command that rebuilds it."""

import json
import shlex
from collections.abc import Iterable
from typing import Any

from pipeline.emulation.model import EMULATED
from pipeline.experiments import EXPERIMENTS, ExperimentConfig
from pipeline.foundation.artefact_records import ArtefactRecord, file_states, version_of
from pipeline.foundation.errors import StaleArtefactError
from pipeline.foundation.overrides import differences
from pipeline.foundation.workspace import Workspace
from pipeline.stages.encoder_files import same_value
from pipeline.stages.evidence import Contradiction
from pipeline.stages.lineage import LINEAGE, embeddings_version, files_of, is_there


def made_otherwise(
    workspace: Workspace,
    experiment: ExperimentConfig,
    stage: str,
    beside: Iterable[str],
    problem: Contradiction,
) -> StaleArtefactError:
    """Return the error of an artefact that was made with another value of one field.

    Parameters
    ----------
    stage : whose artefact it is
    beside : the stages whose artefacts are read together with it
    """
    field, found, wanted = problem
    if field == "encoder":
        _require_encoder(experiment.encoder)
    outdated = _made_with(workspace, {*beside, stage}, field, wanted) or [stage]
    return StaleArtefactError(
        f"{LINEAGE[outdated[0]].shown} was made with {field} = {_text(found)}, and this run has {field} = "
        f"{_text(wanted)}: {_rebuild(workspace, experiment, outdated)}, or go back to {field} = {_text(found)}."
    )


def _require_encoder(name: str) -> None:
    """Refuse an encoder that cannot be built, rather than print a command that would fail."""
    if name.startswith(EMULATED):
        return
    from pipeline.embedding.encoders import make_encoder  # imports torch, which definitions must not

    make_encoder(name, device="cpu")


def made_from_others(
    workspace: Workspace, experiment: ExperimentConfig, stages: Iterable[str], ancestor: str
) -> StaleArtefactError:
    """Return the error of artefacts, those of `stages`, that were made from different versions of `ancestor`."""
    today = version_today(workspace, ancestor, ArtefactRecord.load(workspace.record(ancestor)))
    records = {name: ArtefactRecord.load(workspace.record(name)) for name in LINEAGE if name in set(stages)}
    used = {
        name: record.ancestors[ancestor]
        for name, record in records.items()
        if record is not None and ancestor in record.ancestors
    }
    outdated = [name for name, version in used.items() if version != today] or list(used)
    other = "other embeddings" if ancestor == "ppg_embeddings" else f"another {LINEAGE[ancestor].shown}"
    return StaleArtefactError(
        f"{LINEAGE[outdated[0]].shown} was made from {other} than is there now: "
        f"{_rebuild(workspace, experiment, outdated)}."
    )


def changed(workspace: Workspace, experiment: ExperimentConfig, stage: str) -> StaleArtefactError:
    """Return the error of an artefact that is not what its record describes."""
    return StaleArtefactError(
        f"{LINEAGE[stage].shown} is not what '{stage}' wrote, because it was changed or its stage was interrupted: "
        f"{_rebuild(workspace, experiment, [stage])}."
    )


def version_today(workspace: Workspace, stage: str, record: ArtefactRecord | None) -> str:
    """Return the version of an artefact as it lies there; `record` spares hashing what did not change."""
    if stage == "ppg_embeddings":
        return embeddings_version(workspace) if is_there(stage, workspace) else ""
    return version_of(
        file_states(workspace.root, files_of(stage, workspace), record.files if record else None)
    )


def _made_with(workspace: Workspace, stages: set[str], field: str, wanted: Any) -> list[str]:
    """Return the artefacts among and behind `stages` that record another value of `field`, earliest first."""
    records = {name: ArtefactRecord.load(workspace.record(name)) for name in LINEAGE}
    behind = {*stages, *(name for stage in stages if (found := records[stage]) for name in found.ancestors)}
    return [
        name
        for name, record in records.items()
        if name in behind
        and record is not None
        and not same_value(field, record.config.get(field, wanted), wanted)
    ]


def _rebuild(workspace: Workspace, experiment: ExperimentConfig, stages: list[str]) -> str:
    """Return the command that makes the first of `stages` again, and what has to follow it."""
    first = LINEAGE[stages[0]]
    words = ["python -m pipeline", first.command, *_same_experiment(experiment), *workspace.arguments()]
    cleared = f"delete {workspace.cohort} and " if stages[0] == "synthetic_cohort" else ""
    after = dict.fromkeys(LINEAGE[stage].command.split()[0] for stage in stages[1:])
    then = f", then {', '.join(after)} in the same way" if after else ""
    return f"{cleared}rebuild it with {' '.join(words)} (asset {stages[0]}){then}"


def _same_experiment(experiment: ExperimentConfig) -> list[str]:
    """Return the arguments that name this configuration: the nearest experiment and what differs from it."""
    changes = {name: differences(experiment, build()) for name, build in EXPERIMENTS.items()}
    name = min(changes, key=lambda name: (len(changes[name]), name != experiment.name))
    sets = (f"--set {shlex.quote(f'{field}={_text(value)}')}" for field, value in changes[name].items())
    return [f"--experiment {name}", *sets]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
