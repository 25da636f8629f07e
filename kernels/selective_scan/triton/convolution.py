"""Causal depthwise convolution with SiLU and carried inputs on the GPU, forward and backward.

A program is one tile of steps and channels, so the whole length runs in parallel. The gradients of the filter are
stored as parts, one for every tile of steps, and added in a fixed order: no atomics.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false
# (a kernel's arguments and launch are not what Python's types say)
import functools
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..remembered import MOST_KEPT, made_of
from .common import chunk_of_program
from .device import on_its_device
from .tiling import chunk_table, view

STEPS, CHANNELS, WARPS = 32, 32, 8
"""Steps and channels of a tile, and its warps: four values a thread (our decision, not measured)."""


@triton.jit
def load_inputs(x, initial, row, t, begin, stop, sequence, d, here, channels, like, width: tl.constexpr):
    """Return the (step, channel) tile of inputs at steps `t`; before `begin`, the carried ones."""
    at = (t < stop) & (t >= begin)
    place = x[0] + row * x[1] + t[:, None] * x[2] + d[None, :] * x[3]
    value = tl.load(place, at[:, None] & here[None, :], 0.0).to(like.dtype)
    if initial is not None:
        column = t - begin + (width - 1)
        place = (sequence * channels + d)[None, :] * (width - 1) + column[:, None]
        carried = (t < begin) & (column >= 0)
        value += tl.load(initial + place, carried[:, None] & here[None, :], 0.0).to(like.dtype)
    return value


@triton.jit
def filter_tile(
    x, weight, bias, initial, table, y, dy, d_weight, d_bias, length, channels,
    width: tl.constexpr, T: tl.constexpr, BD: tl.constexpr, silu: tl.constexpr,
):  # fmt: skip
    """Store the outputs of a tile; given `dy`, the gradients before the activation, and parts of the filter's."""
    block, chunk, row, first, stop = chunk_of_program(table, tl.cdiv(channels, BD))
    sequence, begin = tl.load(table + chunk * 5 + 3), tl.load(table + chunk * 5 + 4)
    t, d = first + tl.arange(0, T), block * BD + tl.arange(0, BD)
    here = d < channels
    inside = (t < stop)[:, None] & here[None, :]
    shift = tl.load(bias + d, here, 0.0)
    total = tl.zeros([T, BD], shift.dtype) + shift[None, :]
    for j in tl.static_range(width):
        at = t - (width - 1) + j
        value = load_inputs(x, initial, row, at, begin, stop, sequence, d, here, channels, shift, width)
        total += value * tl.load(weight + d * width + j, here, 0.0)[None, :]
    out = (row * length + t)[:, None] * channels + d[None, :]
    gate = 1.0 / (1.0 + tl.exp(-total))
    if dy is not None:
        g = tl.load(dy[0] + row * dy[1] + t[:, None] * dy[2] + d[None, :] * dy[3], inside, 0.0).to(
            shift.dtype
        )
        if silu:
            g = g * gate * (1.0 + total * (1.0 - gate))
        tl.store(y + out, g, inside)
        tl.store(d_bias + chunk * channels + d, tl.sum(g, 0), here)
        for j in tl.static_range(width):
            at = t - (width - 1) + j
            value = load_inputs(x, initial, row, at, begin, stop, sequence, d, here, channels, shift, width)
            tl.store(d_weight + (chunk * channels + d) * width + j, tl.sum(g * value, 0), here)
    else:
        if silu:
            total = total * gate
        tl.store(y + out, total.to(y.dtype.element_ty), inside)


