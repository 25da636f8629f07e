"""What was made of the bounds of a pack: read from a GPU once for each tensor, made once for each set of values.

Reading a tensor on a GPU waits for all that the card has still to do. The bounds of a pack are read so often, by the
convolution and the scan of every layer, forward and backward, that once for each tensor is enough. On the host they
cost nothing to read, and are read in every call: memory there may be shared with numpy, which PyTorch does not see
writing.
"""

import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MOST_KEPT = 128
"""Sets of bounds of which something is kept, the latest."""
_copies: dict[int, tuple[weakref.ref[Tensor], int, Tensor]] = {}
"""By a tensor's id: itself, its version, and its values on the host."""
_captured: list[Any] = []
"""What CUDA graphs use: they run it again when the call is long over."""


def made_of(bounds: Tensor, make: Callable[..., Any], device: torch.device, *arguments: Any) -> Any:
    """Return ``make(values, device, *arguments)`` of bounds on the host, shared by callers with equal values.

    Made once for each stream of a GPU: what is made goes there by `sent_to`, and is there for what comes after it.
    """
    on_gpu = device.type == "cuda"
    stream = torch._C._cuda_getCurrentRawStream(device.index) if on_gpu else 0
    made = _made(tuple(bounds.tolist()), make, device, stream, arguments)
    if on_gpu and torch.cuda.is_current_stream_capturing():
        _captured.append(made)
    return made


@functools.lru_cache(maxsize=MOST_KEPT)
def _made(
    values: tuple[int, ...], make: Callable[..., Any], device: torch.device, _stream: int, arguments: tuple[Any, ...]
) -> Any:  # fmt: skip
    return make(values, device, *arguments)


def sent_to(device: torch.device, tensor: Tensor) -> Tensor:
    """Return a tensor of the host on a device, without a wait for what the device has still to do.

    CUDA copies from memory that is not pinned to a place of its own before it returns, so that the tensor may go.
    """
    return tensor.to(device, non_blocking=True)


def on_the_host(cu_seqlens: Tensor) -> Tensor:
    """Return the bounds of a pack as int64 on the CPU, read from a GPU once for each tensor that nobody writes to.

    Writing is seen by PyTorch's count of versions, which ``tensor.data`` and kernels of other libraries go around;
    a tensor made under ``torch.inference_mode`` has no such count, and is read in every call.
    """
    if cu_seqlens.device.type == "cpu":
        return cu_seqlens if cu_seqlens.dtype is torch.int64 else cu_seqlens.to(torch.int64)
    if torch.compiler.is_compiling() or type(cu_seqlens) is not Tensor or cu_seqlens.is_inference():
        return _read(cu_seqlens)
    key, version = id(cu_seqlens), cu_seqlens._version
    kept = _copies.get(key)
    if kept is None or kept[0]() is not cu_seqlens or kept[1] != version:
        kept = (weakref.ref(cu_seqlens, lambda gone: _forget(key, gone)), version, _read(cu_seqlens))
        _copies[key] = kept
    return kept[2]


def own_bounds(cu_seqlens: Tensor | None) -> Tensor | None:
    """Return a copy for the backward pass: the caller may write to his between the passes."""
    return None if cu_seqlens is None else cu_seqlens.clone()


def _read(cu_seqlens: Tensor) -> Tensor:
    return cu_seqlens.to("cpu", torch.int64)


def _forget(key: int, gone: weakref.ref[Tensor]) -> None:
    """Drop the copy of a tensor that is no more, unless another has its number already."""
    kept = _copies.get(key)
    if kept is not None and kept[0] is gone:
        _copies.pop(key, None)
