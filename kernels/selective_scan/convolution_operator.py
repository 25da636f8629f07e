"""The compiled convolutions, known to autograd; by an operator of PyTorch only where torch.compile traces.

As in `operators`: what an operator costs the host in dispatch, an `autograd.Function` does not.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .backends import resolve_backend
from .convolution import check_convolution, convolve
from .namespace import NAMESPACE
from .operands import ConvolutionInputs, convolution_inputs, empty_time_major
from .remembered import on_the_host, own_bounds
from .second_derivatives import refuse_second_derivatives, refuse_tangents
from .tracing import is_traced
from .validation import Kinds, check_bounds

REMEDY = (
    "the convolution's kernels give first derivatives backward alone, backend 'reference' gives others too"
)

_kinds = Kinds(check_convolution)


def _backend(name: str) -> ModuleType:
    """Import a backend at first use: each has needs of its own (a compiler, Triton)."""
    if name == "triton":
        from .triton import convolution as triton_convolution

        return triton_convolution
    from .cpu import convolution as cpu_convolution

    return cpu_convolution


def convolution(tensors: Sequence[Any], activation: str | None, backend: str) -> tuple[Tensor, Tensor]:
    """Return (y, last inputs) for x, weight, bias, initial_state and cu_seqlens of `causal_conv1d`.

    Raises
    ------
    ValueError
        For what `causal_conv1d` refuses.
    """
    made = None
    if torch.compiler.is_compiling():
        check_convolution(*tensors, activation=activation)
    else:
        made = _kinds.check_once(*tensors, activation=activation)
    backend = resolve_backend(backend, tensors[0].device)
    if backend not in ("cpu", "triton"):
        return _in_pytorch(tensors, activation)
    refuse_tangents(tensors, REMEDY)
    graph = torch.is_grad_enabled() and any([t is not None and t.requires_grad for t in tensors])
    if graph and not is_traced(tensors[0]):
        return Convolution.apply(backend, activation, made, *tensors)  # pyright: ignore
    x = convolution_inputs(tensors, activation, made)
    return convolve_operator(*x[:6], backend) if is_traced(x.x) else _forward(x, backend)


def _in_pytorch(tensors: Sequence[Any], activation: str | None) -> tuple[Tensor, Tensor]:
    x, weight, bias, initial_state, cu_seqlens = tensors
    bounds = None if cu_seqlens is None else on_the_host(cu_seqlens)
    y, last = convolve(x.mT, weight, bias, activation, initial_state, bounds)
    return y.mT, last


def _forward(x: ConvolutionInputs, backend: str) -> tuple[Tensor, Tensor]:
    check_bounds(x.cu_seqlens, x.x.shape[2])
    y = empty_time_major(x.x)
    return y, _backend(backend).forward(x, y)


def _gradients(
    x: ConvolutionInputs, dy: Tensor | None, d_last: Tensor | None, backend: str
) -> tuple[Tensor | None, ...]:
    dy = x.x.new_zeros(()).expand(x.x.shape) if dy is None else dy
    return _backend(backend).backward(x, dy, d_last)


class Convolution(torch.autograd.Function):
    """A convolution with gradients."""

    @staticmethod
    def forward(
        ctx: Any, backend: str, activation: str | None, made: dict[Any, Any], *tensors: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return y and the last inputs."""
        x = convolution_inputs(tensors, activation, made)
        ctx.backend, ctx.options = backend, (own_bounds(x.cu_seqlens), x.silu, made)
        # What was converted comes last as it was: a second derivative would ask for it.
        ctx.save_for_backward(*x[:4], *[t for t, own in zip(tensors, x[:4], strict=False) if t is not own])
        ctx.set_materialize_grads(False)  # zeros for last inputs that nobody uses cost a kernel
        return _forward(x, backend)

    @staticmethod
    def backward(ctx: Any, dy: Any, d_last: Any) -> tuple[Any, ...]:  # pyright: ignore
        """Return the gradients of the tensors from those of y and the last inputs."""
        saved = ctx.saved_tensors
        x = ConvolutionInputs(*saved[:4], *ctx.options)
        if not torch.is_grad_enabled():
            gradients = _gradients(x, dy, d_last, ctx.backend)
        else:  # somebody keeps the graph, and may differentiate again
            with torch.no_grad():
                computed = _gradients(x, dy, d_last, ctx.backend)
            gradients = refuse_second_derivatives(computed, (dy, d_last, *saved), REMEDY)
        return None, None, None, *gradients, None


@torch.library.custom_op(f"{NAMESPACE}::causal_conv1d", mutates_args=())
def convolve_operator(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, cu_seqlens: Tensor | None,
    silu: bool, backend: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return y (batch, channels, length) and the last inputs (sequences, channels, width - 1)."""
    return _forward(_checked(x, weight, bias, initial_state, cu_seqlens, silu), backend)


@torch.library.custom_op(f"{NAMESPACE}::causal_conv1d_backward", mutates_args=())
def convolve_backward_operator(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, cu_seqlens: Tensor | None,
    dy: Tensor | None, d_last: Tensor | None, silu: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of x, weight, bias and initial_state; those of absent ones are empty."""
    gradients = _gradients(_checked(x, weight, bias, initial_state, cu_seqlens, silu), dy, d_last, backend)
    return tuple(weight.new_empty(0) if g is None else g for g in gradients)  # pyright: ignore


def _checked(*given: Any) -> ConvolutionInputs:
    x, weight, bias, initial_state, cu_seqlens, silu = given
    tensors = x, weight, bias, initial_state, cu_seqlens
    made = _kinds.check_once(*tensors, activation="silu" if silu else None)
    return ConvolutionInputs(*tensors, silu, made)


@convolve_operator.register_fake
def _(x, weight, bias, initial_state, cu_seqlens, silu, backend):
    sequences = x.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    return empty_time_major(x), x.new_empty(sequences, x.shape[1], weight.shape[1] - 1)


@convolve_backward_operator.register_fake
def _(x, weight, bias, initial_state, *_rest):
    others = (weight, bias, initial_state)
    return empty_time_major(x), *[weight.new_empty(0) if t is None else t.new_empty(t.shape) for t in others]


def _setup_context(ctx, inputs, output):
    *tensors, ctx.silu, ctx.backend = inputs
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)  # as above


def _backward(ctx, dy, d_last):
    *tensors, cu_seqlens = ctx.saved_tensors
    gradients = convolve_backward_operator(*tensors, cu_seqlens, dy, d_last, ctx.silu, ctx.backend)
    present = [g if t is not None else None for g, t in zip(gradients, tensors, strict=True)]
    return *present, None, None, None


convolve_operator.register_autograd(_backward, setup_context=_setup_context)
