"""A selective scan by a backend, known to autograd; by an operator of PyTorch only where torch.compile traces.

An operator costs the host some 50 microseconds a call in dispatch, an `autograd.Function` a dozen.
"""

import functools
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from . import chunked, reference
from .namespace import NAMESPACE
from .operands import ScanOperands, time_major
from .remembered import own_bounds
from .second_derivatives import refuse_second_derivatives
from .tracing import is_traced
from .validation import check_bounds, check_finite

REMEDY = "the scan's kernels give first derivatives alone, backend 'reference' gives second ones too"


@functools.cache
def _backend(name: str) -> ModuleType:
    """Import a backend at first use: each has needs of its own (a compiler, Triton)."""
    if name == "triton":
        from .triton import designs

        return designs
    from .cpu import backend as cpu

    return cpu


def scan(tensors: Sequence[Tensor | None], delta_softplus: bool, backend: str) -> tuple[Tensor, Tensor]:
    """Return y (batch, channels, length) and last_state for the checked tensors of `selective_scan`.

    Raises
    ------
    ValueError
        For values of A or cu_seqlens that no backend can compute.
    """
    if backend not in ("cpu", "triton"):
        return _in_pytorch(time_major(tensors, delta_softplus), backend)
    graph = torch.is_grad_enabled() and any([t is not None and t.requires_grad for t in tensors])
    if is_traced(tensors[0]):
        x = time_major(tensors, delta_softplus)
        y, last_state, _ = scan_forward(*x.tensors(), delta_softplus, graph, backend)
        return y.mT, last_state
    if graph:
        return Scan.apply(backend, delta_softplus, *tensors)  # pyright: ignore
    u = tensors[0]
    assert u is not None
    y, last_state, _ = _forward(time_major(tensors, delta_softplus), _empty_output(u), False, backend)
    return y, last_state


def _in_pytorch(x: ScanOperands, backend: str) -> tuple[Tensor, Tensor]:
    if backend == "torch":
        y, last_state = chunked.scan(x)
    else:
        check_finite(x.A)
        check_bounds(x.cu_seqlens, x.u.shape[1])
        y, last_state = reference.scan(x)
    return y.mT, last_state


def _empty_output(u: Tensor) -> Tensor:
    """Return an output (batch, channels, length), time-major in memory: a tensor of its own, not a view of one."""
    _, channels, length = u.shape
    return torch.empty_strided(u.shape, (length * channels, 1, channels), dtype=u.dtype, device=u.device)


