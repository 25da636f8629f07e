"""Backend `triton`: launches the GPU kernels, three passes each way."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false
# (a kernel's arguments and launch are not what Python's types say)
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.selective_scan.operands import ScanOperands
from kernels.selective_scan.triton_backward import differentiate_chunks, summarize_adjoints
from kernels.selective_scan.triton_forward import pass_over_chunks, summarize_chunks, write_chunks


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Sizes of a launch.

    Attributes
    ----------
    steps : steps of a chunk
    stretch : steps of a chunk whose states the backward pass holds in registers at a time; divides `steps`
    channels : channels of a program
    forward_warps, backward_warps : warps of a program
    """

    steps: int = 16
    stretch: int = 8
    channels: int
    forward_warps: int
    backward_warps: int


def tiling(state: int) -> Tiling:
    """Return the launch for `state` states: four values of the state tile a thread forward, one backward.

    The most that ptxas compiles without spills for sm_80, sm_90 and sm_100 (held by the compile test).
    """
    padded = _power_of_two(state)
    channels = max(4, min(32, 128 // padded))
    warps = max(1, channels * padded // 32)
    return Tiling(channels=channels, forward_warps=max(1, warps // 4), backward_warps=warps)


def entries_shape(x: ScanOperands) -> tuple[int, int, int]:
    """Shape of the states saved at chunk entries: an upper bound that needs no look at the pack's bounds."""
    batch, length, channels = x.u.shape
    return batch * length // tiling(x.A.shape[1]).steps + x.sequences, channels, x.A.shape[1]


def forward(x: ScanOperands, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return (y, last_state, entries); `entries` is empty unless `save`."""
    t = tiling(x.A.shape[1])
    table, bounds = chunk_table(x.u, x.cu_seqlens, t.steps)
    _, length, channels = x.u.shape
    state, padded = x.A.shape[1], _power_of_two(x.A.shape[1])
    new = x.A.new_empty
    entries, total = new(entries_shape(x)), new(len(table) + 1, channels)
    y, last_state = torch.empty_like(x.u, memory_format=torch.contiguous_format), new(x.sequences, *x.A.shape)
    A, skip, bias, first = _parameters(x)
    mask = x.A if x.step_mask is None else x.step_mask.to(torch.uint8).contiguous()
    columns, programs = _columns(x, t)
    sizes = {"N": padded, "BD": t.channels, "num_warps": t.forward_warps}
    flags = {"T": t.steps, "has_mask": x.step_mask is not None, "softplus": x.delta_softplus}
    ends = (length, channels, state, channels // x.B.shape[2])
    if len(table):
        summarize_chunks[programs, len(table)](
            x.u, x.delta, A, x.B, bias, mask, table, total, entries,
            *x.u.stride(), *x.delta.stride(), *x.B.stride(), *ends, **sizes, **flags,
        )  # fmt: skip
    if x.sequences:
        pass_over_chunks[columns, x.sequences](
            entries, total, A, first, last_state, bounds, channels, state, **sizes, reverse=False
        )
    if len(table):
        z = x.u if x.z is None else x.z
        write_chunks[programs, len(table)](
            x.u, x.delta, A, x.B, x.C, skip, z, bias, mask, table, entries, y,
            *x.u.stride(), *x.delta.stride(), *z.stride(), *x.B.stride(), *x.C.stride(), *ends,
            **sizes, **flags, has_z=x.z is not None,
        )  # fmt: skip
    return y, last_state, entries if save else new(0, 0, 0)


def backward(x: ScanOperands, entries: Tensor, dy: Tensor, d_last_state: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients of the first nine operands, u to initial_state; those of absent ones are empty."""
    t = tiling(x.A.shape[1])
    table, bounds = chunk_table(x.u, x.cu_seqlens, t.steps)
    channels = x.u.shape[2]
    groups, state = x.B.shape[2:]
    blocks = -(-(channels // groups) // t.channels)
    new = x.A.new_empty
    du, ddelta, dz = (
        torch.empty_like(s, memory_format=torch.contiguous_format) for s in (x.u, x.delta, _or(x.z, x.u))
    )
    d_A, d_D, d_bias = (new(len(table), *s) for s in ((channels, state), (channels,), (channels,)))
    d_B, d_C = new(blocks, *x.B.shape), new(blocks, *x.C.shape)
    d_state = _carry_adjoints(x, t, table, bounds, dy, d_last_state)
    if len(table):
        _differentiate(
            x, t, table, blocks, entries, d_state[0], dy, (du, ddelta, dz, d_A, d_B, d_C, d_D, d_bias)
        )
    return (
        du, ddelta, d_A.sum(0), d_B.sum(0).to(x.B.dtype), d_C.sum(0).to(x.C.dtype),
        new(0) if x.D is None else d_D.sum(0), new(0) if x.z is None else dz,
        new(0) if x.delta_bias is None else d_bias.sum(0), new(0) if x.initial_state is None else d_state[1],
    )  # fmt: skip


def _carry_adjoints(x, t, table, bounds, dy, d_last_state) -> tuple[Tensor, Tensor]:
    """Return the adjoint at every chunk's exit, and at the front of every sequence."""
    _, length, channels = x.u.shape
    state, new = x.A.shape[1], x.A.new_empty
    exits, total = new(len(table) + 1, channels, state), new(len(table) + 1, channels)
    d_state = new(x.sequences, *x.A.shape)
    A, _, bias, _ = _parameters(x)
    mask = x.A if x.step_mask is None else x.step_mask.to(torch.uint8).contiguous()
    z, (columns, programs) = _or(x.z, x.u), _columns(x, t)
    sizes = {"N": _power_of_two(state), "BD": t.channels, "num_warps": t.forward_warps}
    flags = {"T": t.steps, "has_mask": x.step_mask is not None, "softplus": x.delta_softplus}
    ends = (length, channels, state, channels // x.B.shape[2])
    if len(table):
        summarize_adjoints[programs, len(table)](
            x.delta, A, x.C, z, bias, mask, dy, table, exits,
            *x.delta.stride(), *z.stride(), *x.C.stride(), *dy.stride(), *ends,
            **sizes, **flags, has_z=x.z is not None,
        )  # fmt: skip
        summarize_chunks[programs, len(table)](
            x.u, x.delta, A, x.B, bias, mask, table, total, new(exits.shape),
            *x.u.stride(), *x.delta.stride(), *x.B.stride(), *ends, **sizes, **flags,
        )  # fmt: skip
    if x.sequences:
        pass_over_chunks[columns, x.sequences](
            exits, total, A, d_last_state.to(x.A.dtype).contiguous(), d_state, bounds, channels, state,
            **sizes, reverse=True,
        )  # fmt: skip
    return exits, d_state


def _differentiate(x, t, table, blocks, entries, exits, dy, gradients) -> None:
    batch, length, channels = x.u.shape
    groups, state = x.B.shape[2:]
    A, skip, bias, _ = _parameters(x)
    mask = x.A if x.step_mask is None else x.step_mask.to(torch.uint8).contiguous()
    z = _or(x.z, x.u)
    differentiate_chunks[groups * blocks, len(table)](
        x.u, x.delta, A, x.B, x.C, skip, z, bias, mask, dy, table, entries, exits, *gradients,
        *x.u.stride(), *x.delta.stride(), *z.stride(), *x.B.stride(), *x.C.stride(), *dy.stride(),
        length, channels, state, channels // groups, batch * length,
        N=_power_of_two(state), T=t.steps, S=t.stretch, BD=t.channels, num_warps=t.backward_warps,
        has_mask=x.step_mask is not None, has_z=x.z is not None, softplus=x.delta_softplus,
    )  # fmt: skip


def _parameters(x: ScanOperands) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return A, D, delta_bias and the initial state, zeros in the place of absent ones."""
    zeros = x.A.new_zeros(x.A.shape[0])
    return (
        x.A.contiguous(),
        _or(x.D, zeros).contiguous(),
        _or(x.delta_bias, zeros).contiguous(),
        x.entry_state().contiguous(),
    )


def chunk_table(x: Tensor, cu_seqlens: Tensor | None, steps: int) -> tuple[Tensor, Tensor]:
    """Return the table of chunks (batch row, first step, end) and each sequence's first chunk."""
    batch, length, _ = x.shape
    if cu_seqlens is None:
        starts, lengths = torch.zeros(batch, dtype=torch.int64), torch.full((batch,), length)
        rows = torch.arange(batch)
    else:
        cuts = cu_seqlens.cpu()
        starts, lengths, rows = cuts[:-1], cuts.diff(), torch.zeros(len(cuts) - 1, dtype=torch.int64)
    counts = (lengths + steps - 1) // steps
    bounds = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    owner = torch.repeat_interleave(torch.arange(len(counts)), counts)
    first = starts[owner] + (torch.arange(len(owner)) - bounds[owner]) * steps
    stop = torch.minimum(first + steps, (starts + lengths)[owner])
    table = torch.stack([rows[owner], first, stop], dim=1)
    return table.to(x.device), bounds.to(x.device)


def _columns(x: ScanOperands, t: Tiling) -> tuple[int, int]:
    """Return how many forward programs span the channels: of all at once, and group by group."""
    channels, groups = x.u.shape[2], x.B.shape[2]
    return -(-channels // t.channels), groups * -(-(channels // groups) // t.channels)


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    return other if tensor is None else tensor


def _power_of_two(count: int) -> int:
    return 1 << max(0, count - 1).bit_length()
