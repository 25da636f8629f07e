"""Estimate labs of new patients with a trained method."""

import dataclasses
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.experiments import EXPERIMENTS, ExperimentConfig
from pipeline.foundation.artefact_notes import ArtefactNote, noted
from pipeline.foundation.artefact_records import ArtefactRecord
from pipeline.foundation.atomic import require_writable
from pipeline.foundation.errors import CheckpointError, ConfigError
from pipeline.foundation.overrides import differences
from pipeline.foundation.provenance import from_plain
from pipeline.foundation.summary import StageSummary
from pipeline.foundation.workspace import LABS_VARIABLE, WAVEFORMS_VARIABLE, Workspace
from pipeline.labs.cleaning import LabEvents
from pipeline.prediction.intervals import NO_INTERVALS, Intervals
from pipeline.stages.embed import experiment_encoder, ppg_embeddings
from pipeline.stages.encoder_files import is_file, same_value
from pipeline.stages.encoder_patients import encoder_patients
from pipeline.stages.ingest import lab_events, waveform_catalog
from pipeline.stages.sources import check_sources
from pipeline.store.embeddings import EmbeddingStore

logger = logging.getLogger(__name__)


def predict_new_patients(
    workspace: Workspace, experiment: ExperimentConfig, checkpoint: str, out: str
) -> StageSummary:
    """Catalogue, embed and clean the new patients' data, then estimate each lab every 30 s.

    Encoder, its precision, windows and lab cleaning are those the checkpoint was trained with; `workspace` says where
    the new data lie and where their embeddings are cached, and `experiment` how this machine is used
    (``embedding``). Device and batch of the encoder may differ from those of the training; both are printed.

    Raises
    ------
    CheckpointError
        No checkpoint there, or one that cannot serve: the encoder under its name has other weights today.
    ConfigError
        The output folder is that of an experiment, whose patients the new ones would replace; `out` ends neither in
        .parquet nor in .csv; waveforms or labs are not named; a field is set that the checkpoint decides; the method
        cannot run at the bedside; or ``intervals.json`` is damaged.
    """
    from pipeline.prediction import estimates_file  # imports torch, which definitions must not
    from pipeline.prediction.config import PredictionConfig
    from pipeline.prediction.new_patients import predict
    from pipeline.prediction.protocols import bedside_protocol

    out_file = estimates_file.check_name(out)
    require_writable(out_file)
    _refuse_what_the_checkpoint_decides(experiment)
    check_sources(workspace, labs_needed=True)
    workspace = _of_their_own(workspace)
    folder = Path(checkpoint)
    protocol, intervals = bedside_protocol(folder), _intervals_of(folder)
    trained_with = _experiment_of(folder, experiment)
    arithmetic = _arithmetic(folder, trained_with)  # the encoder is looked at before any work
    _require_both_sources(workspace)
    made = [make(workspace, trained_with) for make in (waveform_catalog, ppg_embeddings, lab_events)]
    patients = sorted(set(pd.read_parquet(workspace.catalog, columns=["patient_id"])["patient_id"]))
    store = EmbeddingStore.open(workspace.store)
    exclusions: Counter[str] = Counter()
    with noted(_note(workspace, trained_with, folder)):
        table = predict(
            folder,
            store,
            LabEvents(frame=pd.read_parquet(workspace.lab_events), exclusions=Counter()),
            PredictionConfig(sequences=trained_with.sequences),
            patients=[patient for patient in patients if patient in store],
            admissions=pd.read_parquet(workspace.admissions),
            intervals=intervals,
            exclusions=exclusions,
        )
        known = estimates_file.patients_behind(folder)
        table, warning = estimates_file.with_known_patients(table, known, encoder_patients(trained_with))
        if warning:
            logger.warning("%s", warning)
        estimates_file.write_estimates(out_file, table)
    dropped = sum((Counter(summary.exclusions) for summary in made), exclusions)
    return StageSummary(
        stage="predict",
        counts={"protocol": protocol, **_counted(table), **arithmetic},
        exclusions=dropped,
        artefacts={"predictions": out_file},
    )


def _note(workspace: Workspace, trained_with: ExperimentConfig, folder: Path) -> ArtefactNote:
    """Return what the estimates carry; the licences of the checkpoint's own data join when it is loaded."""
    from pipeline.training.checkpoints import checkpoint_folders, weights_sha256  # imports torch, as above

    stages = ("waveform_catalog", "ppg_embeddings", "lab_events")
    records = [ArtefactRecord.load(workspace.record(stage)) for stage in stages]
    found = [record for record in records if record is not None]
    config = {name: value for record in found for name, value in record.config.items()}
    intervals = folder / "intervals.json"
    return ArtefactNote.of(
        "predict",
        config={**config, "sequences": trained_with.sequences},
        inputs={
            **{record.stage: record.version for record in found},
            "checkpoint": [weights_sha256(one) for one in checkpoint_folders(folder)],
            "intervals": intervals.read_text(encoding="utf-8") if intervals.exists() else "",
        },
        licences={licence for record in found for licence in record.licences},
    )


