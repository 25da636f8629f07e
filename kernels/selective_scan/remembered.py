"""What was made of a small tensor's values, kept for as long as the tensor lives and nobody writes to it.

Reading a tensor on a GPU waits for all that the card has still to do. The bounds of a pack are read so often, by the
convolution and the scan of every layer, forward and backward, that once for each tensor is enough.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_kept: dict[int, tuple[weakref.ref[Tensor], int, dict[Any, Any]]] = {}


def remembered(tensor: Tensor, make: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``make(tensor, *arguments)``, as made before if this very tensor has not been written to since.

    Writing is seen by PyTorch's count of versions, which ``tensor.data`` and kernels of other libraries go around;
    a tensor made under ``torch.inference_mode`` has no such count, and nothing of it is kept.
    """
    if tensor.is_inference():
        return make(tensor, *arguments)
    key, version = id(tensor), tensor._version
    kept = _kept.get(key)
    if kept is None or kept[0]() is not tensor or kept[1] != version:
        kept = (weakref.ref(tensor, lambda gone: _forget(key, gone)), version, {})
        _kept[key] = kept
    asked = (make, *arguments)
    if asked not in kept[2]:
        kept[2][asked] = make(tensor, *arguments)
    return kept[2][asked]


def _forget(key: int, gone: weakref.ref[Tensor]) -> None:
    """Drop what was made of a tensor that is no more, unless another has its number already."""
    kept = _kept.get(key)
    if kept is not None and kept[0] is gone:
        _kept.pop(key, None)


def on_the_host(cu_seqlens: Tensor) -> Tensor:
    """Return the bounds of a pack as int64 on the CPU, read once for each tensor on a GPU."""
    if cu_seqlens.dtype is torch.int64 and cu_seqlens.device.type == "cpu":
        return cu_seqlens
    if torch.compiler.is_compiling() or type(cu_seqlens) is not Tensor:
        return cu_seqlens.to("cpu", torch.int64)
    return remembered(cu_seqlens, _to_the_host)


def _to_the_host(cu_seqlens: Tensor) -> Tensor:
    return cu_seqlens.to("cpu", torch.int64)
