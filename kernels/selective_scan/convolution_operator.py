"""The compiled convolutions, known to autograd; by an operator of PyTorch only where torch.compile traces.

As in `operators`: what an operator costs the host in dispatch, an `autograd.Function` does not.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .namespace import NAMESPACE
from .operands import state_dtype
from .remembered import own_bounds
from .second_derivatives import refuse_second_derivatives
from .tracing import is_traced
from .validation import check_bounds

REMEDY = "the convolution's kernels give first derivatives alone, backend 'reference' gives second ones too"


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
    arguments = (x, weight.to(wide), bias, initial_state, cu_seqlens, activation == "silu", backend)
    if is_traced(x):
        return convolution(*arguments)
    if torch.is_grad_enabled() and any([t is not None and t.requires_grad for t in arguments[:4]]):
        return Convolution.apply(*arguments)  # pyright: ignore
    return _forward(*arguments)


def _forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, cu_seqlens: Tensor | None,
    silu: bool, backend: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    check_bounds(cu_seqlens, x.shape[1])
    return _backend(backend).forward(x, weight, bias, initial_state, cu_seqlens, silu)


class Convolution(torch.autograd.Function):
    """A convolution with gradients."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        """Return y and the last inputs."""
        *tensors, bounds, ctx.silu, ctx.backend = arguments
        ctx.cu_seqlens = own_bounds(bounds)
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)  # zeros for last inputs that nobody uses cost a dozen kernels
        return _forward(*arguments)

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> tuple[Any, ...]:  # pyright: ignore
        """Return the gradients of the tensors from those of y and the last inputs."""
        tensors, (dy, d_final_state) = ctx.saved_tensors, outer
        with torch.no_grad():
            dy = torch.zeros_like(tensors[0]) if dy is None else dy
            gradients = _backend(ctx.backend).backward(*tensors, ctx.cu_seqlens, dy, d_final_state, ctx.silu)
        computed = tuple([g if t is not None else None for g, t in zip(gradients, tensors, strict=True)])
        if torch.is_grad_enabled():  # somebody keeps the graph, and may differentiate again
            computed = refuse_second_derivatives(computed, (*outer, *tensors), REMEDY)
        return *computed, None, None, None


@torch.library.custom_op(f"{NAMESPACE}::causal_conv1d", mutates_args=())
def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, cu_seqlens: Tensor | None,
    silu: bool, backend: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return y (batch, length, channels) and the last inputs (sequences, channels, width - 1)."""
    return _forward(x, weight, bias, initial_state, cu_seqlens, silu, backend)


@torch.library.custom_op(f"{NAMESPACE}::causal_conv1d_backward", mutates_args=())
def convolution_backward(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, cu_seqlens: Tensor | None,
    dy: Tensor, d_final_state: Tensor, silu: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of x, weight, bias and initial_state."""
    gradients = _backend(backend).backward(
        x, weight, bias, initial_state, cu_seqlens, dy, d_final_state, silu
    )
    return *gradients[:3], torch.zeros_like(d_final_state) if gradients[3] is None else gradients[3]


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