def _counted(table: pd.DataFrame) -> dict[str, int]:
    states = {f"rows_{state}": int(n) for state, n in table["state"].value_counts().items()}
    return {"patients": len(set(table["patient"])), "rows": len(table), **states}


def _refuse_what_the_checkpoint_decides(experiment: ExperimentConfig) -> None:
    """Refuse a field that was set for this run and would not be used: the checkpoint's own counts."""
    if experiment.name not in EXPERIMENTS:
        return
    for field, value in differences(experiment, EXPERIMENTS[experiment.name]()).items():
        if not field.startswith("embedding") and field != "encoder":  # which may name a file: `_encoder_of`
            raise ConfigError(
                f"{field} is set to {value!r}, and the checkpoint decides it: what it was trained with is used. Leave "
                "it out; only embedding.* and embedding_executor say how this machine is used."
            )


def _require_both_sources(workspace: Workspace) -> None:
    """Refuse to estimate patients of a synthetic cohort that nobody asked for."""
    if workspace.waveforms is None or workspace.labs is None:
        raise ConfigError(
            "The new patients' data are not named: give their folders with --waveforms DIR and --labs DIR, or "
            f"{WAVEFORMS_VARIABLE} and {LABS_VARIABLE}."
        )


def _of_their_own(workspace: Workspace) -> Workspace:
    """Return the workspace with a store of its own: in the experiment's, its own patients would be retired."""
    if (workspace.root / "checkpoints").exists():
        raise ConfigError(
            f"{workspace.root} holds a trained experiment, and the new patients would replace its own. Name a folder "
            "for them: --artifacts DIR on the command line, 'out' in the job's configuration."
        )
    return dataclasses.replace(workspace, embeddings=None)


def _experiment_of(folder: Path, here: ExperimentConfig) -> ExperimentConfig:
    """Return the experiment that a checkpoint was trained with, named and run as the one at hand."""
    from pipeline.training.checkpoints import (
        checkpoint_folders,
        encoding_of,
        load_model,
    )  # imports torch, as above

    loaded = load_model(checkpoint_folders(folder)[0])
    encoding = encoding_of(loaded.provenance)
    try:
        stored = from_plain(ExperimentConfig, loaded.experiment)
        # Patients whom the encoder knows are marked, not refused: nothing is judged on them.
        own: dict[str, Any] = {"encoder_patients": "other_people"}
        own |= {"name": here.name, "embedding": here.embedding, "embedding_executor": here.embedding_executor}
        if encoding is not None:  # "auto" came to this; so did any other wish
            own["encoder_precision"] = encoding.precision
        found = dataclasses.replace(stored, **own)
    except (ConfigError, TypeError, ValueError) as problem:
        raise CheckpointError(
            f"{folder} does not hold the configuration of its experiment ({problem}); train the method again."
        ) from None
    return dataclasses.replace(found, encoder=_encoder_of(stored, here))


def _encoder_of(stored: ExperimentConfig, here: ExperimentConfig) -> str:
    """Return the encoder's name, or its file, which a checkpoint knows by content and the user by path."""
    usual = EXPERIMENTS[here.name]().encoder if here.name in EXPERIMENTS else here.encoder
    if not is_file(stored.encoder):
        if here.encoder not in (usual, stored.encoder):
            raise ConfigError(
                f"encoder is set to {here.encoder!r}, and the checkpoint decides it: what it was trained with, "
                f"{stored.encoder!r}, is used. Leave it out."
            )
        return stored.encoder
    if here.encoder == usual or not same_value("encoder", stored.encoder, here.encoder):
        raise ConfigError(
            f"the checkpoint's encoder is the file {stored.encoder} (name@SHA-256): name it with --set encoder=PATH "
            "('overrides' of the resource 'project')."
        )
    return here.encoder


def _arithmetic(folder: Path, experiment: ExperimentConfig) -> dict[str, str]:
    """Refuse an encoder that is not the checkpoint's; return how it computes here, and how it did for the training."""
    from pipeline.embedding.plan import key_template  # imports torch, as above
    from pipeline.training.checkpoints import check_encoding, checkpoint_folders, encoding_of, load_model

    here = key_template(experiment_encoder(experiment), experiment.window).encoding
    loaded = [load_model(checkpoint) for checkpoint in checkpoint_folders(folder)]
    for model in loaded:
        check_encoding(model, here)
    told = {"embedded": here.arithmetic}
    then = encoding_of(loaded[0].provenance)
    if then is not None and then.arithmetic != here.arithmetic:
        told["checkpoint's embeddings"] = then.arithmetic
        logger.warning(
            "the checkpoint learnt from embeddings computed as %s, these are computed as %s: they differ by rounding",
            then.arithmetic, here.arithmetic,
        )  # fmt: skip
    return told


def _intervals_of(folder: Path) -> Intervals | None:
    """Return the intervals that were calibrated beside this checkpoint, if any."""
    path = folder / "intervals.json"
    if not path.exists():
        logger.warning("%s: lower and upper stay empty; the stage 'score' writes them", NO_INTERVALS)
        return None
    return Intervals.load(path)
