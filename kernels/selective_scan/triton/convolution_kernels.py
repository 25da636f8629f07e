"""Kernels of the causal depthwise convolution with SiLU and carried inputs, forward and backward.

A program is one tile of steps and channels, so the whole length runs in parallel; what sequences carry over are tiles
of their own, after those. The gradients of the filter leave as parts, one for every tile of steps: no atomics.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false
# pyright: reportInvalidTypeForm=false
# (a kernel's arguments and launch are not what Python's types say)
import triton
import triton.language as tl

from .entry import kernel


@triton.jit
def tile_of(table, ends, counted):
    """Return where a tile lies (row, sequence, first step; from there, the sequence's start and end), and its end.

    Steps within a tile have 32 bits, counted from its first: as numbers of 64 they take twice the registers.
    """
    line = table + counted.to(tl.int64) * 5
    row, first, sequence = tl.load(line), tl.load(line + 1), tl.load(line + 3)
    begin, end = tl.load(line + 4) - first, tl.load(ends + sequence * 3 + 2) - first
    where = (row, sequence, first, begin.to(tl.int32), end.to(tl.int32))
    return where, (tl.load(line + 2) - first).to(tl.int32)


@triton.jit
def carried_of(ends, counted, BEGIN: tl.constexpr, width: tl.constexpr):
    """Return where the inputs lie that sequence `counted` was given (BEGIN), or those that it hands on."""
    sequence = counted.to(tl.int64)
    line = ends + sequence * 3
    begin, end = tl.load(line + 1), tl.load(line + 2)
    first = (begin if BEGIN else end) - (width - 1)
    return (tl.load(line), sequence, first, (begin - first).to(tl.int32), (end - first).to(tl.int32))


@triton.jit
def channels_of(block, channels, BD: tl.constexpr):
    """Return a block's channels, and which of them exist."""
    d = block * BD + tl.arange(0, BD)
    return d, d < channels


@triton.jit
def place_in_state(state, where, t, first, d, channels, width: tl.constexpr):
    """Return the places of steps in a (sequences, channels, width - 1) state that begins at `first`, and which are."""
    column = t - first
    base = state + where[1] * channels * (width - 1)
    return base + (d[None, :] * (width - 1) + column[:, None]), (column >= 0) & (column < width - 1)


@triton.jit
def inputs_at(x, initial, where, t, d, here, channels, x_row, x_step, like, width: tl.constexpr):
    """Return the (step, channel) tile of inputs at steps `t`; before the sequence, the carried ones."""
    own = (t >= where[3]) & (t < where[4])
    base = x + (where[0] * x_row + where[2] * x_step)
    value = tl.load(base + (t[:, None] * x_step + d[None, :]), own[:, None] & here[None, :], 0.0).to(like)
    if initial is not None:  # noqa: SIM102 (one is asked when it is compiled, the other by the program)
        if where[3] > 1 - width:  # else all that is read is the sequence's own
            place, known = place_in_state(initial, where, t, where[3] - (width - 1), d, channels, width)
            before = (t < where[3]) & known
            value += tl.load(place, before[:, None] & here[None, :], 0.0).to(like)
    return value


@triton.jit
def filtered(
    x, weight, bias, initial, where, t, d, here, channels, x_row, x_step,
    width: tl.constexpr, T: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Return the outputs before the activation."""
    wide: tl.constexpr = weight.dtype.element_ty
    total = tl.zeros([T, BD], wide)
    if bias is not None:
        total += tl.load(bias + d, here, 0.0)[None, :]
    for j in tl.static_range(width):
        value = inputs_at(
            x, initial, where, t - (width - 1) + j, d, here, channels, x_row, x_step, wide, width
        )
        total += value * tl.load(weight + d * width + j, here, 0.0)[None, :]
    return total


@triton.jit
def dense_at(y, where, t, d, length, channels):
    """Return the places of a tile in a tensor (batch, length, channels)."""
    return y + (where[0] * length + where[2]) * channels + (t[:, None] * channels + d[None, :])


@triton.jit
def keep_last(
    x, initial, ends, last, counted, d, here, channels, x_row, x_step, width: tl.constexpr, KEPT: tl.constexpr,
):  # fmt: skip
    """Store the last inputs of a sequence, of which some may be carried ones."""
    where, t = carried_of(ends, counted, False, width), tl.arange(0, KEPT)
    value = inputs_at(x, initial, where, t, d, here, channels, x_row, x_step, last.dtype.element_ty, width)
    place, known = place_in_state(last, where, t, 0, d, channels, width)
    tl.store(place, value, known[:, None] & here[None, :])


@kernel
def convolve(
    x, weight, bias, initial, table, ends, y, last, length: tl.int32, channels: tl.int32, tiles: tl.int32,
    x_row: tl.int64, x_step: tl.int32,
    width: tl.constexpr, KEPT: tl.constexpr, T: tl.constexpr, BD: tl.constexpr, silu: tl.constexpr,
):  # fmt: skip
    """Store the outputs of a tile in the first programs; in the rest, the last inputs of a sequence."""
    blocks = tl.cdiv(channels, BD)
    counted = tl.program_id(0) // blocks
    d, here = channels_of(tl.program_id(0) % blocks, channels, BD)
    if counted < tiles:
        where, stop = tile_of(table, ends, counted)
        t = tl.arange(0, T)
        total = filtered(x, weight, bias, initial, where, t, d, here, channels, x_row, x_step, width, T, BD)
        if silu:
            total = total * (1.0 / (1.0 + tl.exp(-total)))
        place = dense_at(y, where, t, d, length, channels)
        tl.store(place, total.to(y.dtype.element_ty), (t < stop)[:, None] & here[None, :])
    else:
        keep_last(x, initial, ends, last, counted - tiles, d, here, channels, x_row, x_step, width, KEPT)


@kernel
def differentiate_filter(
    x, weight, bias, initial, table, ends, dy, g, parts, length: tl.int32, channels: tl.int32, x_row: tl.int64,
    x_step: tl.int32, dy_row: tl.int64, dy_step: tl.int32,
    width: tl.constexpr, KEPT: tl.constexpr, T: tl.constexpr, BD: tl.constexpr, silu: tl.constexpr,
):  # fmt: skip
    """Store a tile's gradients before the activation, and its parts of the filter's and, after those, the bias'."""
    blocks = tl.cdiv(channels, BD)
    counted = tl.program_id(0) // blocks
    d, here = channels_of(tl.program_id(0) % blocks, channels, BD)
    where, stop = tile_of(table, ends, counted)
    t = tl.arange(0, T)
    inside = (t < stop)[:, None] & here[None, :]
    wide: tl.constexpr = weight.dtype.element_ty
    outer = dy + (where[0] * dy_row + where[2] * dy_step)
    outer = tl.load(outer + (t[:, None] * dy_step + d[None, :]), inside, 0.0).to(wide)
    if silu:
        total = filtered(x, weight, bias, initial, where, t, d, here, channels, x_row, x_step, width, T, BD)
        gate = 1.0 / (1.0 + tl.exp(-total))
        outer = outer * gate * (1.0 + total * (1.0 - gate))
    tl.store(dense_at(g, where, t, d, length, channels), outer, inside)
    part = parts + counted.to(tl.int64) * (channels * (width if bias is None else width + 1))
    if bias is not None:
        tl.store(part + channels * width + d, tl.sum(outer, 0), here)
    for j in tl.static_range(width):
        value = inputs_at(
            x, initial, where, t - (width - 1) + j, d, here, channels, x_row, x_step, wide, width
        )
        tl.store(part + d * width + j, tl.sum(outer * value, 0), here)


@triton.jit
def spread_over(
    g, weight, d_last, where, t, d, here, length, channels, width: tl.constexpr, T: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Return the gradients of inputs: each serves its own step and the `width - 1` after it, and may be carried on."""
    wide: tl.constexpr = weight.dtype.element_ty
    total = tl.zeros([T, BD], wide)
    for j in tl.static_range(width):
        later = t + (width - 1) - j
        serves = (later >= where[3]) & (later < where[4])
        value = tl.load(dense_at(g, where, later, d, length, channels), serves[:, None] & here[None, :], 0.0)
        total += value * tl.load(weight + d * width + j, here, 0.0)[None, :]
    if d_last is not None:
        place, kept = place_in_state(d_last, where, t, where[4] - (width - 1), d, channels, width)
        total += tl.load(place, kept[:, None] & here[None, :], 0.0).to(wide)
    return total


@triton.jit
def spread_to_carried(
    g, weight, ends, d_last, d_initial, counted, d, here, length, channels,
    width: tl.constexpr, KEPT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Store the gradients of the inputs that a sequence was given."""
    where, t = carried_of(ends, counted, True, width), tl.arange(0, KEPT)
    total = spread_over(g, weight, d_last, where, t, d, here, length, channels, width, KEPT, BD)
    place, known = place_in_state(d_initial, where, t, 0, d, channels, width)
    tl.store(place, total.to(d_initial.dtype.element_ty), known[:, None] & here[None, :])


@kernel
def spread(
    g, weight, table, ends, d_last, dx, d_initial, length: tl.int32, channels: tl.int32, tiles: tl.int32,
    width: tl.constexpr, KEPT: tl.constexpr, T: tl.constexpr, BD: tl.constexpr, silu: tl.constexpr,
):  # fmt: skip
    """Store the gradients of a tile's inputs in the first programs; in the rest, of what a sequence was given."""
    blocks = tl.cdiv(channels, BD)
    counted = tl.program_id(0) // blocks
    d, here = channels_of(tl.program_id(0) % blocks, channels, BD)
    if counted < tiles:
        where, stop = tile_of(table, ends, counted)
        t = tl.arange(0, T)
        total = spread_over(g, weight, d_last, where, t, d, here, length, channels, width, T, BD)
        place = dense_at(dx, where, t, d, length, channels)
        tl.store(place, total.to(dx.dtype.element_ty), (t < stop)[:, None] & here[None, :])
    elif d_initial is not None:
        spread_to_carried(
            g, weight, ends, d_last, d_initial, counted - tiles, d, here, length, channels, width, KEPT, BD
        )
