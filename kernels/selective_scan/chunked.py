"""Backend `torch`: chunks of steps in plain PyTorch, linear in time and small in memory.

The fallback where nothing compiles. Only the recurrence is written by hand (states of one chunk at a time,
recomputed in the backward pass from the state at the chunk's entry); bias, softplus, mask, skip and gate are
ordinary differentiable PyTorch around it.
"""

import torch
from torch import Tensor

from .namespace import NAMESPACE
from .operands import ScanOperands, skip_and_gate, step_sizes
from .validation import check_bounds, check_finite

CHUNK = 32
"""Steps whose dense states are held at a time (our decision: fastest of 16, 32, 64 at 20160 steps)."""


def scan(x: ScanOperands) -> tuple[Tensor, Tensor]:
    """Return (y, last_state); a pack is padded to its longest member, where padding has step size 0."""
    if x.cu_seqlens is not None:
        return _scan_pack(x)
    batch, length, channels = x.u.shape
    groups, states = x.B.shape[2:]
    width = channels // groups
    wide = x.state_dtype
    delta = step_sizes(x)
    save = torch.is_grad_enabled()
    y, state, _ = chunked_recurrence(
        (delta * x.u.to(wide)).reshape(batch, length, groups, width),
        delta.reshape(batch, length, groups, width),
        x.A.reshape(groups, width, states),
        x.B.to(wide),
        x.C.to(wide),
        x.entry_state().reshape(x.sequences, groups, width, states),
        save,
    )
    return skip_and_gate(y.reshape(batch, length, channels), x), state.reshape(x.sequences, channels, states)


def _scan_pack(x: ScanOperands) -> tuple[Tensor, Tensor]:
    assert x.cu_seqlens is not None
    check_bounds(x.cu_seqlens, x.u.shape[1])
    starts = x.cu_seqlens[:-1].to(x.u.device)
    lengths = x.cu_seqlens.to(x.u.device).diff()
    if not x.u.shape[1] or not len(lengths):
        return torch.zeros_like(x.u), x.entry_state().clone()
    position = torch.arange(int(lengths.max()), device=x.u.device)
    inside = position < lengths[:, None]
    index = torch.where(inside, starts[:, None] + position, 0)

    def pad(tensor: Tensor) -> Tensor:
        return tensor[0][index]

    mask = inside if x.step_mask is None else inside & pad(x.step_mask)
    y, state = scan(
        x._replace(
            u=pad(x.u),
            delta=pad(x.delta),
            B=pad(x.B),
            C=pad(x.C),
            z=None if x.z is None else pad(x.z),
            step_mask=mask,
            cu_seqlens=None,
        )
    )
    return y[inside][None], state


@torch.library.custom_op(f"{NAMESPACE}::chunked_recurrence", mutates_args=())
def chunked_recurrence(
    drive: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (C_t h_t, last state, states at chunk entries) of h_t = exp(delta_t A) h_{t-1} + drive_t B_t.

    `drive`, `delta`: (batch, length, groups, width); `A`: (groups, width, state); `B`, `C`: (batch, length,
    groups, state); `state`: (batch, groups, width, state).
    """
    check_finite(A)
    length = drive.shape[1]
    entries = state.new_empty(-(-length // CHUNK) if save else 0, *state.shape)
    y, state = torch.empty_like(drive, memory_format=torch.contiguous_format), state.clone()
    for k, start in enumerate(range(0, length, CHUNK)):
        s = slice(start, start + CHUNK)
        if save:
            entries[k] = state
        _, states = _chunk_states(drive[:, s], delta[:, s], A, B[:, s], state)
        y[:, s] = torch.matmul(states[:, 1:], C[:, s, ..., None]).squeeze(-1)
        state = states[:, -1].clone()
    return y, state, entries


def _chunk_states(drive: Tensor, delta: Tensor, A: Tensor, B: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Return the decays of every step and the states before and after it (one more than steps)."""
    decay = torch.exp(delta[..., None] * A)
    states = torch.cat([state[:, None], drive[..., None] * B[..., None, :]], 1)
    for t in range(drive.shape[1]):
        states[:, t + 1].addcmul_(decay[:, t], states[:, t])
    return decay, states


@torch.library.custom_op(f"{NAMESPACE}::chunked_recurrence_backward", mutates_args=())
def chunked_recurrence_backward(
    drive: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, entries: Tensor, dy: Tensor, dstate: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of drive, delta, A, B, C and the initial state."""
    d_drive, d_delta, d_B, d_C = (
        torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (drive, delta, B, C)
    )
    d_A, dstate = torch.zeros_like(A), dstate.clone()
    for k in range(entries.shape[0] - 1, -1, -1):
        s = slice(k * CHUNK, (k + 1) * CHUNK)
        decay, states = _chunk_states(drive[:, s], delta[:, s], A, B[:, s], entries[k])
        adjoint = dy[:, s, ..., None] * C[:, s, ..., None, :]
        adjoint[:, -1] += dstate
        for t in range(adjoint.shape[1] - 2, -1, -1):
            adjoint[:, t].addcmul_(decay[:, t + 1], adjoint[:, t + 1])
        dstate = decay[:, 0] * adjoint[:, 0]
        d_C[:, s] = torch.matmul(dy[:, s, ..., None, :], states[:, 1:]).squeeze(-2)
        d_B[:, s] = torch.matmul(drive[:, s, ..., None, :], adjoint).squeeze(-2)
        d_drive[:, s] = torch.matmul(adjoint, B[:, s, ..., None]).squeeze(-1)
        exponent = adjoint.mul_(decay).mul_(states[:, :-1])
        d_delta[:, s] = (exponent * A).sum(-1)
        d_A += torch.einsum("btgdn,btgd->gdn", exponent, delta[:, s])
    return d_drive, d_delta, d_A, d_B, d_C, dstate


@chunked_recurrence.register_fake
def _(drive, delta, A, B, C, state, save):
    entries = state.new_empty(-(-drive.shape[1] // CHUNK) if save else 0, *state.shape)
    return drive.new_empty(drive.shape), torch.empty_like(state), entries


@chunked_recurrence_backward.register_fake
def _(drive, delta, A, B, C, entries, dy, dstate):
    return tuple(x.new_empty(x.shape) for x in (drive, delta, A, B, C, dstate))


def _setup_context(ctx, inputs, output):
    drive, delta, A, B, C, _state, _save = inputs
    ctx.save_for_backward(drive, delta, A, B, C, output[2])
    ctx.mark_non_differentiable(output[2])


def _backward(ctx, dy, dstate, _entries):
    return *chunked_recurrence_backward(*ctx.saved_tensors, dy, dstate), None


chunked_recurrence.register_autograd(_backward, setup_context=_setup_context)
