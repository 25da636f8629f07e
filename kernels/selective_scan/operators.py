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
from .backends import resolve_backend
from .namespace import NAMESPACE
from .operands import ScanInputs, empty_time_major, scan_inputs, time_major
from .remembered import own_bounds
from .second_derivatives import refuse_second_derivatives, refuse_tangents
from .tracing import is_traced
from .validation import Kinds, check_bounds, check_finite, check_scan

REMEDY = "the scan's kernels give first derivatives backward alone, backend 'reference' gives others too"

_kinds = Kinds(check_scan)


@functools.cache
def _backend(name: str) -> ModuleType:
    """Import a backend at first use: each has needs of its own (a compiler, Triton)."""
    if name == "triton":
        from .triton import designs

        return designs
    from .cpu import backend as cpu

    return cpu


def scan(tensors: Sequence[Any], delta_softplus: bool, backend: str) -> tuple[Tensor, Tensor]:
    """Return y (batch, channels, length) and last_state for the tensors of `selective_scan`, in its order.

    Raises
    ------
    ValueError
        For what `selective_scan` refuses.
    """
    made = None
    if torch.compiler.is_compiling():
        check_scan(*tensors)
    else:
        made = _kinds.check_once(*tensors)
    backend = resolve_backend(backend, tensors[0].device)
    if backend != "reference":
        refuse_tangents(tensors, REMEDY)
    compiled = backend in ("cpu", "triton")
    graph = torch.is_grad_enabled() and any([t is not None and t.requires_grad for t in tensors])
    if compiled and graph and not is_traced(tensors[0]):
        return Scan.apply(backend, delta_softplus, made, *tensors)  # pyright: ignore
    x = scan_inputs(tensors, delta_softplus, made)
    if not compiled:
        return _in_pytorch(x, backend)
    y, last_state, _ = (
        scan_forward(*x[:12], graph, backend) if is_traced(x.u) else _forward(x, False, backend)
    )
    return y, last_state


def _in_pytorch(inputs: ScanInputs, backend: str) -> tuple[Tensor, Tensor]:
    x = time_major(inputs)
    if backend == "torch":
        y, last_state = chunked.scan(x)
    else:
        check_finite(x.A)
        check_bounds(x.cu_seqlens, x.u.shape[1])
        y, last_state = reference.scan(x)
    return y.mT, last_state


def _forward(x: ScanInputs, save: bool, backend: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return y (batch, channels, length), last_state, and what the backward pass needs."""
    check_finite(x.A)
    check_bounds(x.cu_seqlens, x.u.shape[2])
    y = empty_time_major(x.u)
    last_state, entries = _backend(backend).forward(x, y, save)
    return y, last_state, entries


def _gradients(
    x: ScanInputs, entries: Tensor, dy: Tensor | None, d_last_state: Tensor | None, backend: str
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the first nine inputs."""
    dy = x.u.new_zeros(()).expand(x.u.shape) if dy is None else dy
    return _backend(backend).backward(x, entries.contiguous(), dy, d_last_state)


class Scan(torch.autograd.Function):
    """A scan with gradients.

    Whatever is made of the arguments is made inside, where autograd does not see it: outside each view is a node of
    the graph, with its step of the engine.
    """

    @staticmethod
    def forward(
        ctx: Any, backend: str, delta_softplus: bool, made: dict[Any, Any], *tensors: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return y and last_state."""
        x = scan_inputs(tensors, delta_softplus, made)
        y, last_state, entries = _forward(x, True, backend)
        ctx.backend, ctx.options = backend, (own_bounds(x.cu_seqlens), delta_softplus, made)
        # What was converted comes last as it was: a second derivative would ask for it.
        ctx.save_for_backward(
            *x[:10], entries, *[t for t, own in zip(tensors, x[:10], strict=False) if t is not own]
        )
        ctx.set_materialize_grads(False)  # zeros for a state that nobody uses take memory
        return y, last_state

    @staticmethod
    def backward(ctx: Any, dy: Any, d_last_state: Any) -> tuple[Any, ...]:  # pyright: ignore
        """Return the gradients of the tensors from those of y and last_state, None where nobody uses one."""
        saved = ctx.saved_tensors  # once: a checkpoint computes what it gives anew, and gives it once
        x = ScanInputs(*saved[:10], *ctx.options)
        if not torch.is_grad_enabled():
            gradients = _gradients(x, saved[10], dy, d_last_state, ctx.backend)
        else:  # somebody keeps the graph, and may differentiate again
            with torch.no_grad():
                computed = _gradients(x, saved[10], dy, d_last_state, ctx.backend)
            made_of = (dy, d_last_state, *saved[:9], *saved[11:])
            gradients = refuse_second_derivatives(computed, made_of, REMEDY)
        return None, None, None, *gradients, None, None


@torch.library.custom_op(f"{NAMESPACE}::selective_scan", mutates_args=())
def scan_forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, initial_state: Tensor | None, step_mask: Tensor | None,
    cu_seqlens: Tensor | None, delta_softplus: bool, save: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return y (batch, channels, length), last_state, and what the backward pass needs."""
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state, step_mask, cu_seqlens)
    x = ScanInputs(*tensors, delta_softplus, _kinds.check_once(*tensors))
    y, last_state, entries = _forward(x, save, backend)
    return y, last_state, A.new_empty(0) if entries is None else entries


@torch.library.custom_op(f"{NAMESPACE}::selective_scan_backward", mutates_args=())
def scan_backward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, initial_state: Tensor | None, step_mask: Tensor | None,
    cu_seqlens: Tensor | None, entries: Tensor, dy: Tensor | None, d_last_state: Tensor | None,
    delta_softplus: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of the first nine arguments; those of absent ones are empty."""
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state, step_mask, cu_seqlens)
    x = ScanInputs(*tensors, delta_softplus, _kinds.check_once(*tensors))
    gradients = _gradients(x, entries, dy, d_last_state, backend)
    return tuple(A.new_empty(0) if g is None else g for g in gradients)  # pyright: ignore


@scan_forward.register_fake
def _(
    u, delta, A, B, C, D, z, delta_bias, initial_state, step_mask, cu_seqlens, delta_softplus, save, backend
):
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state, step_mask, cu_seqlens)
    x = ScanInputs(*tensors, delta_softplus)
    entries = A.new_empty(_backend(backend).entries_shape(x) if save else 0)
    return empty_time_major(u), A.new_empty(x.sequences, *A.shape), entries


@scan_backward.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, initial_state, *_rest):
    activations = {0, 1, 3, 4, 6}
    return tuple(
        A.new_empty(0) if t is None else empty_time_major(t) if i in activations else t.new_empty(t.shape)
        for i, t in enumerate((u, delta, A, B, C, D, z, delta_bias, initial_state))
    )


def _setup_context(ctx, inputs, output):
    *tensors, ctx.delta_softplus, _save, ctx.backend = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)  # as above


def _backward(ctx, dy, d_last_state, _entries):
    *tensors, entries = ctx.saved_tensors
    gradients = scan_backward(*tensors, entries, dy, d_last_state, ctx.delta_softplus, ctx.backend)
    present = [g if t is not None else None for g, t in zip(gradients, tensors[:9], strict=True)]
    return *present, None, None, None, None, None


scan_forward.register_autograd(_backward, setup_context=_setup_context)
