"""All that an interrupted training run needs to go on exactly where it was, in one file.

One single safetensors file (weights, optimiser state, progress as JSON in its header) is replaced whole or
not at all: a run killed at any moment resumes from its last finished epoch. No generator's state is among it,
because every random draw of training is seeded by its place (see ``pipeline.training.method``).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from pipeline.foundation.errors import CheckpointError
from pipeline.foundation.tensor_files import header_of, loaded_tensors, write_tensors
from pipeline.training.checkpoints import FORMAT_VERSION, check_format, fill_model, model_tensors

RESUME_FILE = "resume.safetensors"
_REMEDY = "delete it to train anew"


def save_resume(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Mapping[str, Any]
) -> None:
    """Write weights, optimiser state and `progress` (plain JSON)."""
    tensors = {f"model.{name}": tensor for name, tensor in model_tensors(model).items()}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for parameter, state in optimizer.state.items():
        for key, tensor in state.items():
            tensors[f"optimizer.{names[id(parameter)]}:{key}"] = tensor.detach().cpu().contiguous()
    header = {"progress": json.dumps(progress, allow_nan=False), "format_version": str(FORMAT_VERSION)}
    write_tensors(path, tensors, save_tensors, header)


def read_resume(path: Path) -> bytes:
    """Return what `save_resume` wrote, to be understood by the other two; empty where there is no such file.

    Raises
    ------
    CheckpointError : it cannot be read
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise _cannot_resume(path, error) from error


def progress_of(data: bytes, path: Path) -> dict[str, Any]:
    """Return the progress that `save_resume` stored; `path` names where `data` come from.

    Raises
    ------
    CheckpointError : not such a file, or of a newer format
    """
    try:
        header = header_of(data)
        version, progress = int(header["format_version"]), json.loads(header["progress"])
    except (KeyError, TypeError, ValueError) as error:
        raise _cannot_resume(path, error) from error
    check_format(version, path)
    return progress


def load_resume(data: bytes, path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Fill `model` and `optimizer` from what `save_resume` wrote; `path` names where `data` come from.

    Raises
    ------
    CheckpointError : written by another model, or damaged
    """
    tensors = loaded_tensors(data, path, load_tensors, remedy=_REMEDY)
    fill_model(
        model, {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}, path
    )
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            owner, key = name.removeprefix("optimizer.").rsplit(":", 1)
            parameter = parameters[owner]
            # AdamW keeps its step counter on the CPU, its moments beside the parameter.
            optimizer.state[parameter][key] = tensor if key == "step" else tensor.to(parameter.device)


def _cannot_resume(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path} cannot be resumed from: {error}; {_REMEDY}")
