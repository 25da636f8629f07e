"""What the report says of patients and models beside the results: the flow, who is in which split, the model card."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping

import pandas as pd

from pipeline.cohort.splits import Splits
from pipeline.evaluation.characteristics import characteristics
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.errors import MissingArtifactError
from pipeline.foundation.number_format import counted
from pipeline.foundation.provenance import source_commit
from pipeline.foundation.schema import FITTED_METHODS, PROTOCOLS, SPLITS
from pipeline.foundation.summary import load_summary
from pipeline.foundation.workspace import Workspace
from pipeline.report.flow import Flow, FlowArm, FlowStep

PURPOSES = {
    "train": "models learn from them",
    "validation": "choose the epoch",
    "calibration": "set the intervals",
    "test": "every number is of these",
}
_STAGES = ("waveform_catalog", "lab_events", "ppg_embeddings", "lab_alignment")


def summaries_of(workspace: Workspace, experiment: ExperimentConfig) -> Iterator[tuple[str, dict]]:
    """Yield the summaries of the stages behind the report; one of a training that did not run is left out.

    Raises
    ------
    MissingArtifactError : another stage has not run
    """
    trained = [f"train_{method}" for method in experiment.methods]
    for stage in (*_STAGES, *trained, "predictions"):
        try:
            yield stage, load_summary(workspace.summary(stage))
        except MissingArtifactError:
            if stage not in trained:
                raise


def flow_of(workspace: Workspace, summaries: Mapping[str, dict]) -> Flow:
    """Count patients and draws from the recordings to the test, from the stages' own summaries."""
    catalog, embedded, aligned = (
        summaries[name] for name in ("waveform_catalog", "ppg_embeddings", "lab_alignment")
    )
    labs = summaries["lab_events"]
    examples = pd.read_parquet(workspace.aligned / "examples.parquet")
    results = sum(n for name, n in labs["counts"].items() if name.endswith("_results"))
    steps = [
        FlowStep(
            title="Recordings with PPG",
            counts={"patients": catalog["counts"]["patients"], "recordings": catalog["counts"]["records"]},
            dropped=_in_the_plural(catalog["exclusions"]),
        ),
        FlowStep(
            title="Usable windows of 30 s",
            counts={"patients": embedded["counts"]["patients"], "windows": embedded["counts"]["windows"]},
            dropped=_in_the_plural(embedded["exclusions"]),
        ),
        FlowStep(
            title="Clean lab results",
            counts={"patients": labs["counts"]["patients"], "results": results},
            dropped=labs["exclusions"],
        ),
        FlowStep(
            title="Recordings and results brought together",
            counts=_patients_and_draws(examples, "draws, protocol"),
            dropped=aligned["exclusions"],
        ),
    ]
    return Flow(steps=steps, arms=_arms(workspace, examples))


def _in_the_plural(exclusions: Mapping[str, int]) -> dict[str, int]:
    """Say "windows: flat" where a summary's reason says "window: flat": a count will stand before it."""
    return {re.sub(r"^(segment|window|patient)\b", r"\1s", reason): n for reason, n in exclusions.items()}


def _arms(workspace: Workspace, examples: pd.DataFrame) -> list[FlowArm]:
    splits = Splits.load(workspace.splits)
    arms = []
    for split in SPLITS:
        mine = examples.loc[examples["patient_id"].isin(splits.patients(split))]
        arms.append(FlowArm(title=split, purpose=PURPOSES[split], counts=_patients_and_draws(mine, "draws,")))
    return arms


def _patients_and_draws(examples: pd.DataFrame, draws: str) -> dict[str, int]:
    """Count the patients of some examples, and their draws by protocol."""
    by_protocol = Counter(examples["protocol"].to_list())
    told = {f"{draws} {name}": by_protocol[name] for name in PROTOCOLS if by_protocol[name]}
    return {"patients": len(set(examples["patient_id"])), **told}


def characteristics_of(workspace: Workspace) -> pd.DataFrame:
    """Describe the patients of each split."""
    return characteristics(
        pd.read_parquet(workspace.admissions),
        pd.read_parquet(workspace.aligned / "sequences.parquet"),
        pd.read_parquet(workspace.aligned / "examples.parquet"),
        Splits.load(workspace.splits),
    )


def _of_the_lstm(experiment: ExperimentConfig) -> str:
    """Say how many epochs the LSTM has, where they are others than the rest's."""
    epochs = experiment.training.lstm_epochs
    if "lstm" not in experiment.methods or epochs in (None, experiment.training.epochs):
        return ""
    return f" (the LSTM {epochs})"


def _draws_of_the_lstm(experiment: ExperimentConfig) -> str:
    """Say how many draws make a batch of the LSTM, where they are more than the others' pieces."""
    draws = experiment.training.for_method("lstm").batch_pieces
    if "lstm" not in experiment.methods or draws == experiment.training.batch_pieces:
        return ""
    return f" (the LSTM of {counted(draws, 'draws')})"


def card_facts(workspace: Workspace, experiment: ExperimentConfig) -> list[tuple[str, str]]:
    """Return what the model card says of architecture, division, training and code."""
    model, training, division = experiment.model, experiment.training, experiment.splits
    networks = [method for method in experiment.methods if method not in FITTED_METHODS]
    pairs = []
    if networks:
        states = counted(model.d_state, "states")
        epochs = counted(training.epochs, "epochs") + _of_the_lstm(experiment)
        sizes = f"{counted(model.n_blocks, 'blocks')}, {model.d_model} wide, {states} a channel"
        pairs += [
            ("Sequence model", f"Mamba, one layer a lab: {sizes}, dropout {model.dropout:g}; LSTM {model.hidden} wide"),
            ("Training", f"at most {epochs}, learning rate {training.learning_rate:g}, "
             f"batches of {counted(training.batch_pieces, 'pieces')}{_draws_of_the_lstm(experiment)}; "
             f"kept: {_kept(training.selection)}"),
        ]  # fmt: skip
    train, validation, test = (f"{100 * share:.0f} %" for share in division.fractions)
    counts = Splits.load(workspace.splits).counts
    told = ", ".join(f"{split} {n}" for split, n in counts.items())
    aside = f"of which {100 * division.calibration_share:.0f} % calibrate"
    shares = f"{train} train, {validation} validation ({aside}), {test} test"
    pairs += [
        ("Division", f"by patient, seed {division.seed}: {shares}; patients: {told}"),
        ("Seeds", f"training {', '.join(map(str, experiment.seeds))}; bootstrap {experiment.evaluation.seed}, "
         f"{counted(experiment.evaluation.bootstrap, 'replicates')}"),
        ("Code", source_commit() or "not known: no checkout"),
    ]  # fmt: skip
    return pairs


def _kept(selection: str) -> str:
    return "the last epoch" if selection == "last" else "the epoch with the smallest validation error"
