"""Launch the kernels: of a sequence that is cut three forward and four backward, of a whole one, one and two."""

import torch
from torch import Tensor

from ...operands import ScanOperands
from ..device import on_its_device, rounds_to_bfloat16
from .binaries import Argument, Binary
from .kind import MOST_STATES
from .plan import Chunks, Plan, planned, saved_shape
from .readable import neighbours

MOST_ROWS = 2**24
"""Steps of a batch: a lane's offset into the parts of dB and dC has 32 bits."""


def reaches(x: ScanOperands) -> bool:
    """Return whether these kernels compute a scan: float32 accumulators, at most 16 states."""
    u = x.u
    batch, length, _ = u.shape
    return takes(u.dtype, u.device) and x.A.shape[1] <= MOST_STATES and batch * length <= MOST_ROWS


def takes(dtype: torch.dtype, device: torch.device) -> bool:
    """Return whether these kernels take activations of a dtype on a device."""
    if dtype == torch.bfloat16:
        return rounds_to_bfloat16(device)
    return dtype != torch.float64


def entries_shape(x: ScanOperands) -> tuple[int, int]:
    """Return the shape of the states saved for the backward pass."""
    return saved_shape(x)


@on_its_device
def forward(x: ScanOperands, y: Tensor, save: bool) -> tuple[Tensor, Tensor | None]:
    """Fill `y`, time-major and dense; return last_state and, to `save`, states for the backward pass."""
    x, plan = planned(x)
    A = x.A
    last, saved = A.new_empty(plan.state_shape), A.new_empty(plan.saved_shape) if save else None
    cut = plan.chunks(x.cu_seqlens, backward=False)
    if not cut.count:
        return _copied(x.initial_state, last), saved
    where, (u, delta, B, groups_B, C, groups_C, z) = (plan.length, cut.steps, cut.per_row), plan.forward_rows
    entries = None
    if cut.summarized:
        tiles = cut.count * plan.kind.blocks
        workspace = A.new_empty(tiles * (plan.kind.tile + plan.kind.threads))
        entries, total = workspace, (workspace, tiles * plan.kind.tile)
        plan.summarize(
            cut.summarized * plan.kind.blocks, x.u, x.delta, A, x.B, x.delta_bias, x.step_mask, cut.table, total,
            entries, *where, u, delta, B, groups_B,
        )  # fmt: skip
        _carry(plan, plan.carry, entries, total, A, x.initial_state, last, cut)
    plan.write(
        cut.count * plan.kind.blocks, x.u, x.delta, A, x.B, x.C, x.D, x.z, x.delta_bias, x.step_mask, cut.table,
        entries, x.initial_state, saved, y, last, *where, u, delta, B, groups_B, C, groups_C, z,
    )  # fmt: skip
    return last, saved


@on_its_device
def backward(
    x: ScanOperands, saved: Tensor, dy: Tensor, d_last_state: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the first nine operands, u to initial_state; None for absent ones."""
    x, plan = planned(x)
    A, dy = x.A, neighbours(dy)
    d_last = d_last_state
    if d_last is not None:
        d_last = (d_last if d_last.dtype is A.dtype else d_last.to(A.dtype)).contiguous()
    dense = torch.empty_like(x.u, memory_format=torch.contiguous_format)
    du, ddelta, dz = dense, torch.empty_like(dense), None if x.z is None else torch.empty_like(dense)
    dB = torch.empty_like(x.B, memory_format=torch.contiguous_format)
    dC = torch.empty_like(dB)
    dA, dD, dbias = torch.empty_like(A), A.new_empty(A.shape[0]), A.new_empty(A.shape[0])
    d_first = A.new_empty(plan.state_shape)
    cut = plan.chunks(x.cu_seqlens, backward=True)
    if cut.count:
        given, gradients = (saved, dy, d_last), (du, ddelta, dz, d_first)
        _differentiate(plan, x, cut, given, gradients, (dB, dC, dA, dD, dbias))
    else:
        for t in (dB, dC, dA, dD, dbias):
            t.zero_()
        d_first = _copied(d_last, d_first)
    return (
        du, ddelta, dA, dB, dC, None if x.D is None else dD, dz, None if x.delta_bias is None else dbias,
        None if x.initial_state is None else d_first,
    )  # fmt: skip


def _differentiate(
    plan: Plan, x: ScanOperands, cut: Chunks, given: tuple, gradients: tuple, summed: tuple[Tensor, ...]
) -> None:
    saved, dy, d_last = given
    kind, A = plan.kind, x.A
    tiles = cut.count * kind.blocks
    # One allocation for everything between the kernels. A chunk's part of dA takes the place of the adjoint at its
    # exit, which only the program that makes the part reads.
    *starts, size = plan.parts(cut.count)
    workspace = A.new_empty(size)
    parts_A, total, parts_D, parts_bias, parts_BC = [(workspace, start) for start in starts]
    exits = parts_A if cut.summarized else None
    where = (plan.length, cut.steps, cut.per_row)
    summarize, differentiate = plan.backward_binaries(dy.stride(1))
    if exits is not None:
        summarize(
            cut.summarized * kind.blocks, x.delta, A, x.C, x.z, x.delta_bias, x.step_mask, dy, cut.table, total,
            exits, *where, *plan.backward_rows, dy.stride(0),
        )  # fmt: skip
        _carry(plan, plan.carry_back, exits, total, A, d_last, gradients[3], cut)
    differentiate(
        tiles, x.u, x.delta, A, x.B, x.C, x.D, x.z, x.delta_bias, x.step_mask, dy, cut.table, saved, exits, d_last,
        *gradients, parts_BC, parts_A, parts_D, parts_bias, plan.length, plan.rows, cut.steps, cut.per_row,
        *plan.forward_rows, dy.stride(0),
    )  # fmt: skip
    over_steps, over_chunks = plan.finish_programs
    plan.finish(
        over_steps + over_chunks, parts_BC, parts_A, parts_D, parts_bias, *summed, plan.rows, cut.count, over_steps
    )  # fmt: skip


def _carry(
    plan: Plan, kernel: Binary, local: Argument, total: Argument, A: Tensor, first: Argument, last: Tensor, cut: Chunks
) -> None:  # fmt: skip
    kernel(plan.carry_programs, local, total, A, first, last, cut.bounds, cut.per_row)


def _copied(state: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if state is None else state.clone()
