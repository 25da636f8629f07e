"""Reading state dicts that others have published, and naming what does not fit. Nothing is unpickled."""

import hashlib
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file
from torch import Tensor, nn

from models.encoders.part_names import holds_parts, verified_parts
from models.errors import CheckpointMismatch

WRAPPERS = ("model_state_dict", "state_dict", "model", "net")
"""Keys under which trainers store the state dict; the first one present wins."""
PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every key."""
MAX_NAMED_KEYS = 6


def read_state_dict(
    path: Path | str, prefixes: Sequence[str] = PREFIXES
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a checkpoint's tensors under their bare names, and the config stored beside them.

    Parameters
    ----------
    path : a ``.safetensors`` file, one that ``torch.save`` wrote (read with ``weights_only=True`` alone), or a folder
        of numbered parts (``models.encoders.part_names``)
    prefixes : stripped from the front of every key, repeatedly and in any order

    Raises
    ------
    CheckpointMismatch
        The file is absent, is neither format, needs code to be unpickled, or holds no tensors; or the parts are not
        all of those that were written.
    """
    path = Path(path)
    content = _read(path)
    wrapper = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
    state = content if wrapper is None else content[wrapper]
    config = content.get("config") if wrapper is not None else None
    tensors = {_bare(key, prefixes): value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointMismatch(
            f"{path.name}: no tensors found; top-level keys are {_some(sorted(map(str, content)))}. "
            f"Expected a flat state dict or one under any of {', '.join(WRAPPERS)}."
        )
    return tensors, dict(config) if isinstance(config, Mapping) else {}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file() and not holds_parts(path):
        raise CheckpointMismatch(f"{path}: no such weights file.")
    try:
        if path.is_dir():
            return _joined(path)
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointMismatch(
            f"{path.name}: holds Python objects besides tensors, and those are never unpickled. "
            "Save its state dict alone, with torch.save or as safetensors."
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise CheckpointMismatch(f"{path.name}: not a readable weights file ({error}).") from error
    if not isinstance(content, Mapping):
        raise CheckpointMismatch(f"{path.name}: holds a {type(content).__name__}, not a state dict.")
    return dict(content)


def _joined(folder: Path) -> dict[str, Any]:
    """Return the tensors of all parts as one checkpoint, with the sizes of the model."""
    parts, sizes = verified_parts(folder)
    state: dict[str, Tensor] = {}
    for name, data in parts.items():
        tensors = load(data)
        if twice := sorted(tensors.keys() & state.keys()):
            raise CheckpointMismatch(f"{folder / name}: {_some(twice)} stands in an earlier part, too.")
        state |= tensors
    return {"model_state_dict": state, "config": sizes}


def _bare(key: str, prefixes: Sequence[str]) -> str:
    while prefix := next((p for p in prefixes if key.startswith(p)), None):
        key = key.removeprefix(prefix)
    return key


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy `state` into `module`; every key and shape must agree.

    Raises
    ------
    CheckpointMismatch
        Names the missing keys, the unknown ones, and those whose shapes differ, of `source`.
    """
    own = module.state_dict()
    complaints = [
        f"missing {_some(sorted(own.keys() - state.keys()))}" if own.keys() - state.keys() else "",
        f"unknown {_some(sorted(state.keys() - own.keys()))}" if state.keys() - own.keys() else "",
        _some([
            f"{key} is {tuple(state[key].shape)}, needs {tuple(own[key].shape)}"
            for key in sorted(own.keys() & state.keys())
            if own[key].shape != state[key].shape
        ]),
    ]  # fmt: skip
    if any(complaints):
        raise CheckpointMismatch(
            f"{source} does not fit {type(module).__name__}: {'; '.join(filter(None, complaints))}."
        )
    module.load_state_dict(state)


def _some(names: Sequence[str]) -> str:
    rest = len(names) - MAX_NAMED_KEYS
    return ", ".join(names[:MAX_NAMED_KEYS]) + (f" and {rest} more" if rest > 0 else "")


def weights_hash(module: nn.Module) -> str:
    """Return the SHA-256 (hex) of every tensor's name, type, shape and bytes, in the order of names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