@triton.jit
def spread_tile(
    g, weight, table, ends, dx, length, channels, width: tl.constexpr, T: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Store the gradients of a tile's inputs: each input serves its own step and the `width - 1` after it."""
    block, chunk, row, first, stop = chunk_of_program(table, tl.cdiv(channels, BD))
    end = tl.load(ends + tl.load(table + chunk * 5 + 3))
    t, d = first + tl.arange(0, T), block * BD + tl.arange(0, BD)
    here = d < channels
    total = tl.zeros([T, BD], g.dtype.element_ty)
    for j in tl.static_range(width):
        later = t + (width - 1) - j
        at = (row * length + later)[:, None] * channels + d[None, :]
        value = tl.load(g + at, (later < end)[:, None] & here[None, :], 0.0)
        total += value * tl.load(weight + d * width + j, here, 0.0)[None, :]
    out = (row * length + t)[:, None] * channels + d[None, :]
    tl.store(dx + out, total.to(dx.dtype.element_ty), (t < stop)[:, None] & here[None, :])


@on_its_device
def forward(x, weight, bias, initial_state, cu_seqlens, silu) -> tuple[Tensor, Tensor]:
    """Return y (batch, length, channels) and the last inputs (sequences, channels, width - 1)."""
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    table, ends = _tiles(x, cu_seqlens), _ends(x, weight, cu_seqlens)
    _filter(x, weight, bias, initial_state, table, silu, y)
    final = _at_steps(x, ends.row, ends.at).masked_fill(ends.before, 0.0).transpose(1, 2)
    if initial_state is not None:
        kept = initial_state.gather(2, ends.kept[:, None].expand_as(final))
        final = torch.where(ends.before.transpose(1, 2), kept, final)
    return y, final.contiguous()


@on_its_device
def backward(
    x, weight, bias, initial_state, cu_seqlens, dy, d_final_state, silu
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return the gradients of x, weight, bias and initial_state, None where there is none.

    What no state came from or went to is left out: a dozen kernels of PyTorch's for each.
    """
    table, ends = _tiles(x, cu_seqlens), _ends(x, weight, cu_seqlens)
    (batch, length, channels), width = x.shape, weight.shape[1]
    g = weight.new_empty(batch, length, channels)
    d_weight, d_bias = weight.new_empty(len(table), channels, width), weight.new_empty(len(table), channels)
    _filter(x, weight, bias, initial_state, table, silu, g, (dy, d_weight, d_bias))
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    _spread(g, weight, table, ends.stops, dx)
    if d_final_state is not None and length:
        own = d_final_state.transpose(1, 2).masked_fill(
            ends.before, 0.0
        )  # at most one for a place that is not zero
        dx.index_put_((ends.row, ends.at.clamp(min=0)), own.to(dx.dtype), accumulate=True)
    d_state = None if initial_state is None else _carried_gradient(g, weight, ends, d_final_state, x.dtype)
    return dx, d_weight.sum(0), d_bias.sum(0), d_state


def _spread(g: Tensor, weight: Tensor, table: Tensor, stops: Tensor, dx: Tensor) -> None:
    channels, width = weight.shape
    if len(table):
        spread_tile[triton.cdiv(channels, CHANNELS) * len(table),](
            g, weight.contiguous(), table, stops, dx, g.shape[1], channels,
            width=width, T=STEPS, BD=CHANNELS, num_warps=WARPS,
        )  # fmt: skip


def _carried_gradient(
    g: Tensor, weight: Tensor, ends: "_Ends", d_final_state: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Return the gradient of initial_state: a carried input serves the first steps of its sequence."""
    width, starts, stops = weight.shape[1], ends.starts, ends.stops
    d_state = weight.new_zeros(len(starts), width - 1, weight.shape[0])
    for j in range(width):
        later = ends.carried + width - 1 - j
        serves = (later >= starts[:, None]) & (later < stops[:, None])
        d_state += _at_steps(g, ends.row, later).masked_fill(~serves[..., None], 0.0) * weight[:, j]
    if (
        d_final_state is not None
    ):  # where a sequence is shorter than the filter, carried inputs are carried on
        d_final = d_final_state.transpose(1, 2)
        source = torch.arange(width - 1, device=g.device) - (stops - starts)[:, None]
        on = d_final.gather(1, source.clamp(min=0)[..., None].expand_as(d_final))
        d_state += on.masked_fill((source < 0)[..., None], 0.0).to(d_state.dtype)
    return d_state.transpose(1, 2).to(dtype).contiguous()


def _at_steps(x: Tensor, row: Tensor, at: Tensor) -> Tensor:
    """Return the inputs of every row at steps `at`; where there is no such step, another's.

    (Selecting those that exist would ask the card how many they are, and wait for the answer.)
    """
    if not x.shape[1]:
        return x.new_zeros(*at.shape, x.shape[2])
    return x[row, at.clamp(0, x.shape[1] - 1)]


def _filter(x, weight, bias, initial_state, table, silu, y, gradients=(None, None, None)) -> None:
    channels, width = weight.shape
    dy, d_weight, d_bias = gradients
    bias = weight.new_zeros(channels) if bias is None else bias.contiguous()
    initial = None if initial_state is None else initial_state.contiguous()
    if not len(table):
        return
    filter_tile[triton.cdiv(channels, CHANNELS) * len(table),](
        view(x), weight.contiguous(), bias, initial, table, y, view(dy), d_weight, d_bias, x.shape[1], channels,
        width=width, T=STEPS, BD=CHANNELS, silu=silu, num_warps=WARPS,
    )  # fmt: skip


def _tiles(x: Tensor, cu_seqlens: Tensor | None) -> Tensor:
    """Return the table of tiles."""
    return chunk_table(x, cu_seqlens, STEPS)[0]


class _Ends(NamedTuple):
    """Where sequences end, for inputs that are carried over; made once for each kind of call, or for a pack's bounds.

    Attributes
    ----------
    starts, stops : (sequences,) first step of each, and the step after its last
    row, at : (sequences, width - 1) batch row and step of the last inputs, which may lie before the sequence
    before : (sequences, width - 1, 1) whether they do
    carried : (sequences, width - 1) steps at which the carried inputs would lie
    kept : (sequences, width - 1) which carried input a last input is, where it is one
    """

    starts: Tensor
    stops: Tensor
    row: Tensor
    at: Tensor
    before: Tensor
    carried: Tensor
    kept: Tensor


def _ends(x: Tensor, weight: Tensor, cu_seqlens: Tensor | None) -> _Ends:
    width = weight.shape[1]
    if cu_seqlens is not None:
        return made_of(cu_seqlens, _pack_ends, width, x.device)
    return _whole_ends(x.shape[0], x.shape[1], width, x.device)


def _pack_ends(bounds: tuple[int, ...], width: int, device: torch.device) -> _Ends:
    cuts = torch.tensor(bounds)
    return _found_ends(cuts[:-1], cuts[1:], width, device, packed=True)


@functools.lru_cache(maxsize=MOST_KEPT)
def _whole_ends(batch: int, length: int, width: int, device: torch.device) -> _Ends:
    starts = torch.zeros(batch, dtype=torch.int64)
    return _found_ends(starts, starts + length, width, device, packed=False)


def _found_ends(starts: Tensor, stops: Tensor, width: int, device: torch.device, *, packed: bool) -> _Ends:
    back = torch.arange(width - 1) - (width - 1)
    at = stops[:, None] + back
    row = torch.arange(len(starts))[:, None] * (not packed)
    found = (
        starts, stops, row.expand_as(at), at, (at < starts[:, None])[..., None], starts[:, None] + back,
        (at - starts[:, None] + width - 1).clamp(max=width - 2),
    )  # fmt: skip
    return _Ends(*(t.to(device) for t in found))
