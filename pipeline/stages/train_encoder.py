"""The stage that fine-tunes the encoder on labs: the paper's option, for a run of its own that names the weights."""

import logging
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.encoder_patients import LearnedFrom, learned_from
from pipeline.cohort.splits import Splits
from pipeline.embedding.weights_files import file_of
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.artefact_notes import add_licences
from pipeline.foundation.atomic import write_bytes
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.provenance import config_hash, to_plain
from pipeline.foundation.summary import StageSummary
from pipeline.foundation.workspace import Workspace, require
from pipeline.sources.base import Record, WaveformSource
from pipeline.sources.catalog import load_catalog
from pipeline.stages.embed import encoding_config
from pipeline.stages.encoder_patients import weights_licences
from pipeline.stages.ingest import waveform_source
from pipeline.stages.provenance import recorded
from pipeline.stages.training import set_aside
from pipeline.store.embeddings import EmbeddingStore

if TYPE_CHECKING:
    from models.encoders.ppg_gpt import PPGGPT
    from pipeline.training.encoder.draws import EncoderDraws
    from pipeline.training.encoder.run import EncoderTrainingState

logger = logging.getLogger(__name__)

ASSET = "train_encoder"
UNREADABLE = "patient whose recordings are not there any more"
USED = ("train", "validation")
"""Training patients' labs change the weights, validation patients' choose the epoch; the others are never looked at."""


@recorded(ASSET)
def train_encoder(workspace: Workspace, experiment: ExperimentConfig) -> StageSummary:
    """Fine-tune the experiment's encoder on the draws of its training patients, into ``encoder/model.safetensors``.

    The experiment's own artefacts stay as they are. Name the weights in a run of its own, which divides the patients
    alike: ``--set encoder=<path> --artifacts <another folder>``.

    Raises
    ------
    ConfigError : an encoder that cannot be fine-tuned, no draw to learn from, or waveforms that are gone
    MissingArtifactError : the cohort has not been aligned
    """
    require(workspace.aligned, made_by="lab_alignment", asset=ASSET)  # a wrong start fails before torch loads
    inputs = _inputs(workspace, experiment)
    finished = _finished(workspace, inputs)
    if finished is None:
        finished = _trained(workspace, experiment, inputs)
    return _summary(workspace, experiment, inputs, finished).save(workspace.summary(ASSET))


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """All that decides the weights.

    Attributes
    ----------
    draws : by split, of `USED`
    records : of every patient behind `draws`
    base : the file that the encoder was loaded from; None for random weights
    identity : hash of everything that decides the weights
    """

    encoder: "PPGGPT"
    base: Path | None
    source: WaveformSource
    records: Mapping[str, tuple[Record, ...]]
    draws: Mapping[str, "EncoderDraws"]
    exclusions: Counter[str]
    identity: str


def _inputs(workspace: Workspace, experiment: ExperimentConfig) -> _Inputs:
    """Find everything out that can be wrong, before any window is decoded."""
    # These import torch, which definitions must not.
    from pipeline.embedding.encoders import encoder_fields, make_encoder
    from pipeline.training.encoder.weights import check_tunable

    how = experiment.encoder_training
    encoder = check_tunable(make_encoder(experiment.encoder, device=how.device), how)
    splits = Splits.load(require(workspace.splits, made_by="cohort_splits", asset=ASSET))
    store = EmbeddingStore.open(require(workspace.store, made_by="ppg_embeddings", asset=ASSET))
    source, root = waveform_source(workspace)
    records = _records(workspace, root, splits)
    exclusions: Counter[str] = Counter()
    draws = _draws(workspace, experiment, splits, records, exclusions)
    sources = {patient: store.patient_key(patient) for one in draws.values() for patient in one.patients}
    manifest = store.manifest()
    readout = encoder_fields(encoder)
    described = {
        "recipe": how.identity(), "weights": encoder.weights_hash, "window": to_plain(experiment.window),
        "readout": {name: readout[name] for name in ("readout", "projection")},
        "draws": {split: one.fingerprint() for split, one in draws.items()},
        "sources": sorted(manifest[key].key.source_hash for key in sources.values() if key in manifest),
    }  # fmt: skip
    return _Inputs(
        encoder=encoder, base=file_of(experiment.encoder), source=source, records=records, draws=draws,
        exclusions=exclusions, identity=config_hash(described),
    )  # fmt: skip


