"""Backend `cpu`: the compiled kernels, called through ctypes."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from ..operands import ScanInputs, ScanOperands, as_inputs, time_major
from .build import CHUNK, load_library

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float64: 3}
BLOCKS = (512, 256, 128, 64, 32, 16)
"""Channels that one task may take, most to least."""

WORK_PER_THREAD = 200_000
"""State steps below which one more thread costs more than it saves."""


class View(ctypes.Structure):
    """A strided tensor: data, and strides in elements of batch, time, channel (or state) and group."""

    _fields_ = [
        ("data", ctypes.c_void_p), ("batch", ctypes.c_int64), ("time", ctypes.c_int64),
        ("channel", ctypes.c_int64), ("group", ctypes.c_int64),
    ]  # fmt: skip


def make_fields(kind: type, *names: str) -> list[tuple[str, type]]:
    """Return the fields of one type for a ctypes structure."""
    return [(name, kind) for name in names]


class ScanArguments(ctypes.Structure):
    """Mirror of the struct of the same name in scan.h."""

    _fields_ = (
        make_fields(View, "u", "delta", "z", "y", "B", "C", "dy", "du", "ddelta", "dz")
        + make_fields(ctypes.c_void_p, "A", "D", "delta_bias", "initial_state", "d_last_state")
        + make_fields(ctypes.c_void_p, "step_mask", "cu_seqlens", "last_state", "entries")
        + make_fields(ctypes.c_void_p, "d_A", "d_D", "d_delta_bias", "d_initial_state", "d_B", "d_C")
        + make_fields(ctypes.c_int64, "batch", "length", "channels", "state", "groups", "sequences")
        + make_fields(ctypes.c_int64, "block", "delta_softplus", "dtype", "threads")
    )


def view(tensor: Tensor | None) -> View:
    """Describe (batch, time, channel) or (batch, time, group, state) to the kernels; None has no data."""
    if tensor is None:
        return View()
    strides = tensor.stride()
    group = strides[2] if tensor.dim() == 4 else 0
    return View(tensor.data_ptr(), strides[0], strides[1], strides[-1], group)


def pointer(tensor: Tensor | None) -> int | None:
    """Return the address of a contiguous tensor's data, or None."""
    return None if tensor is None else tensor.data_ptr()


def entries_shape(x: ScanInputs) -> tuple[int, int, int]:
    """Shape of the states saved at chunk entries: an upper bound that needs no look at the pack's bounds."""
    batch, channels, length = x.u.shape
    return batch * length // CHUNK + x.sequences, x.groups * _padded(channels // x.groups), x.A.shape[1]


def forward(inputs: ScanInputs, y: Tensor, save: bool) -> tuple[Tensor, Tensor | None]:
    """Fill `y`, laid out as `u`; return last_state and, to `save`, the states at chunk entries."""
    x = time_major(inputs)
    last_state = x.A.new_empty(x.sequences, *x.A.shape)
    entries = x.A.new_empty(entries_shape(inputs)) if save else None
    arguments, keep = _arguments(x)
    arguments.y = view(y.mT)
    arguments.last_state = pointer(last_state)
    arguments.entries = pointer(entries)
    call("selective_scan_forward", arguments, keep)
    return last_state, entries


def backward(
    inputs: ScanInputs, entries: Tensor, dy: Tensor, d_last_state: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the first nine inputs, u to initial_state; None for absent ones."""
    x = time_major(inputs)
    new = x.A.new_empty
    du, ddelta = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (x.u, x.delta))
    dz = None if x.z is None else torch.empty_like(x.z, memory_format=torch.contiguous_format)
    arguments, keep = _arguments(x)
    parts = -(-(arguments.channels // arguments.groups) // arguments.block)
    d_B, d_C = new(parts, *x.B.shape), new(parts, *x.C.shape)
    d_A, d_state = new(x.sequences, *x.A.shape), new(x.sequences, *x.A.shape)
    d_D, d_bias = new(x.sequences, x.A.shape[0]), new(x.sequences, x.A.shape[0])
    if d_last_state is None:
        d_last_state = x.A.new_zeros(x.sequences, *x.A.shape)
    d_last_state = d_last_state.contiguous()
    for name, tensor in (("dy", dy.mT), ("du", du), ("ddelta", ddelta), ("dz", dz)):
        setattr(arguments, name, view(tensor))
    arguments.d_last_state, arguments.entries = pointer(d_last_state), pointer(entries)
    arguments.d_A, arguments.d_D, arguments.d_delta_bias = pointer(d_A), pointer(d_D), pointer(d_bias)
    arguments.d_initial_state, arguments.d_B, arguments.d_C = pointer(d_state), pointer(d_B), pointer(d_C)
    call("selective_scan_backward", arguments, keep)
    gradients = (
        du, ddelta, add_parts(d_A), add_parts(d_B).to(x.B.dtype), add_parts(d_C).to(x.C.dtype),
        None if x.D is None else add_parts(d_D), dz, None if x.delta_bias is None else add_parts(d_bias),
        None if x.initial_state is None else d_state,
    )  # fmt: skip
    return as_inputs(gradients, inputs)


def add_parts(parts: Tensor) -> Tensor:
    """Return the sum over the first axis; one part is the sum."""
    return parts[0] if parts.shape[0] == 1 else parts.sum(0)


def _arguments(x: ScanOperands) -> tuple[ScanArguments, list[Tensor | None]]:
    """Describe the inputs; the list keeps alive what the pointers point to."""
    batch, length, channels = x.u.shape
    small = [x.A, x.D, x.delta_bias, x.initial_state, x.step_mask, x.cu_seqlens]
    keep = [None if t is None else t.contiguous() for t in small]
    groups, state = x.B.shape[2:]
    threads = max(1, min(torch.get_num_threads(), x.u.numel() * state // WORK_PER_THREAD))
    arguments = ScanArguments(
        u=view(x.u), delta=view(x.delta), z=view(x.z), B=view(x.B), C=view(x.C), A=pointer(keep[0]),
        D=pointer(keep[1]), delta_bias=pointer(keep[2]), initial_state=pointer(keep[3]),
        step_mask=pointer(keep[4]), cu_seqlens=pointer(keep[5]), batch=batch, length=length,
        channels=channels, state=state, groups=groups, sequences=x.sequences,
        block=channel_block(channels // groups, groups * x.sequences, threads),
        delta_softplus=int(x.delta_softplus), dtype=DTYPES[x.u.dtype], threads=threads,
    )  # fmt: skip
    return arguments, keep


def channel_block(width: int, rows: int, threads: int) -> int:
    """Return the most channels per task that still leave two tasks to every thread."""
    fits = (b for b in BLOCKS if rows * -(-width // b) >= 2 * threads)
    return min(next(fits, BLOCKS[-1] if threads > 1 else BLOCKS[0]), _padded(width))


def _padded(width: int) -> int:
    return -(-width // 16) * 16


def call(function: str, arguments: Any, keep: list[Tensor | None]) -> None:
    """Call a kernel; `keep` holds the tensors that the arguments point into until it returns."""
    if getattr(load_library(), function)(ctypes.byref(arguments)):
        raise MemoryError(f"{function}: no memory for the scratch space of {arguments.threads} threads")
    keep.clear()
