"""Launch the kernels: of a sequence that is cut three forward and four backward, of a whole one, one and two."""

import torch
from torch import Tensor

from ...operands import ScanInputs
from ..device import on_its_device, rounds_to_bfloat16
from ..readable import neighbours
from .kind import MOST_STATES
from .plan import Chunks, Plan, planned, saved_shape

MOST_ROWS = 2**24
"""Steps of a batch: a lane's offset into the parts of dB and dC has 32 bits."""


def reaches(x: ScanInputs) -> bool:
    """Return whether these kernels compute a scan: float32 accumulators, at most 16 states."""
    u = x.u
    batch, _, length = u.shape
    return takes(u.dtype, u.device) and x.A.shape[1] <= MOST_STATES and batch * length <= MOST_ROWS


def takes(dtype: torch.dtype, device: torch.device) -> bool:
    """Return whether these kernels take activations of a dtype on a device."""
    if dtype == torch.bfloat16:
        return rounds_to_bfloat16(device)
    return dtype != torch.float64


def entries_shape(x: ScanInputs) -> tuple[int, int]:
    """Return the shape of the states saved for the backward pass."""
    return saved_shape(x)


@on_its_device
def forward(x: ScanInputs, y: Tensor, save: bool) -> tuple[Tensor, Tensor | None]:
    """Fill `y`, dense with time before channels; return last_state and, to `save`, states for the backward pass."""
    x, plan = planned(x)
    kind, new = plan.kind, x.A.new_empty
    last, saved = new(plan.state_shape), new(plan.saved_shape) if save else None
    cut = plan.chunks(x.cu_seqlens, backward=False)
    if not cut.count:
        return _copied(x.initial_state, last), saved
    *between, write = (kernels := plan.forward_kernels(cut=cut.summarized > 0, save=save)).binaries
    run = kernels.launcher()
    u, delta, A, B, C, skip, z, bias, first, mask, table, bounds, outputs, last_, saved_ = run.pointers(
        (*x[:10], cut.table, cut.bounds, y, last, saved)
    )
    where, entries = (plan.length, cut.steps, cut.per_row), None
    if between:
        tiles = cut.count * kind.blocks
        workspace = new(tiles * (kind.tile + kind.threads))
        entries, total = run.parts(workspace, (0, tiles * kind.tile))
        summarize, carry = between
        run(
            summarize, cut.summarized * kind.blocks, u, delta, A, B, bias, mask, table, total, entries, *where,
            *plan.summarized_rows,
        )  # fmt: skip
        run(carry, plan.carry_programs, entries, total, A, first, last_, bounds, cut.per_row)
    run(
        write, cut.count * kind.blocks, u, delta, A, B, C, skip, z, bias, mask, table, entries, first, saved_, outputs,
        last_, *where, *plan.forward_rows,
    )  # fmt: skip
    return last, saved


@on_its_device
def backward(
    x: ScanInputs, saved: Tensor, dy: Tensor, d_last_state: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the first nine inputs, u to initial_state; None for absent ones."""
    x, plan = planned(x)
    A, dy = x.A, neighbours(dy)
    d_last = d_last_state
    if d_last is not None:
        d_last = (d_last if d_last.dtype is A.dtype else d_last.to(A.dtype)).contiguous()
    du = x.u.new_empty_strided(*plan.activation)
    ddelta, dz = torch.empty_like(du), None if x.z is None else torch.empty_like(du)
    dB = x.B.new_empty_strided(*plan.projection)
    dC = torch.empty_like(dB)
    dA, dD = torch.empty_like(A), A.new_empty(A.shape[0])
    dbias, d_first = torch.empty_like(dD), A.new_empty(plan.state_shape)
    cut = plan.chunks(x.cu_seqlens, backward=True)
    if cut.count:
        _differentiate(plan, x, cut, (saved, dy, d_last), (du, ddelta, dz, d_first, dB, dC, dA, dD, dbias))
    else:
        for t in (dB, dC, dA, dD, dbias):
            t.zero_()
        d_first = _copied(d_last, d_first)
    return (
        du, ddelta, dA, dB, dC, None if x.D is None else dD, dz, None if x.delta_bias is None else dbias,
        None if x.initial_state is None else d_first,
    )  # fmt: skip


def _differentiate(
    plan: Plan, x: ScanInputs, cut: Chunks, given: tuple[Tensor | None, ...], gradients: tuple[Tensor | None, ...]
) -> None:  # fmt: skip
    kind, dy = plan.kind, given[1]
    assert dy is not None
    kernels = plan.backward_kernels(cut=cut.summarized > 0, dy_step=dy.stride(2), last=given[2] is not None)
    *between, differentiate, finish = kernels.binaries
    run = kernels.launcher()
    u, delta, A, B, C, skip, z, bias, _, mask, table, bounds, saved, dy_, d_last, *to = run.pointers(
        (*x[:10], cut.table, cut.bounds, *given, *gradients)
    )
    # One allocation for everything between the kernels. A chunk's part of dA takes the place of the adjoint at its
    # exit, which only the program that makes the part reads.
    *starts, size = plan.parts(cut.count)
    workspace = x.A.new_empty(size)
    parts_A, total, parts_D, parts_bias, parts_BC = run.parts(workspace, starts)
    exits, dy_row = None, dy.stride(0)
    if between:
        exits = parts_A
        summarize, carry = between
        run(
            summarize, cut.summarized * kind.blocks, delta, A, C, z, bias, mask, dy_, table, total, exits, plan.length,
            cut.steps, cut.per_row, *plan.backward_rows, dy_row,
        )  # fmt: skip
        run(carry, plan.carry_programs, exits, total, A, d_last, to[3], bounds, cut.per_row)
    run(
        differentiate, cut.count * kind.blocks, u, delta, A, B, C, skip, z, bias, mask, dy_, table, saved, exits,
        d_last, *to[:4], parts_BC, parts_A, parts_D, parts_bias, plan.length, plan.rows, cut.steps, cut.per_row,
        *plan.forward_rows, dy_row,
    )  # fmt: skip
    over_steps, over_chunks = plan.finish_programs
    run(
        finish, over_steps + over_chunks, parts_BC, parts_A, parts_D, parts_bias, *to[4:], plan.rows, cut.count,
        over_steps,
    )  # fmt: skip


def _copied(state: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if state is None else state.clone()
