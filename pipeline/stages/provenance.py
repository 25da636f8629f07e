"""Provenance that cannot lie: a stage refuses inputs that were made with another configuration, or from other inputs.

`recorded` wraps a stage: the inputs are checked before it runs, what it writes carries its note, and a record of what
made its artefact is written after it. Command line, Dagster and ``table1`` call the wrapped stages, so all do the same.
"""

import functools
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

from pipeline.experiments import ExperimentConfig
from pipeline.foundation.artefact_notes import ArtefactNote, noted, parquet_note
from pipeline.foundation.artefact_records import ArtefactRecord, file_states, version_of
from pipeline.foundation.atomic import require_writable
from pipeline.foundation.errors import StaleArtefactError
from pipeline.foundation.ranks import speaks_for_all
from pipeline.foundation.workspace import Workspace
from pipeline.stages.encoder_files import same_value
from pipeline.stages.encoder_patients import refuse_division_of
from pipeline.stages.evidence import contradicted, contradictions
from pipeline.stages.lineage import (
    LINEAGE,
    embeddings_version,
    files_of,
    inputs_of,
    is_there,
    own_fields,
    training_stage,
)
from pipeline.stages.refusals import changed, made_from_others, made_otherwise, version_today
from pipeline.stages.sources import CLAIMS, check_sources, claim_source, refuse_another_source

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger(__name__)

_BEFORE_ANY_DIVISION = frozenset({"synthetic_cohort", "waveform_catalog", "lab_events", "cohort_splits"})
"""Stages that read no division, or draw one (which `cohort_splits` checks itself, whatever lay there before)."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a stage will read, found to fit together.

    Attributes
    ----------
    versions : of the direct inputs, by stage
    ancestors : of everything behind them, direct ones included
    config : fields that decided them, by dotted name
    licences : of the data behind them
    """

    versions: Mapping[str, str]
    ancestors: Mapping[str, str]
    config: Mapping[str, Any]
    licences: frozenset[str]


def recorded(
    stage: str,
) -> Callable[
    [Callable[Concatenate[Workspace, ExperimentConfig, P], R]],
    Callable[Concatenate[Workspace, ExperimentConfig, P], R],
]:
    """Return a decorator: inputs are checked before the stage runs, and a record is written after it.

    Parameters
    ----------
    stage : its name in `LINEAGE`; "train" is completed by the keyword ``method``
    """

    def decorate(
        run: Callable[Concatenate[Workspace, ExperimentConfig, P], R],
    ) -> Callable[Concatenate[Workspace, ExperimentConfig, P], R]:
        @functools.wraps(run)
        def wrapped(
            workspace: Workspace, experiment: ExperimentConfig, *args: P.args, **kwargs: P.kwargs
        ) -> R:
            name = training_stage(str(kwargs["method"])) if stage == "train" else stage
            with recording(workspace, experiment, name):
                return run(workspace, experiment, *args, **kwargs)

        return wrapped

    return decorate


@contextmanager
def recording(workspace: Workspace, experiment: ExperimentConfig, stage: str) -> Iterator[None]:
    """Check what `stage` will read, open its note, and write the record when the block has ended without an error."""
    inputs = check_inputs(workspace, experiment, stage)
    require_writable(workspace.record(stage))
    if stage in CLAIMS:
        check_sources(workspace, waveforms="waveforms" in CLAIMS[stage])
        claim_source(workspace, stage)
    config = {**inputs.config, **own_fields(stage, workspace, experiment)}
    note = ArtefactNote.of(stage, config=config, inputs=inputs.versions, licences=inputs.licences)
    with noted(note):
        yield
    if speaks_for_all() and is_there(stage, workspace):
        before = ArtefactRecord.load(workspace.record(stage))
        files = file_states(workspace.root, files_of(stage, workspace), before.files if before else None)
        ArtefactRecord(
            stage=stage, config=config, inputs=inputs.versions, ancestors=inputs.ancestors,
            licences=tuple(sorted(note.licences)), files=files,
            version=embeddings_version(workspace) if stage == "ppg_embeddings" else version_of(files),
        ).save(workspace.record(stage))  # fmt: skip


def check_inputs(workspace: Workspace, experiment: ExperimentConfig, stage: str) -> Inputs:
    """Return what `stage` will read; inputs that are not there yet are left to the stage, which names who makes them.

    Raises
    ------
    OtherSourceError
        The folder holds artefacts of another source than this run's.
    StaleArtefactError
        An input was made with another configuration than `experiment`, or from other inputs than the others; the
        message names it, both values and the command that rebuilds it.
    LeakError
        The division holds out patients whom the encoder was fine-tuned on.
    """
    refuse_another_source(workspace)
    if stage not in _BEFORE_ANY_DIVISION:
        refuse_division_of(workspace, experiment)
    return _fitting_together(workspace, experiment, inputs_of(stage, workspace, experiment))


