"""Causal depthwise convolution with SiLU and carried inputs on the GPU, forward and backward.

A program is one tile of steps and channels, so the whole length runs in parallel. The gradients of the filter are
stored as parts, one for every tile of steps, and added in a fixed order: no atomics.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false
# (a kernel's arguments and launch are not what Python's types say)
import torch
import triton
import triton.language as tl
from torch import Tensor

from ..remembered import made_of
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
    table, starts, stops = _tiles(x, cu_seqlens)
    _filter(x, weight, bias, initial_state, table, silu, y)
    row, at, before, _ = _last_inputs(x, weight, cu_seqlens, starts, stops)
    final = _at_steps(x, row, at).masked_fill(before[..., None], 0.0).transpose(1, 2)
    if initial_state is not None:
        column = (at - starts[:, None] + weight.shape[1] - 1).clamp(max=weight.shape[1] - 2)
        kept = initial_state.gather(2, column[:, None].expand_as(final))
        final = torch.where(before[:, None], kept, final)
    return y, final.contiguous()


@on_its_device
def backward(
    x, weight, bias, initial_state, cu_seqlens, dy, d_final_state, silu
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight, bias and initial_state."""
    table, starts, stops = _tiles(x, cu_seqlens)
    (batch, length, channels), width = x.shape, weight.shape[1]
    g = weight.new_empty(batch, length, channels)
    d_weight, d_bias = weight.new_empty(len(table), channels, width), weight.new_empty(len(table), channels)
    _filter(x, weight, bias, initial_state, table, silu, g, (dy, d_weight, d_bias))
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    if len(table):
        spread_tile[triton.cdiv(channels, CHANNELS) * len(table),](
            g, weight.contiguous(), table, stops, dx, length, channels,
            width=width, T=STEPS, BD=CHANNELS, num_warps=WARPS,
        )  # fmt: skip
    row, at, before, carried = _last_inputs(x, weight, cu_seqlens, starts, stops)
    d_final, d_state = d_final_state.transpose(1, 2), weight.new_zeros(len(starts), width - 1, channels)
    if length:
        own = d_final.masked_fill(before[..., None], 0.0)  # every place gets at most one that is not zero
        dx.index_put_((row, at.clamp(min=0)), own.to(dx.dtype), accumulate=True)
    for j in range(width):  # a carried input serves the first steps of its sequence
        later = carried + width - 1 - j
        serves = (later >= starts[:, None]) & (later < stops[:, None])
        d_state += _at_steps(g, row, later).masked_fill(~serves[..., None], 0.0) * weight[:, j]
    # Where a sequence is shorter than the filter, carried inputs are carried on.
    source = torch.arange(width - 1, device=x.device) - (stops - starts)[:, None]
    on = d_final.gather(1, source.clamp(min=0)[..., None].expand_as(d_final))
    d_state += on.masked_fill((source < 0)[..., None], 0.0).to(d_state.dtype)
    return dx, d_weight.sum(0), d_bias.sum(0), d_state.transpose(1, 2).to(x.dtype).contiguous()


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


def _tiles(x: Tensor, cu_seqlens: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the table of tiles, and every sequence's start and end."""
    table, _ = chunk_table(x, cu_seqlens, STEPS)
    if cu_seqlens is None:
        starts = table.new_zeros(x.shape[0])
        return table, starts, starts + x.shape[1]
    return table, *made_of(cu_seqlens, _starts_and_stops, x.device)


def _starts_and_stops(bounds: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    cuts = torch.tensor(bounds, device=device)
    return cuts[:-1], cuts[1:]


def _last_inputs(x, weight, cu_seqlens, starts, stops) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return batch row and step of each sequence's last inputs, which lie before it; and its carried inputs' steps."""
    back = torch.arange(weight.shape[1] - 1, device=x.device) - (weight.shape[1] - 1)
    at = stops[:, None] + back
    row = torch.arange(len(starts), device=x.device)[:, None] * (cu_seqlens is None)
    return row.expand_as(at), at, at < starts[:, None], starts[:, None] + back
