"""The convolution's compiled CPU kernels; the GPU's: `triton.convolution`."""

import ctypes

import torch
from torch import Tensor

from .backend import DTYPES, View, call, channel_block, make_fields, pointer, view

WORK_PER_THREAD = 500_000
"""Outputs below which one more thread costs more than it saves."""


class ConvolutionArguments(ctypes.Structure):
    """Mirror of the struct of the same name in convolution.h."""

    _fields_ = (
        make_fields(View, "x", "y", "dy", "dx")
        + make_fields(ctypes.c_void_p, "weight", "bias", "initial_state", "d_final_state", "cu_seqlens")
        + make_fields(ctypes.c_void_p, "final_state", "d_weight", "d_bias", "d_initial_state")
        + make_fields(ctypes.c_int64, "batch", "length", "channels", "width", "sequences", "block", "silu")
        + make_fields(ctypes.c_int64, "dtype", "threads")
    )


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, cu_seqlens: Tensor | None,
    silu: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return y (batch, length, channels) and the last inputs (sequences, channels, width - 1)."""
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    arguments, keep = _arguments(x, weight, bias, initial_state, cu_seqlens, silu)
    final_state = x.new_empty(arguments.sequences, x.shape[2], weight.shape[1] - 1)
    arguments.y, arguments.final_state = view(y), pointer(final_state)
    call("convolution_forward", arguments, keep)
    return y, final_state


def backward(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, cu_seqlens: Tensor | None,
    dy: Tensor, d_final_state: Tensor | None, silu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of x, weight, bias and initial_state."""
    arguments, keep = _arguments(x, weight, bias, initial_state, cu_seqlens, silu)
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    d_weight = weight.new_empty(arguments.sequences, *weight.shape)
    d_bias = weight.new_empty(arguments.sequences, weight.shape[0])
    d_state = x.new_empty(arguments.sequences, x.shape[2], weight.shape[1] - 1)
    d_final_state = torch.zeros_like(d_state) if d_final_state is None else d_final_state.contiguous()
    arguments.dy, arguments.dx = view(dy), view(dx)
    arguments.d_final_state, arguments.d_initial_state = pointer(d_final_state), pointer(d_state)
    arguments.d_weight, arguments.d_bias = pointer(d_weight), pointer(d_bias)
    call("convolution_backward", arguments, keep)
    return dx, d_weight.sum(0), d_bias.sum(0), d_state


def _arguments(x, weight, bias, initial_state, cu_seqlens, silu):
    batch, length, channels = x.shape
    keep = [None if t is None else t.contiguous() for t in (weight, bias, initial_state, cu_seqlens)]
    sequences = batch if cu_seqlens is None else cu_seqlens.shape[0] - 1
    threads = max(1, min(torch.get_num_threads(), x.numel() // WORK_PER_THREAD))
    arguments = ConvolutionArguments(
        x=view(x), weight=pointer(keep[0]), bias=pointer(keep[1]), initial_state=pointer(keep[2]),
        cu_seqlens=pointer(keep[3]), batch=batch, length=length, channels=channels, width=weight.shape[1],
        sequences=sequences, block=channel_block(channels, sequences, threads), silu=int(silu),
        dtype=DTYPES[x.dtype], threads=threads,
    )  # fmt: skip
    return arguments, keep
