"""Triton kernels, backward: adjoint summaries of chunks, and the gradients of every chunk.

`pass_over_chunks` of the forward file runs in between, in reverse; what it carries out at the front of a sequence is
the gradient of the initial state. Sums over channels or chunks are stored as parts and added by the caller in a
fixed order: no atomics, so gradients repeat.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false
# (a kernel's arguments and launch are not what Python's types say)
import triton
import triton.language as tl

from .common import (
    LOG2E,
    advance,
    load_channels,
    load_gate,
    load_states,
    load_step,
    place_of_program,
)


@triton.jit
def summarize_adjoints(
    delta, A, C, z, bias, mask, dy, table, total, local, length, channels, state, per_group,
    N: tl.constexpr, T: tl.constexpr, BD: tl.constexpr, softplus: tl.constexpr,
):  # fmt: skip
    """Store, for every chunk, the sum of its step sizes and the adjoint that its outputs send to its entry."""
    chunk, _block, place, lanes, states = place_of_program(table, channels, state, per_group, N, BD)
    tile, here_tile, exists = states
    d, here = lanes
    row, start = place[0], place[1]
    a = tl.load(A + tile, here_tile, 0.0) * LOG2E
    shift = tl.load(bias + d, here, 0.0)
    q = tl.zeros([BD, N], a.dtype)
    sum_steps = tl.zeros([BD], a.dtype)
    for i in range(T):
        t = start + T - 1 - i
        dl, _slope, inside = load_step(delta, mask, shift, place, t, length, lanes, softplus)
        g = load_channels(dy, row, t, d, inside, a)
        if z is not None:
            g = g * load_gate(z, row, t, d, inside, a)[0]
        c = load_states(C, place, t, exists, a)
        q = tl.exp2(a * dl[:, None]) * (q + g[:, None] * c[None, :])
        sum_steps += dl
    tl.store(local + chunk * channels * state + tile, q, here_tile)
    tl.store(total + chunk * channels + d, sum_steps, here)


@triton.jit
def differentiate_step(
    q, sums, before, rate, u, delta, B, C, dv, z, shift, mask, dy, du, ddelta, dz, dB, dC,
    place, t, length, channels, lanes, part, exists, softplus: tl.constexpr,
):  # fmt: skip
    """Store the gradients of one step; return the adjoint of the state before it, and the sums of dA, dD, dbias."""
    row, stop, d = place[0], place[2], lanes[0]
    sum_A, sum_D, sum_bias = sums
    dl, slope, inside = load_step(delta, mask, shift, place, t, length, lanes, softplus)
    x = load_channels(u, row, t, d, inside, rate)
    b, c = load_states(B, place, t, exists, rate), load_states(C, place, t, exists, rate)
    out = (row * length + t) * channels + d
    decay = tl.exp2(rate * LOG2E * dl[:, None])
    carried = decay * before
    now = carried + (dl * x)[:, None] * b[None, :]
    g = load_channels(dy, row, t, d, inside, rate)
    if z is not None:
        gate, by_gate = load_gate(z, row, t, d, inside, rate)
        read = tl.sum(now * c[None, :], 1) + dv * x
        tl.store(dz + out, (g * read * by_gate).to(dz.dtype.element_ty), inside)
        g = g * gate
    q = q + g[:, None] * c[None, :]
    by_drive, exponent = tl.sum(q * b[None, :], 1), q * carried
    n = tl.arange(0, exists.shape[0])
    at_step = exists & ((t + n * 0) < stop)
    tl.store(dB + part + n, tl.sum(q * (dl * x)[:, None], 0), at_step)
    tl.store(dC + part + n, tl.sum(g[:, None] * now, 0), at_step)
    by_delta = (by_drive * x + tl.sum(exponent * rate, 1)) * slope
    tl.store(du + out, (by_drive * dl + dv * g).to(du.dtype.element_ty), inside)
    tl.store(ddelta + out, by_delta.to(ddelta.dtype.element_ty), inside)
    return q * decay, (sum_A + exponent * dl[:, None], sum_D + g * x, sum_bias + by_delta)


@triton.jit
def differentiate_chunks(
    u, delta, A, B, C, skip, z, bias, mask, dy, table, entries, exits, du, ddelta, dz, dB, dC, dD, dbias,
    length, channels, state, per_group, rows,
    N: tl.constexpr, T: tl.constexpr, M: tl.constexpr, S: tl.constexpr, BD: tl.constexpr, softplus: tl.constexpr,
):  # fmt: skip
    """Recompute the states of a chunk, S steps at a time from the last, and walk back through them.

    Only S states are held in registers. Those before them are computed again: for every segment of M steps from the
    chunk's entry, and within it for every stretch of S steps. The chunk's part of dA takes the place of its adjoint
    in `exits`, which nobody else reads.
    """
    tl.static_assert(T % M == 0 and M % S == 0, "a chunk is whole segments of whole stretches")
    chunk, block, place, lanes, states = place_of_program(table, channels, state, per_group, N, BD)
    tile, here_tile, exists = states
    row, start, _stop, group = place
    d, here = lanes
    rate = tl.load(A + tile, here_tile, 0.0)
    a = rate * LOG2E
    shift = tl.load(bias + d, here, 0.0)
    dv = tl.load(skip + d, here, 0.0)
    q = tl.load(exits + chunk * channels * state + tile, here_tile, 0.0)
    sums = (tl.zeros([BD, N], a.dtype), tl.zeros([BD], a.dtype), tl.zeros([BD], a.dtype))
    for m in range(T // M):
        begin = start + T - (m + 1) * M
        base = tl.load(entries + chunk * channels * state + tile, here_tile, 0.0)
        for i in range(T - (m + 1) * M):
            t = start + i
            base = advance(base, a, u, delta, B, mask, shift, place, t, length, lanes, exists, softplus)[0]
        for k in range(M // S):
            first, h = begin + M - (k + 1) * S, base
            for i in range(M - (k + 1) * S):
                t = begin + i
                h = advance(h, a, u, delta, B, mask, shift, place, t, length, lanes, exists, softplus)[0]
            befores = ()
            for j in tl.static_range(S):
                befores = befores + (h,)  # noqa: RUF005 - the compiler knows no unpacking
                t = first + j
                h = advance(h, a, u, delta, B, mask, shift, place, t, length, lanes, exists, softplus)[0]
            for j in tl.static_range(S):
                t = first + S - 1 - j
                part = ((block * rows + row * length + t) * (channels // per_group) + group) * state
                q, sums = differentiate_step(
                    q, sums, befores[S - 1 - j], rate, u, delta, B, C, dv, z, shift, mask, dy, du, ddelta, dz,
                    dB, dC, place, t, length, channels, lanes, part, exists, softplus,
                )  # fmt: skip
    tl.store(exits + chunk * channels * state + tile, sums[0], here_tile)
    tl.store(dD + chunk * channels + d, sums[1], here)
    tl.store(dbias + chunk * channels + d, sums[2], here)
