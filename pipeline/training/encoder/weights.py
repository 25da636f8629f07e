"""A fine-tuned encoder on disk: ordinary PPG-GPT weights, and whom they learned from in the same file."""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import nn

from models.encoders.lora import add_lora, merge_lora
from models.encoders.ppg_gpt import PPGGPT
from models.encoders.ppg_gpt_layers import CausalAttention
from models.encoders.projection import Projection
from pipeline.cohort.encoder_patients import PATIENTS_KEY, LearnedFrom, to_header
from pipeline.foundation.artefact_notes import HEADER_KEY, current_note
from pipeline.foundation.atomic import write_bytes, write_json
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.provenance import versions
from pipeline.training.checkpoints import model_tensors
from pipeline.training.encoder.config import EncoderTrainingConfig

WEIGHTS_FILE, RECORD_FILE = "model.safetensors", "encoder.json"


def check_tunable(encoder: object, config: EncoderTrainingConfig) -> PPGGPT:
    """Return the encoder if it can be fine-tuned as the recipe says.

    Raises
    ------
    ConfigError : it is no PPG-GPT, or has not so many layers, or is narrower than the rank
    """
    if not isinstance(encoder, PPGGPT):
        raise ConfigError(
            f"encoder {getattr(encoder, 'name', type(encoder).__name__)} cannot be fine-tuned: train_encoder adapts "
            "PPG-GPT alone; choose one with --set encoder=ppg_gpt_1m_long or the path of its weights"
        )
    layers, width = encoder.config.n_layers, encoder.config.d_model
    if config.adapt == "last_layers" and config.layers > layers:
        raise ConfigError(
            f"encoder_training.layers is {config.layers}, and {encoder.name} has {layers} layers: choose 1 to {layers}"
        )
    if config.adapt == "lora" and config.rank > width:
        raise ConfigError(
            f"encoder_training.rank is {config.rank}, and {encoder.name} is {width} wide: choose 1 to {width}, say 8"
        )
    return encoder


def adapted(encoder: PPGGPT, config: EncoderTrainingConfig) -> PPGGPT:
    """Return a copy whose weights that the recipe names can be trained, and no others; drawn from torch's seed."""
    model = copy.deepcopy(encoder)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = config.dropout
        elif isinstance(module, CausalAttention):
            module.dropout = config.dropout
    if config.adapt == "lora":
        add_lora(model, config.rank, config.alpha, config.places)
    else:
        model.trainable_last_layers(config.layers)
    return model


def merged(model: PPGGPT) -> PPGGPT:
    """Return a frozen copy with every low-rank update folded into its layer: a plain PPG-GPT in evaluation mode."""
    plain = copy.deepcopy(model)
    merge_lora(plain)
    return plain.requires_grad_(False).eval()


def save_tuned(path: Path, encoder: PPGGPT, learned: Sequence[LearnedFrom]) -> dict[str, Any]:
    """Write plain weights with their note and the hashes of whom they learned from; return what tells them apart.

    Raises
    ------
    ConfigError : a weight is not finite
    """
    tensors = model_tensors(encoder)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise ConfigError("the encoder's weights are no longer finite: lower encoder_training.learning_rate")
    header = {HEADER_KEY: current_note().as_json(), PATIENTS_KEY: to_header(learned)}
    data = save_tensors(tensors, metadata=header)
    write_bytes(path, data)
    return {"file_sha256": hashlib.sha256(data).hexdigest(), "weights_hash": encoder.weights_hash}


def save_projection(path: Path, encoder: PPGGPT, weights_hash: str) -> None:
    """Write the base's projection beside the tuned weights, as theirs: they were trained through its very numbers."""
    if encoder.projection is not None:
        about = {**encoder.projection.about, "weights_hash": weights_hash}
        own = Projection(encoder.projection.centre, encoder.projection.directions, about)
        write_bytes(path, own.to_bytes())


def save_record(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write what made the weights; the last file of a finished run."""
    write_json(folder / RECORD_FILE, {**facts, "note": current_note().as_plain(), "versions": versions()})


def read_record(folder: Path) -> dict[str, Any]:
    """Return what a finished run wrote; empty where none has finished."""
    path = folder / RECORD_FILE
    if not (path.exists() and (folder / WEIGHTS_FILE).exists()):
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError:
        raise ConfigError(f"{path} cannot be read: delete its folder and train the encoder again") from None