def _records(workspace: Workspace, root: Path, splits: Splits) -> dict[str, tuple[Record, ...]]:
    catalog_file = require(workspace.catalog, made_by="waveform_catalog", asset=ASSET)
    found: dict[str, list[Record]] = {}
    for record in load_catalog(catalog_file, root, splits.patients(*USED)).records:
        found.setdefault(record.patient_id, []).append(record)
    return {patient: tuple(records) for patient, records in found.items()}


def _draws(
    workspace: Workspace,
    experiment: ExperimentConfig,
    splits: Splits,
    records: Mapping[str, tuple[Record, ...]],
    exclusions: Counter[str],
) -> dict[str, "EncoderDraws"]:
    from pipeline.training.encoder.draws import draws_with_windows
    from pipeline.training.encoder.windows import readable_patients

    aligned, how = AlignedCohort.load(workspace.aligned), experiment.encoder_training
    aligned_patients = set(aligned.sequences["patient_id"])
    draws = {}
    for split in USED:
        patients = [patient for patient in splits.patients(split) if patient in aligned_patients]
        readable = readable_patients(records, patients)
        exclusions[UNREADABLE] += len(patients) - len(readable)
        if patients and not readable:
            raise ConfigError(
                f"the recordings of all {len(patients)} {split} patients are gone from "
                f"{workspace.waveforms or workspace.cohort}: bring them back, or run catalog, embed, split and align "
                "for those that are there"
            )
        most = round(how.most_windows * (0.8 if split == "train" else 0.2))
        draws[split] = draws_with_windows(aligned, readable, how, most, exclusions)
        if not len(draws[split].patient):
            raise ConfigError(
                f"no lab result of a {split} patient has a usable window that ends at most "
                f"{how.minutes_before:g} minutes before it: there is nothing to fine-tune on; raise "
                "encoder_training.minutes_before, or bring waveforms and labs of the same patients and times"
            )
    return draws


def _finished(workspace: Workspace, inputs: _Inputs) -> dict[str, Any] | None:
    """Return the record of a finished run of the same identity; one of another identity is set aside, and kept."""
    from pipeline.training.encoder.weights import read_record

    record = read_record(workspace.encoder)
    if not record or record.get("identity") == inputs.identity:
        return record or None
    set_aside(workspace.encoder)
    logger.info(
        "recipe, encoder, draws or waveforms changed: training anew, the earlier encoder is kept in previous/"
    )
    return None


def _trained(workspace: Workspace, experiment: ExperimentConfig, inputs: _Inputs) -> dict[str, Any]:
    from pipeline.embedding.encoders import projection_file
    from pipeline.embedding.names import EncoderName
    from pipeline.training.encoder.run import UNFINISHED, TunedDraws, tune
    from pipeline.training.encoder.weights import WEIGHTS_FILE, save_projection, save_record
    from pipeline.training.encoder.windows import cached_windows, forget_windows

    folder = workspace.encoder
    add_licences(weights_licences(inputs.base))
    workers = encoding_config(experiment, inputs.encoder).decode_workers
    parts = {}
    for split, draws in inputs.draws.items():
        logger.info("decoding the windows before %d draws of %s patients", len(draws.patient), split)
        cache = cached_windows(
            folder / UNFINISHED / split, draws, inputs.source, inputs.records, experiment.window,
            identity=inputs.identity, workers=workers,
        )  # fmt: skip
        parts[split] = TunedDraws(draws=draws, windows=cache)
    # The base may have learned from patients before: its file's hashes travel on.
    used = {split: draws.patients for split, draws in inputs.draws.items()}
    learned = (*learned_from(inputs.base), LearnedFrom.of(used))
    state = tune(
        inputs.encoder, parts["train"], parts["validation"], experiment.encoder_training, folder,
        identity=inputs.identity, learned=learned, listener=_tell,
    )  # fmt: skip
    name, weights = EncoderName.parse(experiment.encoder), folder / WEIGHTS_FILE
    save_projection(projection_file(weights, name), inputs.encoder, state.best_weights["weights_hash"])
    write_bytes(weights, (folder / UNFINISHED / WEIGHTS_FILE).read_bytes())
    record = _record(experiment, inputs, state)
    save_record(folder, record)
    for split in parts:
        forget_windows(folder / UNFINISHED / split)
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
    return record


