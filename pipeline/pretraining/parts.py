"""Weights in bfloat16, in numbered parts: for machines that send back small files alone.

A model that is trained on from them goes on from the rounded weights, with a fresh optimiser. Buffers, which no
training moves (the rotary frequencies), are not rounded.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from models.encoders.part_names import PARTS_INDEX, part_name
from models.encoders.ppg_gpt import PPGGPT
from pipeline.foundation.artefact_notes import HEADER_KEY, current_note
from pipeline.foundation.atomic import explained_os_errors, make_private_dir, publish_folder, write_json
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.provenance import to_plain
from pipeline.foundation.tensor_files import write_tensors
from pipeline.training.checkpoints import model_tensors

MEBIBYTE = 2**20
HASH_KEY = "rounded_from"
"""Hash of the weights before rounding, in every part's header: so the first part's content names the weights of all."""
_LINE_BYTES = 200
"""More than a tensor takes in a header beside its name: type, shape, offsets."""


def write_parts(
    encoder: PPGGPT, folder: Path, *, most_bytes: int, header: Mapping[str, str] | None = None
) -> list[Path]:
    """Write an encoder's weights into a new folder, whole or not at all; return the parts.

    Parameters
    ----------
    most_bytes : of one part; a tensor is never split
    header : texts that every part carries beside the open note

    Raises
    ------
    ConfigError : the folder is there already, or one tensor is larger than a part
    StoreError : disk full, read-only or forbidden folder
    """
    require_free(folder)
    texts = {**(header or {}), HASH_KEY: encoder.weights_hash}
    taken = 8 + _LINE_BYTES + len(json.dumps({**texts, HEADER_KEY: current_note().as_json()}))
    parts = list(_divided(rounded_tensors(encoder), most_bytes, taken))
    make_private_dir(folder.parent)
    with (
        explained_os_errors(folder),
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp") as temporary,
    ):
        staging = Path(temporary) / folder.name
        names = [part_name(number, len(parts)) for number in range(1, len(parts) + 1)]
        hashes = {
            name: write_tensors(staging / name, part, save_tensors, texts)
            for name, part in zip(names, parts, strict=True)
        }
        index = {"model": to_plain(encoder.config), HASH_KEY: encoder.weights_hash, "parts": hashes}
        write_json(staging / PARTS_INDEX, index)
        publish_folder(staging, folder)
    return [folder / name for name in names]


def require_free(folder: Path) -> None:
    """Refuse a place where something lies already.

    Raises
    ------
    ConfigError : it does
    """
    if folder.exists():
        raise ConfigError(f"{folder} exists, and parts are never written over: name a new folder")


def rounded_tensors(encoder: PPGGPT) -> dict[str, Tensor]:
    """Return the model's state with its parameters rounded to bfloat16."""
    trained = {name for name, _ in encoder.named_parameters()}
    return {
        name: tensor.to(torch.bfloat16) if name in trained else tensor
        for name, tensor in model_tensors(encoder).items()
    }


def _divided(tensors: Mapping[str, Tensor], most_bytes: int, taken: int) -> Iterator[dict[str, Tensor]]:
    """Yield the tensors in their order, as many at a time as one part holds; `taken`: bytes of each part's header."""
    part: dict[str, Tensor] = {}
    left = most_bytes - taken
    for name, tensor in tensors.items():
        needed = tensor.nbytes + len(name) + _LINE_BYTES
        if taken + needed > most_bytes:
            raise ConfigError(
                f"{name} takes {tensor.nbytes:,} bytes in bfloat16 and {taken + needed - tensor.nbytes:,} of header, "
                f"and a part holds at most {most_bytes:,} bytes: a tensor is never split, so allow larger parts"
            )
        if needed > left:
            yield part
            part, left = {}, most_bytes - taken
        part[name] = tensor
        left -= needed
    yield part
