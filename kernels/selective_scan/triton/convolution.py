"""Launch the causal convolution on the GPU: one kernel forward, two and two sums backward."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from ..operands import ConvolutionInputs, empty_time_major
from ..remembered import kept_for_capture, made_of, sent_to
from .binaries import Binary, Kernels, binary
from .convolution_kernels import convolve, differentiate_filter, spread
from .device import on_its_device
from .readable import neighbours, readable_convolution
from .tiling import even_table, pack_table, power_of_two

STEPS, CHANNELS, WARPS = 32, 32, 8
"""Steps and channels of a tile, and its warps: four values a thread (our decision, not measured)."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """How sequences are cut.

    Attributes
    ----------
    count : tiles of steps
    table : lines of (batch row, first step, end, sequence, its start), one a tile
    ends : lines of (batch row, start, end), one a sequence
    """

    count: int
    table: Tensor
    ends: Tensor


class Plan:
    """One kind of call: shapes, dtypes and which inputs are there."""

    def __init__(self, x: ConvolutionInputs) -> None:
        batch, channels, length = x.x.shape
        width, device = x.weight.shape[1], x.x.device
        self.device, self.blocks = device, -(-channels // CHANNELS)
        self.carried = x.sequences if width > 1 else 0  # sequences that carry something over
        self.rows = batch, length
        self.parts = channels * (width if x.bias is None else width + 1)
        self._constants = width, power_of_two(max(1, width - 1)), STEPS, CHANNELS, x.silu
        self._made_for = x.x.dtype, device, x.bias is None, x.initial_state is None
        self.forward = Kernels(device, self._binary(convolve))
        self.backward = [self._backward(last=last) for last in (False, True)]

    def _backward(self, *, last: bool) -> Kernels:
        return Kernels(self.device, self._binary(differentiate_filter), self._binary(spread, last))

    def _binary(self, function: object, *present: bool) -> Binary:
        return binary(function, (*self._made_for, *present), WARPS, *self._constants)

    def tiles(self, cu_seqlens: Tensor | None) -> Tiles:
        """Return how the sequences of a call are cut; those of a pack, made once for its bounds."""
        if cu_seqlens is not None:
            return made_of(cu_seqlens, _tiles_of_pack, self.device)
        return kept_for_capture(self.device, _tiles_of_rows(*self.rows, self.device))


@functools.lru_cache(maxsize=32)
def _tiles_of_rows(batch: int, length: int, device: torch.device) -> Tiles:
    table, _ = even_table(batch, length, STEPS, device)
    ends = torch.tensor([(row, 0, length) for row in range(batch)], dtype=torch.int64)
    return Tiles(len(table), table, ends.view(-1, 3).to(device))


def _tiles_of_pack(bounds: tuple[int, ...], device: torch.device) -> Tiles:
    table, _ = pack_table(bounds, device, STEPS)
    cuts = torch.tensor(bounds)
    ends = torch.stack([torch.zeros_like(cuts[1:]), cuts[:-1], cuts[1:]], dim=1)
    return Tiles(len(table), table, sent_to(device, ends))


def _planned(x: ConvolutionInputs) -> tuple[ConvolutionInputs, Plan]:
    """Return inputs as the kernels read them (channels side by side), and the plan of a call's kind."""
    made = {} if x.made is None else x.made
    plan = made.get(Plan)
    if plan is None:
        plan = made[Plan] = Plan(x)
    return readable_convolution(x), plan


@on_its_device
def forward(inputs: ConvolutionInputs, y: Tensor) -> Tensor:
    """Fill `y`, dense with time before channels; return the last inputs (sequences, channels, width - 1)."""
    given, plan = _planned(inputs)
    x, tiles = given.x, plan.tiles(given.cu_seqlens)
    _, channels, length = x.shape
    last = x.new_empty(given.sequences, channels, given.weight.shape[1] - 1)
    run, (kernel,) = plan.forward.launcher(), plan.forward.binaries
    pointers = run.pointers((*given[:4], tiles.table, tiles.ends, y, last))
    programs = (tiles.count + plan.carried) * plan.blocks
    if programs:
        run(kernel, programs, *pointers, length, channels, tiles.count, x.stride(0), x.stride(2))
    return last


@on_its_device
def backward(inputs: ConvolutionInputs, dy: Tensor, d_last: Tensor | None) -> tuple[Tensor | None, ...]:
    """Return the gradients of x, weight, bias and initial_state, None for absent ones."""
    given, plan = _planned(inputs)
    x, weight, dy, tiles = given.x, given.weight, neighbours(dy), plan.tiles(given.cu_seqlens)
    d_last = None if d_last is None else d_last.contiguous()
    _, channels, length = x.shape
    g, parts, dx = weight.new_empty(x.shape), weight.new_empty(tiles.count, plan.parts), empty_time_major(x)
    d_initial = None if given.initial_state is None else torch.empty_like(given.initial_state)
    kernels = plan.backward[d_last is not None]
    run, (differentiate, spread_back) = kernels.launcher(), kernels.binaries
    x_, weight_, bias, initial, table, ends, dy_, g_, parts_, d_last_, dx_, d_initial_ = run.pointers(
        (*given[:4], tiles.table, tiles.ends, dy, g, parts, d_last, dx, d_initial)
    )
    if tiles.count:
        run(
            differentiate, tiles.count * plan.blocks, x_, weight_, bias, initial, table, ends, dy_, g_, parts_,
            length, channels, x.stride(0), x.stride(2), dy.stride(0), dy.stride(2),
        )  # fmt: skip
    programs = (tiles.count + (0 if d_initial is None else plan.carried)) * plan.blocks
    if programs:
        run(
            spread_back, programs, g_, weight_, table, ends, d_last_, dx_, d_initial_, length, channels, tiles.count
        )  # fmt: skip
    n_weights = weight.numel()  # two sums: outputs of an operator may not share their memory
    d_bias = None if given.bias is None else parts[:, n_weights:].sum(0)
    return dx, parts[:, :n_weights].sum(0).view(weight.shape), d_bias, d_initial