def _record(experiment: ExperimentConfig, inputs: _Inputs, state: "EncoderTrainingState") -> dict[str, Any]:
    """Return what made the weights, without anything about a patient."""
    return {
        "identity": inputs.identity,
        "recipe": to_plain(experiment.encoder_training),
        "base": {"name": _name(inputs.base, experiment), "weights_hash": inputs.encoder.weights_hash},
        "readout": inputs.encoder.readout,
        "model": to_plain(inputs.encoder.config),
        **state.best_weights,
        "epoch": state.best_epoch,
        "epochs": state.rows,
        "draws": {split: len(draws.patient) for split, draws in inputs.draws.items()},
        "patients": {split: len(draws.patients) for split, draws in inputs.draws.items()},
        "windows": {split: len(draws.owner) for split, draws in inputs.draws.items()},
        "dropped": dict(inputs.exclusions),
    }


def _name(base: Path | None, experiment: ExperimentConfig) -> str:
    return experiment.encoder if base is None else base.name


def _tell(row: Mapping[str, Any]) -> None:
    r2 = ", ".join(f"{lab} {value:.2f}" for lab, value in row["r2"].items() if value is not None)
    loss = "" if row["loss"] is None else f"loss {row['loss']:.4f}, "
    logger.info(
        "epoch %d: %svalidation loss %.4f, R2 %s", row["epoch"], loss, row["validation_loss"] or 0.0, r2
    )


def _summary(
    workspace: Workspace, experiment: ExperimentConfig, inputs: _Inputs, record: Mapping[str, Any]
) -> StageSummary:
    from pipeline.training.encoder.weights import WEIGHTS_FILE

    kept, start = record["epochs"][record["epoch"]], record["epochs"][0]
    return StageSummary(
        stage=ASSET,
        counts={
            "base": record["base"]["name"],
            "adapted": _how(experiment),
            "patients_learned_from": record["patients"]["train"],
            "patients_choosing_the_epoch": record["patients"]["validation"],
            "draws_learned_from": record["draws"]["train"],
            "windows_learned_from": record["windows"]["train"],
            "epochs": len(record["epochs"]) - 1,
            "epoch_kept": record["epoch"],
            "name_it_by": f"--set encoder={workspace.encoder / WEIGHTS_FILE}{_words(experiment)}",
        },
        exclusions=record["dropped"],
        tables={
            "validation patients, R2 of lines": [
                {"lab": lab, "frozen": start["r2"][lab], "fine-tuned": kept["r2"].get(lab)}
                | {"frozen, within a patient": start["within_r2"][lab]}
                | {"fine-tuned, within a patient": kept["within_r2"].get(lab)}
                for lab in start["r2"]
            ],
            "epochs": [
                {
                    "epoch": row["epoch"], "training loss": row["loss"], "validation loss": row["validation_loss"],
                    "seconds": row["seconds"],
                }
                for row in record["epochs"]
            ],
        },
        artefacts={"weights": workspace.encoder / WEIGHTS_FILE},
        data_version=record["weights_hash"][:16],
    )  # fmt: skip


def _how(experiment: ExperimentConfig) -> str:
    how = experiment.encoder_training
    if how.adapt == "last_layers":
        return f"the last {how.layers} layers"
    return f"LoRA, rank {how.rank}, on {', '.join(how.places)}"


def _words(experiment: ExperimentConfig) -> str:
    """Return the words for read-out and projection that follow the name of the weights."""
    from pipeline.embedding.names import EncoderName

    return EncoderName.parse(experiment.encoder).words