def refuse_another(workspace: Workspace, experiment: ExperimentConfig, stage: str) -> None:
    """Refuse an artefact that is there and was made with another configuration, for a stage that replaces none.

    Raises
    ------
    StaleArtefactError : as of `check_inputs`
    """
    if is_there(stage, workspace) and (problems := contradictions(stage, workspace, experiment)):
        raise made_otherwise(workspace, experiment, stage, (stage,), problems[0])


def agrees(workspace: Workspace, experiment: ExperimentConfig, stage: str, *, beside: str) -> bool:
    """Whether the artefact of `stage` may stand beside what `beside` reads; where not, it is said once in the log."""
    try:
        inputs = inputs_of(beside, workspace, experiment)
        _fitting_together(workspace, experiment, (*inputs, stage) if is_there(stage, workspace) else inputs)
    except StaleArtefactError as problem:
        logger.warning("%s is left out: %s", LINEAGE[stage].shown, problem)
        return False
    return is_there(stage, workspace)


def is_current(workspace: Workspace, experiment: ExperimentConfig, stage: str) -> bool:
    """Whether running `stage` again would make the same artefact, as far as configuration and inputs tell."""
    record = ArtefactRecord.load(workspace.record(stage))
    if record is None or not is_there(stage, workspace):
        return False
    try:
        inputs = check_inputs(workspace, experiment, stage)
        now = _look(workspace, experiment, stage, beside=(stage,))
    except StaleArtefactError:
        return False
    compared = {name for name in record.inputs if not LINEAGE[name].grows}
    same_inputs = record.inputs.keys() == inputs.versions.keys() and all(
        record.inputs[name] == inputs.versions[name] for name in compared
    )
    wanted = {**inputs.config, **own_fields(stage, workspace, experiment)}
    same_fields = record.config.keys() == wanted.keys() and all(
        same_value(name, record.config[name], value) for name, value in wanted.items()
    )
    return same_inputs and now.record is not None and same_fields


@dataclass(frozen=True, kw_only=True)
class _Artefact:
    """One artefact as it lies there; without a record, or not as recorded, it tells nothing of its making."""

    stage: str
    version: str
    record: ArtefactRecord | None


def _fitting_together(workspace: Workspace, experiment: ExperimentConfig, stages: tuple[str, ...]) -> Inputs:
    found = [_look(workspace, experiment, stage, beside=stages) for stage in stages]
    versions = {artefact.stage: artefact.version for artefact in found}
    ancestors = dict(versions)
    config: dict[str, Any] = {}
    licences: set[str] = set()
    for artefact in found:
        if artefact.record is None:
            continue
        for name, version in artefact.record.ancestors.items():
            known = ancestors.setdefault(name, version)
            if known != version and name in LINEAGE and not LINEAGE[name].grows:
                raise made_from_others(workspace, experiment, stages, name)
        config.update(artefact.record.config)
        licences.update(artefact.record.licences)
    return Inputs(versions=versions, ancestors=ancestors, config=config, licences=frozenset(licences))


def _look(
    workspace: Workspace, experiment: ExperimentConfig, stage: str, *, beside: tuple[str, ...]
) -> _Artefact:
    """Return an artefact, found to be as it was recorded and made with the configuration of this run."""
    record = ArtefactRecord.load(workspace.record(stage))
    version = version_today(workspace, stage, record)
    if record is None and _lost_its_record(workspace, stage):
        raise changed(workspace, experiment, stage)
    if record is not None and stage != "ppg_embeddings" and version != version_of(record.files):
        if stage == "cohort_splits" and _is_the_users_own(workspace):
            _tell_once(workspace, f"{LINEAGE[stage].shown} is a division of your own: taken as it is")
            return _Artefact(stage=stage, version=version, record=None)
        raise changed(workspace, experiment, stage)
    problems = [] if record is None else contradicted(record.config, experiment)
    if (
        record is None or stage == "ppg_embeddings"
    ):  # others may share it, and its run may have been interrupted
        problems += contradictions(stage, workspace, experiment)
    if problems:
        raise made_otherwise(workspace, experiment, stage, beside, problems[0])
    if record is None:
        told = f"{LINEAGE[stage].shown} was made before provenance records: taken as this run's"
        _tell_once(workspace, told)
    return _Artefact(stage=stage, version=version, record=record)


def _lost_its_record(workspace: Workspace, stage: str) -> bool:
    """Whether a table carries the note of `stage`, which writes its record last; old tables have neither."""
    tables = [path for path in files_of(stage, workspace) if path.suffix == ".parquet"]
    return stage != "ppg_embeddings" and any(parquet_note(path).get("stage") == stage for path in tables)


def _is_the_users_own(workspace: Workspace) -> bool:
    try:
        return "hash" not in json.loads(workspace.splits.read_text(encoding="utf-8"))
    except ValueError:
        return False


@functools.cache
def _tell_once(workspace: Workspace, what: str) -> None:
    logger.warning("%s: %s", workspace.root.name, what)
