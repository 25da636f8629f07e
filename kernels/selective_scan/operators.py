"""The compiled backends as PyTorch operators, so that autograd and torch.compile know them."""

from dataclasses import fields
from types import ModuleType

import torch
from torch import Tensor

from .namespace import NAMESPACE
from .operands import ScanOperands
from .validation import check_bounds, check_finite


def _backend(name: str) -> ModuleType:
    """Import a backend at first use: each has needs of its own (a compiler, Triton)."""
    if name == "triton":
        from .triton import backend as triton_backend

        return triton_backend
    from .cpu import backend as cpu

    return cpu


def scan(x: ScanOperands, backend: str) -> tuple[Tensor, Tensor]:
    """Return (y, last_state), computed by the compiled `backend`."""
    wanted = any(t is not None and t.requires_grad for t in x.tensors())
    y, last_state, _ = scan_forward(
        *x.tensors(), x.delta_softplus, wanted and torch.is_grad_enabled(), backend
    )
    return y, last_state


def _gather(tensors: tuple[Tensor | None, ...], delta_softplus: bool) -> ScanOperands:
    names = [field.name for field in fields(ScanOperands)]
    return ScanOperands(**dict(zip(names, (*tensors, delta_softplus), strict=True)))  # pyright: ignore


@torch.library.custom_op(f"{NAMESPACE}::selective_scan", mutates_args=())
def scan_forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, initial_state: Tensor | None, step_mask: Tensor | None,
    cu_seqlens: Tensor | None, delta_softplus: bool, save: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return y (batch, length, channels), last_state, and the states saved for the backward pass."""
    check_finite(A)
    check_bounds(cu_seqlens, u.shape[1])
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state, step_mask, cu_seqlens)
    return _backend(backend).forward(_gather(tensors, delta_softplus), save)


@torch.library.custom_op(f"{NAMESPACE}::selective_scan_backward", mutates_args=())
def scan_backward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, initial_state: Tensor | None, step_mask: Tensor | None,
    cu_seqlens: Tensor | None, entries: Tensor, dy: Tensor, d_last_state: Tensor, delta_softplus: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of the first nine arguments; those of absent ones are empty."""
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state, step_mask, cu_seqlens)
    return _backend(backend).backward(_gather(tensors, delta_softplus), entries, dy, d_last_state)


@scan_forward.register_fake
def _(
    u, delta, A, B, C, D, z, delta_bias, initial_state, step_mask, cu_seqlens, delta_softplus, save, backend
):
    x = _gather((u, delta, A, B, C, D, z, delta_bias, initial_state, step_mask, cu_seqlens), delta_softplus)
    entries = A.new_empty(_backend(backend).entries_shape(x) if save else (0, 0, 0))
    return u.new_empty(u.shape), A.new_empty(x.sequences, *A.shape), entries


@scan_backward.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, initial_state, *_rest):
    arguments = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    return tuple(A.new_empty(0) if t is None else t.new_empty(t.shape) for t in arguments)


def _setup_context(ctx, inputs, output):
    *tensors, ctx.delta_softplus, _save, ctx.backend = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(
        False
    )  # zeros for the saved states would take as much memory again as the states
    ctx.y_shape, ctx.state_shape = output[0].shape, output[1].shape


def _backward(ctx, dy, d_last_state, _entries):
    *tensors, entries = ctx.saved_tensors
    u, A = tensors[0], tensors[2]
    dy = u.new_zeros(()).expand(ctx.y_shape) if dy is None else dy
    d_last_state = A.new_zeros(()).expand(ctx.state_shape) if d_last_state is None else d_last_state
    gradients = scan_backward(*tensors, entries, dy, d_last_state, ctx.delta_softplus, ctx.backend)
    present = [g if t is not None else None for g, t in zip(gradients, tensors[:9], strict=True)]
    return *present, None, None, None, None, None


scan_forward.register_autograd(_backward, setup_context=_setup_context)