def _forward(x: ScanOperands, y: Tensor, save: bool, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    check_finite(x.A)
    check_bounds(x.cu_seqlens, x.u.shape[1])
    last_state, entries = _backend(backend).forward(x, y.mT, save)
    return y, last_state, entries


class Scan(torch.autograd.Function):
    """A scan with gradients.

    The views are made inside, where autograd does not see them: outside they are a dozen nodes of the graph, each with
    its step of the engine.
    """

    @staticmethod
    def forward(
        ctx: Any, backend: str, delta_softplus: bool, *tensors: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return y and last_state."""
        x = time_major(tensors, delta_softplus)
        u, B = tensors[0], tensors[3]
        assert u is not None
        assert B is not None
        y, last_state, entries = _forward(x, _empty_output(u), True, backend)
        ctx.backend, ctx.delta_softplus, ctx.cu_seqlens = backend, delta_softplus, own_bounds(x.cu_seqlens)
        ctx.grouped = B.dim() == 4
        # Views, and what they are of, which a second derivative would ask for: no copy.
        ctx.save_for_backward(*x.tensors()[:10], entries, *tensors[:9])
        ctx.set_materialize_grads(False)  # zeros for a state that nobody uses take memory
        return y, last_state

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> tuple[Any, ...]:  # pyright: ignore
        """Return the gradients of the tensors from those of y and last_state, None where nobody uses one."""
        saved = ctx.saved_tensors  # once: a checkpoint computes what it gives anew, and gives it once
        if not torch.is_grad_enabled():
            gradients = Scan._gradients(ctx, saved, *outer)
        else:  # somebody keeps the graph, and may differentiate again
            with torch.no_grad():
                computed = Scan._gradients(ctx, saved, *outer)
            made_of = (*outer, *saved[11:])
            gradients = refuse_second_derivatives(computed, made_of, REMEDY)
        return None, None, *gradients, None, None

    @staticmethod
    def _gradients(
        ctx: Any, saved: tuple[Tensor, ...], dy: Tensor | None, d_last_state: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        *tensors, entries = saved[:11]
        x = ScanOperands(*tensors, ctx.cu_seqlens, ctx.delta_softplus)  # pyright: ignore
        dy = x.u.new_zeros(()).expand(x.u.shape) if dy is None else dy.mT
        computed = _backend(ctx.backend).backward(x, entries, dy, d_last_state)
        du, ddelta, dA, dB, dC, dD, dz, dbias, dstate = computed
        if ctx.grouped:
            dB, dC = dB.permute(0, 2, 3, 1), dC.permute(0, 2, 3, 1)
        else:
            dB, dC = dB.squeeze(2).mT, dC.squeeze(2).mT
        return du.mT, ddelta.mT, dA, dB, dC, dD, None if dz is None else dz.mT, dbias, dstate


@torch.library.custom_op(f"{NAMESPACE}::selective_scan", mutates_args=())
def scan_forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, initial_state: Tensor | None, step_mask: Tensor | None,
    cu_seqlens: Tensor | None, delta_softplus: bool, save: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return y (batch, length, channels), last_state, and the states saved for the backward pass."""
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state, step_mask, cu_seqlens)
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    _, last_state, entries = _forward(ScanOperands(*tensors, delta_softplus), y.mT, save, backend)
    return y, last_state, A.new_empty(0) if entries is None else entries


@torch.library.custom_op(f"{NAMESPACE}::selective_scan_backward", mutates_args=())
def scan_backward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, initial_state: Tensor | None, step_mask: Tensor | None,
    cu_seqlens: Tensor | None, entries: Tensor, dy: Tensor, d_last_state: Tensor | None,
    delta_softplus: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of the first nine arguments; those of absent ones are empty."""
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state, step_mask, cu_seqlens)
    gradients = _backend(backend).backward(ScanOperands(*tensors, delta_softplus), entries, dy, d_last_state)
    return tuple(A.new_empty(0) if g is None else g for g in gradients)  # pyright: ignore


@scan_forward.register_fake
def _(
    u, delta, A, B, C, D, z, delta_bias, initial_state, step_mask, cu_seqlens, delta_softplus, save, backend
):
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state, step_mask, cu_seqlens)
    x = ScanOperands(*tensors, delta_softplus)
    entries = A.new_empty(_backend(backend).entries_shape(x) if save else 0)
    return u.new_empty(u.shape), A.new_empty(x.sequences, *A.shape), entries


@scan_backward.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, initial_state, *_rest):
    arguments = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    return tuple(A.new_empty(0) if t is None else t.new_empty(t.shape) for t in arguments)


def _setup_context(ctx, inputs, output):
    *tensors, ctx.delta_softplus, _save, ctx.backend = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)  # as above
    ctx.y_shape = output[0].shape


def _backward(ctx, dy, d_last_state, _entries):
    *tensors, entries = ctx.saved_tensors
    dy = tensors[0].new_zeros(()).expand(ctx.y_shape) if dy is None else dy
    gradients = scan_backward(*tensors, entries, dy, d_last_state, ctx.delta_softplus, ctx.backend)
    present = [g if t is not None else None for g, t in zip(gradients, tensors[:9], strict=True)]
    return *present, None, None, None, None, None


scan_forward.register_autograd(_backward, setup_context=_setup_context)
