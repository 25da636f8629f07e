"""Refuse what the kernels cannot compute, before any of them runs."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .operands import IO_DTYPES, state_dtype

MOST_KINDS = 1024
"""Kinds of call that are remembered (packs have a length of their own each)."""


class Kinds:
    """The kinds of call that a check has passed, one of each: shapes, dtypes and devices of tensors, and options."""

    def __init__(self, check: Callable[..., None]) -> None:
        self.check = check
        self.passed: dict[Any, dict[Any, Any]] = {}

    def check_once(self, *tensors: Any, **options: Any) -> dict[Any, Any]:
        """Raise what the check raises, unless a call of this kind has passed it.

        Returns
        -------
        What a backend has made for this kind of call, to which it adds.
        """
        try:
            kind: Any = tuple([t if t is None else (t.shape, t.dtype, t.device) for t in tensors])
            if options:
                kind = (kind, *options.values())
            made = self.passed.get(kind)
            if made is not None:
                return made
        except (AttributeError, TypeError):  # if not all are tensors, the check says which
            kind = None
        self.check(*tensors, **options)
        if kind is None:  # sizes that are symbols, which no kernel computes
            return {}
        if len(self.passed) >= MOST_KINDS:
            self.passed.clear()
        return self.passed.setdefault(kind, {})


def require(condition: bool, argument: str, has: object, needs: str) -> None:
    """Raise a ValueError that names the argument, what it has and what it needs."""
    if not condition:
        raise ValueError(f"{argument} has {has}; it needs {needs}")


def require_shape(argument: str, tensor: Tensor, shape: tuple[int, ...], names: str) -> None:
    """Raise unless `tensor` has exactly `shape`, described by `names`."""
    require(tuple(tensor.shape) == shape, argument, f"shape {tuple(tensor.shape)}", f"{names} = {shape}")


def require_like(argument: str, tensor: Tensor, model: Tensor, dtypes: tuple[torch.dtype, ...]) -> None:
    """Raise unless `tensor` lies on the device of `model` (called u or x) and has one of `dtypes`."""
    require(
        tensor.device == model.device, argument, f"device {tensor.device}", f"the input's, {model.device}"
    )
    wanted = " or ".join(str(dtype) for dtype in dict.fromkeys(dtypes))
    require(tensor.dtype in dtypes, argument, f"dtype {tensor.dtype}", wanted)


def require_tensors(**tensors: object) -> None:
    """Raise unless every given argument is a tensor or None."""
    for name, tensor in tensors.items():
        require(tensor is None or isinstance(tensor, Tensor), name, f"type {type(tensor)}", "a tensor")


def check_scan(u, delta, A, B, C, D, z, delta_bias, initial_state, step_mask, cu_seqlens) -> None:
    """Raise unless the tensors are what `selective_scan` takes, as far as shapes, dtypes and devices say."""
    require_tensors(
        u=u, delta=delta, A=A, B=B, C=C, D=D, z=z, delta_bias=delta_bias, initial_state=initial_state,
        step_mask=step_mask, cu_seqlens=cu_seqlens,
    )  # fmt: skip
    check_activations(("u", "delta", "z"), (u, delta, z))
    batch, channels, length = u.shape
    check_parameters(u, channels, A, D, delta_bias)
    for name, projection in (("B", B), ("C", C)):
        check_projection(name, projection, u, A.shape[1], steps=(length,))
    check_same_groups(B, C)
    check_step_mask(step_mask, u, (batch, length))
    check_pack(cu_seqlens, batch)
    sequences = batch if cu_seqlens is None else cu_seqlens.shape[0] - 1
    state = (sequences, channels, A.shape[1])
    check_state("initial_state", initial_state, u, state, state_dtype(u.dtype))


def check_activations(names: tuple[str, ...], tensors: tuple[Tensor | None, ...]) -> None:
    """Raise unless the first is a floating (batch, channels, length) tensor and the rest are like it."""
    first = tensors[0]
    require(
        first is not None and first.dim() == 3,
        names[0],
        f"shape {_shape(first)}",
        "3 dimensions: (batch, channels, length)",
    )
    assert first is not None
    require(
        first.dtype in IO_DTYPES, names[0], f"dtype {first.dtype}", "float32, bfloat16, float16 or float64"
    )
    require(first.shape[1] > 0, names[0], "no channels", "at least one channel")
    for name, tensor in zip(names[1:], tensors[1:], strict=True):
        if tensor is not None:
            require_shape(name, tensor, tuple(first.shape), "(batch, channels, length)")
            require_like(name, tensor, first, (first.dtype,))


def check_parameters(
    u: Tensor, channels: int, A: Tensor, D: Tensor | None, delta_bias: Tensor | None
) -> None:
    """Raise unless A is real (channels, state) and D and delta_bias are (channels,), all finite in dtype."""
    dtypes = (state_dtype(u.dtype), u.dtype)
    require(not A.is_complex(), "A", f"dtype {A.dtype}", "a real dtype (complex A is not supported)")
    require(A.dim() == 2 and A.shape[1] > 0, "A", f"shape {_shape(A)}", "2 dimensions: (channels, state)")
    require_shape("A", A, (channels, A.shape[1]), "(channels, state)")
    require_like("A", A, u, dtypes)
    for name, vector in (("D", D), ("delta_bias", delta_bias)):
        if vector is not None:
            require_shape(name, vector, (channels,), "(channels,)")
            require_like(name, vector, u, dtypes)


def check_projection(name: str, tensor: Tensor, u: Tensor, state: int, *, steps: tuple[int, ...]) -> None:
    """Raise unless B or C is (batch, [groups,] state, *steps) with groups that divide the channels."""
    need = "3 or 4 dimensions: (batch, [groups,] state, length), that is, input-dependent"
    if not steps:
        need = "2 or 3 dimensions: (batch, [groups,] state)"
    require(not tensor.is_complex(), name, f"dtype {tensor.dtype}", "a real dtype")
    require(tensor.dim() in (2 + len(steps), 3 + len(steps)), name, f"shape {_shape(tensor)}", need)
    groups = tensor.shape[1:2] if tensor.dim() == 3 + len(steps) else ()
    require_shape(name, tensor, (u.shape[0], *groups, state, *steps), "(batch, [groups,] state, [length])")
    for count in groups:
        require(
            count > 0 and u.shape[1] % count == 0,
            name,
            f"{count} groups",
            f"a divisor of {u.shape[1]} channels",
        )
    require_like(name, tensor, u, (u.dtype,))


def check_same_groups(B: Tensor, C: Tensor) -> None:
    """Raise unless B and C have the same number of groups."""
    require(B.shape == C.shape, "C", f"shape {_shape(C)}", f"the shape of B, {_shape(B)}")


def check_pack(cu_seqlens: Tensor | None, batch: int) -> None:
    """Raise unless cu_seqlens is a 1-D integer tensor over a batch of one."""
    if cu_seqlens is None:
        return
    shape = tuple(cu_seqlens.shape)
    require(cu_seqlens.dim() == 1 and shape[0] > 0, "cu_seqlens", f"shape {shape}", "(sequences + 1,)")
    dtype = cu_seqlens.dtype
    require(dtype in (torch.int32, torch.int64), "cu_seqlens", f"dtype {dtype}", "torch.int32 or torch.int64")
    require(batch == 1, "cu_seqlens", f"a batch of {batch}", "batch 1: the sequences lie end to end")


def check_bounds(cu_seqlens: Tensor | None, length: int) -> None:
    """Raise unless the pack's bounds start at 0, never fall, and end at `length` (reads the values)."""
    if cu_seqlens is None:
        return
    bounds = cu_seqlens.tolist()
    require(bounds[0] == 0, "cu_seqlens", f"first value {bounds[0]}", "0")
    require(bounds[-1] == length, "cu_seqlens", f"last value {bounds[-1]}", f"the total length, {length}")
    falls = any(b < a for a, b in pairwise(bounds))
    require(not falls, "cu_seqlens", "a value below the one before it", "non-decreasing values")


