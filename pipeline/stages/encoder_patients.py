"""The one place where a run is refused that would judge an encoder on patients whose labs it has learned."""

import json
from pathlib import Path

from pipeline.cohort.encoder_patients import LearnedFrom, learned_from, refuse_learned_patients
from pipeline.cohort.splits import Splits, split_subjects
from pipeline.embedding.weights_files import file_of
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.artefact_notes import HEADER_KEY
from pipeline.foundation.tensor_files import weights_texts
from pipeline.foundation.workspace import Workspace
from pipeline.sources.catalog import catalogued_patients


def encoder_patients(experiment: ExperimentConfig) -> tuple[LearnedFrom, ...]:
    """Return whom the experiment's encoder was fine-tuned on; empty for an encoder that has seen no lab.

    Raises
    ------
    CheckpointError : its weights file cannot be read
    """
    return learned_from(file_of(experiment.encoder))


def weights_licences(weights: Path | None) -> list[str]:
    """Return the licences of the data that weights come from, as their file names them; none where it does not."""
    note = {} if weights is None else json.loads(weights_texts(weights).get(HEADER_KEY, "{}"))
    return [str(licence) for licence in note.get("licences", ())]


def refuse_division(experiment: ExperimentConfig, splits: Splits) -> None:
    """Refuse a division that holds out patients whom the experiment's encoder has learned from.

    Raises
    ------
    LeakError : it does; the message names no patient
    """
    if experiment.encoder_patients == "refuse":
        refuse_learned_patients(encoder_patients(experiment), splits, experiment.encoder)


def refuse_division_of(workspace: Workspace, experiment: ExperimentConfig) -> None:
    """Do what `refuse_division` does for the division that is there, or else for the one that will be drawn.

    Before anything is embedded there is no division yet; it follows from catalogue and configuration.

    Raises
    ------
    LeakError : as above
    """
    if experiment.encoder_patients != "refuse" or not encoder_patients(experiment):
        return
    if workspace.splits.exists():
        refuse_division(experiment, Splits.load(workspace.splits))
    elif workspace.catalog.exists():
        patients = set(catalogued_patients(workspace.catalog))
        if len(patients) >= 4:  # fewer cannot be divided, which the stage itself says
            refuse_division(experiment, split_subjects(patients, experiment.splits))
