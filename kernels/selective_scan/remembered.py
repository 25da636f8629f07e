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

    Made once for each stream of a GPU: what is made goes there by `sent_to`, and is there for what comes after it. What
    a CUDA graph captures takes what was made before, on whatever stream: ``torch.cuda.graph`` begins when all is done.

    Raises
    ------
    ValueError
        A graph is being captured, and no call had these bounds before.
    """
    values = tuple(bounds.tolist())
    made = _made_by_stream(values, make, device, arguments)
    stream = 0
    if device.type == "cuda":
        stream = torch._C._cuda_getCurrentRawStream(device.index)
        if torch.cuda.is_current_stream_capturing():
            if not made:
                raise ValueError(
                    "cu_seqlens has bounds that no such call had before; while a CUDA graph is captured, it needs "
                    "those of an earlier call, forward and backward as here"
                )
            return kept_for_capture(device, made.get(stream, next(iter(made.values()))))
    found = made.get(stream)
    if found is None:
        found = made[stream] = make(values, device, *arguments)
    return found


@functools.lru_cache(maxsize=MOST_KEPT)
def _made_by_stream(*_key: Any) -> dict[int, Any]:
    return {}


def kept_for_capture(device: torch.device, made: Any) -> Any:
    """Return what was made once for many calls, never to be dropped if a CUDA graph is about to use it."""
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        _captured.append(made)
    return made


def sent_to(device: torch.device, tensor: Tensor) -> Tensor:
    """Return a tensor of the host on a device, without a wait for what the device has still to do."""
    if device.type == "cuda":  # page-locked: PyTorch keeps the memory until the copy is there
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


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
