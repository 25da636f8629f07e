"""The convolution's compiled CPU kernels; the GPU's: `triton.convolution`."""

import ctypes

import torch
from torch import Tensor

from ..operands import ConvolutionInputs, empty_time_major
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


def forward(inputs: ConvolutionInputs, y: Tensor) -> Tensor:
    """Fill `y`, laid out as `x`; return the last inputs (sequences, channels, width - 1)."""
    arguments, keep = _arguments(inputs)
    last = inputs.x.new_empty(inputs.sequences, arguments.channels, arguments.width - 1)
    arguments.y, arguments.final_state = view(y.mT), pointer(last)
    call("convolution_forward", arguments, keep)
    return last


def backward(inputs: ConvolutionInputs, dy: Tensor, d_last: Tensor | None) -> tuple[Tensor | None, ...]:
    """Return the gradients of x, weight, bias and initial_state, None for absent ones."""
    arguments, keep = _arguments(inputs)
    x, weight, bias, initial_state = inputs[:4]
    dx = empty_time_major(x)
    d_weight = weight.new_empty(inputs.sequences, *weight.shape)
    d_bias = weight.new_empty(inputs.sequences, weight.shape[0])
    d_state = x.new_empty(inputs.sequences, arguments.channels, arguments.width - 1)
    d_last = torch.zeros_like(d_state) if d_last is None else d_last.contiguous()
    arguments.dy, arguments.dx = view(dy.mT), view(dx.mT)
    arguments.d_final_state, arguments.d_initial_state = pointer(d_last), pointer(d_state)
    arguments.d_weight, arguments.d_bias = pointer(d_weight), pointer(d_bias)
    call("convolution_backward", arguments, keep)
    d_bias = None if bias is None else d_bias.sum(0)
    return dx, d_weight.sum(0), d_bias, None if initial_state is None else d_state


def _arguments(inputs: ConvolutionInputs) -> tuple[ConvolutionArguments, list[Tensor | None]]:
    """Describe the inputs; the list keeps alive what the pointers point to."""
    x = inputs.x.mT
    batch, length, channels = x.shape
    keep = [None if t is None else t.contiguous() for t in inputs[1:5]]
    threads = max(1, min(torch.get_num_threads(), x.numel() // WORK_PER_THREAD))
    arguments = ConvolutionArguments(
        x=view(x), weight=pointer(keep[0]), bias=pointer(keep[1]), initial_state=pointer(keep[2]),
        cu_seqlens=pointer(keep[3]), batch=batch, length=length, channels=channels, width=inputs.weight.shape[1],
        sequences=inputs.sequences, block=channel_block(channels, inputs.sequences, threads), silu=int(inputs.silu),
        dtype=DTYPES[x.dtype], threads=threads,
    )  # fmt: skip
    return arguments, keep
