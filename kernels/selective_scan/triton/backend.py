"""Backend `triton`: launches the GPU kernels, three passes each way."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false
# (a kernel's arguments and launch are not what Python's types say)
import torch
from torch import Tensor

from ..operands import ScanInputs, ScanOperands, as_inputs, time_major
from .backward import differentiate_chunks, summarize_adjoints
from .device import on_its_device
from .forward import pass_over_chunks, summarize_chunks, write_chunks
from .tiling import STEPS, Tiling, chunk_table, over_sequences, tiling, view


def entries_shape(x: ScanInputs) -> tuple[int, int, int]:
    """Shape of the states saved at chunk entries: an upper bound that needs no look at the pack's bounds."""
    batch, channels, length = x.u.shape
    return batch * length // STEPS + x.sequences, channels, x.A.shape[1]


class Launch:
    """The operands of one scan as its kernels take them, absent parameters as zeros."""

    def __init__(self, x: ScanOperands, choice: Tiling | None):
        _, length, channels = x.u.shape
        groups, state = x.B.shape[2:]
        zeros = x.A.new_zeros(channels)
        self.x, self.tiling = x, choice or tiling(state, x.u.dtype, x.u.device)
        self.u, self.delta, self.z, self.B, self.C = (view(t) for t in (x.u, x.delta, x.z, x.B, x.C))
        self.A, self.skip, self.bias = (
            (zeros if t is None else t).contiguous() for t in (x.A, x.D, x.delta_bias)
        )
        self.mask = None if x.step_mask is None else x.step_mask.to(torch.uint8).contiguous()
        self.table, self.bounds = chunk_table(x.u, x.cu_seqlens, STEPS)
        self.sizes = (length, channels, state, channels // groups)
        self.constants = {**self.tiling.over_chunks(state), "softplus": x.delta_softplus}
        self.backward_constants = {**self.tiling.backward(state), "softplus": x.delta_softplus}

    def blocks(self, channels: int) -> int:
        """Return how many programs of `channels` channels span a group."""
        return -(-self.sizes[3] // channels)

    def programs(self, channels: int) -> tuple[int]:
        """Return the grid of a kernel over all chunks."""
        return (len(self.table) * self.x.B.shape[2] * self.blocks(channels),)

    def carry(self, local: Tensor, total: Tensor, first: Tensor, last: Tensor, *, reverse: bool) -> None:
        """Carry `first` over every sequence's chunks, in place of their summaries in `local`, into `last`."""
        _, channels, state, _ = self.sizes
        constants = over_sequences(state)
        if self.x.sequences:
            pass_over_chunks[self.x.sequences, -(-channels // constants["BD"])](
                local, total, self.A, first.contiguous(), last, self.bounds, channels, state,
                reverse=reverse, **constants,
            )  # fmt: skip


@on_its_device
def forward(
    inputs: ScanInputs, y: Tensor, save: bool, choice: Tiling | None = None
) -> tuple[Tensor, Tensor | None]:
    """Fill `y`, laid out as `u`; return last_state and, to `save`, the states at chunk entries."""
    x, y = time_major(inputs), y.mT
    k, new = Launch(x, choice), x.A.new_empty
    entries, total = new(entries_shape(inputs)), new(len(k.table) + 1, x.u.shape[2])
    last_state = new(x.sequences, *x.A.shape)
    programs = k.programs(k.tiling.channels)
    if len(k.table):
        summarize_chunks[programs](
            k.u, k.delta, k.A, k.B, k.bias, k.mask, k.table, total, entries, *k.sizes, **k.constants
        )
    k.carry(entries, total, x.entry_state(), last_state, reverse=False)
    if len(k.table):
        write_chunks[programs](
            k.u, k.delta, k.A, k.B, k.C, k.skip, k.z, k.bias, k.mask, k.table, entries, y, *k.sizes,
            **k.constants,
        )  # fmt: skip
    return last_state, entries if save else None


@on_its_device
def backward(
    inputs: ScanInputs, entries: Tensor, dy: Tensor, d_last_state: Tensor | None, choice: Tiling | None = None
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the first nine inputs, u to initial_state; None for absent ones."""
    x, dy = time_major(inputs), dy.mT
    k, new = Launch(x, choice), x.A.new_empty
    if d_last_state is None:
        d_last_state = x.A.new_zeros(x.sequences, *x.A.shape)
    exits, d_state = _carry_adjoints(k, dy, d_last_state)
    du, ddelta = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (x.u, x.delta))
    dz = None if x.z is None else torch.empty_like(x.z, memory_format=torch.contiguous_format)
    blocks = k.blocks(k.tiling.backward_channels)
    d_B, d_C = new(blocks, *x.B.shape), new(blocks, *x.C.shape)
    d_D, d_bias = (new(len(k.table), x.u.shape[2]) for _ in range(2))
    if len(k.table):
        _differentiate(k, entries, exits, dy, (du, ddelta, dz, d_B, d_C, d_D, d_bias))
    d_A = exits[: len(k.table)]  # the kernel leaves dA's parts there
    gradients = (
        du, ddelta, d_A.sum(0), d_B.sum(0).to(x.B.dtype), d_C.sum(0).to(x.C.dtype),
        None if x.D is None else d_D.sum(0), dz, None if x.delta_bias is None else d_bias.sum(0),
        None if x.initial_state is None else d_state,
    )  # fmt: skip
    return as_inputs(gradients, inputs)


def _carry_adjoints(k: Launch, dy: Tensor, d_last_state: Tensor) -> tuple[Tensor, Tensor]:
    """Return the adjoint at every chunk's exit, and at the front of every sequence."""
    _, channels, state, _ = k.sizes
    new = k.A.new_empty
    exits, total = new(len(k.table) + 1, channels, state), new(len(k.table) + 1, channels)
    d_state = new(k.x.sequences, channels, state)
    if len(k.table):
        summarize_adjoints[k.programs(k.tiling.channels)](
            k.delta, k.A, k.C, k.z, k.bias, k.mask, view(dy), k.table, total, exits, *k.sizes, **k.constants
        )
    k.carry(exits, total, d_last_state.to(k.A.dtype), d_state, reverse=True)
    return exits, d_state


def _differentiate(k: Launch, entries: Tensor, exits: Tensor, dy: Tensor, gradients: tuple) -> None:
    batch, length, _ = k.x.u.shape
    differentiate_chunks[k.programs(k.tiling.backward_channels)](
        k.u, k.delta, k.A, k.B, k.C, k.skip, k.z, k.bias, k.mask, view(dy), k.table, entries, exits, *gradients,
        *k.sizes, batch * length, **k.backward_constants,
    )  # fmt: skip
