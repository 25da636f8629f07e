"""Triton kernels, forward: chunk summaries, the pass over chunks, and the outputs of every chunk.

All chunks of all sequences run in parallel in the first and the last kernel; only the short pass over chunks is
serial. Inside a chunk the steps are serial, with the (channels, state) tile in registers: no associative scan,
whose reverse form has been miscompiled on GPUs in ways that no CPU test can see.

A table gives each chunk its batch row, first step and end, so that no chunk straddles two packed sequences.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false
# (a kernel's arguments and launch are not what Python's types say)
import triton
import triton.language as tl

from .common import (
    LOG2E,
    advance,
    load_gate,
    load_states,
    place_of_program,
)


@triton.jit
def summarize_chunks(
    u, delta, A, B, bias, mask, table, total, local, length, channels, state, per_group,
    N: tl.constexpr, T: tl.constexpr, BD: tl.constexpr, softplus: tl.constexpr,
):  # fmt: skip
    """Store, for every chunk, the sum of its step sizes and the state it reaches from zero."""
    chunk, _block, place, lanes, states = place_of_program(table, channels, state, per_group, N, BD)
    tile, here_tile, exists = states
    d, here = lanes
    a = tl.load(A + tile, here_tile, 0.0) * LOG2E
    shift = tl.load(bias + d, here, 0.0)
    h = tl.zeros([BD, N], a.dtype)
    sum_steps = tl.zeros([BD], a.dtype)
    for i in range(T):
        t = place[1] + i
        h, dl, _x, _inside = advance(
            h, a, u, delta, B, mask, shift, place, t, length, lanes, exists, softplus
        )
        sum_steps += dl
    tl.store(local + chunk * channels * state + tile, h, here_tile)
    tl.store(total + chunk * channels + d, sum_steps, here)


@triton.jit
def pass_over_chunks(
    local, total, A, first, last, bounds, channels, state,
    N: tl.constexpr, BD: tl.constexpr, AHEAD: tl.constexpr, reverse: tl.constexpr,
):  # fmt: skip
    """Carry states (or, in reverse, adjoints) over a sequence's chunks; `local` becomes the value at each entry.

    The last value carried is the last state, or in reverse the gradient of the initial state. AHEAD chunks are read
    before the first of them is used: one read of memory takes as long as a hundred steps of the carry.
    """
    sequence = tl.program_id(0).to(tl.int64)
    begin, end = tl.load(bounds + sequence), tl.load(bounds + sequence + 1)
    d, n = tl.program_id(1) * BD + tl.arange(0, BD), tl.arange(0, N)
    here = d < channels
    tile = d[:, None] * state + n[None, :]
    here_tile = here[:, None] & (n < state)[None, :]
    a = tl.load(A + tile, here_tile, 0.0) * LOG2E
    h = tl.load(first + sequence * channels * state + tile, here_tile, 0.0)
    for i in range(0, end - begin, AHEAD):
        chunk = begin + i
        forth = 1
        if reverse:
            chunk = end - 1 - i
            forth = -1
        own, steps = (), ()
        for j in tl.static_range(AHEAD):
            k = chunk + forth * j
            # (the compiler knows no unpacking: tuples grow by +)
            inside = here_tile & ((i + j + tile * 0) < end - begin)
            own = own + (tl.load(local + k * channels * state + tile, inside, 0.0),)  # noqa: RUF005
            inside = here & ((i + j + d * 0) < end - begin)
            steps = steps + (tl.load(total + k * channels + d, inside, 0.0),)  # noqa: RUF005
        for j in tl.static_range(AHEAD):
            inside = here_tile & ((i + j + tile * 0) < end - begin)
            tl.store(local + (chunk + forth * j) * channels * state + tile, h, inside)
            h = h * tl.exp2(a * steps[j][:, None]) + own[j]
    tl.store(last + sequence * channels * state + tile, h, here_tile)


@triton.jit
def write_chunks(
    u, delta, A, B, C, skip, z, bias, mask, table, entries, y, length, channels, state, per_group,
    N: tl.constexpr, T: tl.constexpr, BD: tl.constexpr, softplus: tl.constexpr,
):  # fmt: skip
    """Store the outputs of every chunk, starting from its entry state."""
    chunk, _block, place, lanes, states = place_of_program(table, channels, state, per_group, N, BD)
    tile, here_tile, exists = states
    d, here = lanes
    row, start = place[0], place[1]
    a = tl.load(A + tile, here_tile, 0.0) * LOG2E
    shift = tl.load(bias + d, here, 0.0)
    dv = tl.load(skip + d, here, 0.0)
    h = tl.load(entries + chunk * channels * state + tile, here_tile, 0.0)
    for i in range(T):
        t = start + i
        h, _dl, x, inside = advance(h, a, u, delta, B, mask, shift, place, t, length, lanes, exists, softplus)
        c = load_states(C, place, t, exists, a)
        out = tl.sum(h * c[None, :], 1) + dv * x
        if z is not None:
            out = out * load_gate(z, row, t, d, inside, a)[0]
        tl.store(y + (row * length + t) * channels + d, out.to(y.dtype.element_ty), inside)
