"""The compiled convolutions as one PyTorch operator, so that autograd and torch.compile know them."""

from types import ModuleType

import torch
from torch import Tensor

from .namespace import NAMESPACE
from .operands import state_dtype
from .validation import check_bounds


def _backend(name: str) -> ModuleType:
    """Import a backend at first use: each has needs of its own (a compiler, Triton)."""
    if name == "triton":
        from .triton import convolution as triton_convolution

        return triton_convolution
    from .cpu import convolution as cpu_convolution

    return cpu_convolution


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, initial_state: Tensor | None,
    cu_seqlens: Tensor | None, backend: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return (y, final state) for time-major `x` (batch, length, channels)."""
    wide = state_dtype(x.dtype)
    bias = None if bias is None else bias.to(wide)
    return convolution(x, weight.to(wide), bias, initial_state, cu_seqlens, activation == "silu", backend)


@torch.library.custom_op(f"{NAMESPACE}::causal_conv1d", mutates_args=())
def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, cu_seqlens: Tensor | None,
    silu: bool, backend: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return y (batch, length, channels) and the last inputs (sequences, channels, width - 1)."""
    check_bounds(cu_seqlens, x.shape[1])
    return _backend(backend).forward(x, weight, bias, initial_state, cu_seqlens, silu)


@torch.library.custom_op(f"{NAMESPACE}::causal_conv1d_backward", mutates_args=())
def convolution_backward(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, cu_seqlens: Tensor | None,
    dy: Tensor, d_final_state: Tensor, silu: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of x, weight, bias and initial_state."""
    return _backend(backend).backward(x, weight, bias, initial_state, cu_seqlens, dy, d_final_state, silu)


@convolution.register_fake
def _(x, weight, bias, initial_state, cu_seqlens, silu, backend):
    sequences = x.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    return x.new_empty(x.shape), x.new_empty(sequences, x.shape[2], weight.shape[1] - 1)


@convolution_backward.register_fake
def _(x, weight, bias, initial_state, cu_seqlens, dy, d_final_state, silu, backend):
    bias = weight.new_empty(weight.shape[0])
    return x.new_empty(x.shape), weight.new_empty(weight.shape), bias, torch.empty_like(d_final_state)


def _setup_context(ctx, inputs, output):
    *tensors, ctx.silu, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, dy, d_final_state):
    *tensors, cu_seqlens = ctx.saved_tensors
    gradients = convolution_backward(*tensors, cu_seqlens, dy, d_final_state, ctx.silu, ctx.backend)
    present = [g if t is not None else None for g, t in zip(gradients, tensors, strict=True)]
    return *present, None, None, None


convolution.register_autograd(_backward, setup_context=_setup_context)