def check_finite(A: Tensor) -> None:
    """Raise unless every element of A is finite (reads the values).

    On a GPU that would wait for all that the card has still to do, so it is done only where somebody looks for such
    numbers: in autograd's anomaly mode, and not while a graph is captured.
    """
    if A.is_cuda and (not torch.is_anomaly_enabled() or torch.cuda.is_current_stream_capturing()):
        return
    if not math.isfinite(A.sum().item()):  # one read; a sum of finite values may overflow, so count
        bad = A.numel() - int(torch.isfinite(A).sum())
        require(bad == 0, "A", f"{bad} non-finite values", "finite values")


def check_step_mask(step_mask: Tensor | None, u: Tensor, shape: tuple[int, ...]) -> None:
    """Raise unless the mask is boolean, of `shape`, on the device of u."""
    if step_mask is not None:
        require_shape("step_mask", step_mask, shape, "(batch, [length])")
        require_like("step_mask", step_mask, u, (torch.bool,))


def check_state(
    name: str, state: Tensor | None, u: Tensor, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    """Raise unless a state has `shape` (sequences, channels, ...) and `dtype`."""
    if state is not None:
        require_shape(name, state, shape, "(sequences, channels, state)")
        require_like(name, state, u, (dtype,))


def _shape(tensor: Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None else tuple(tensor.shape)
