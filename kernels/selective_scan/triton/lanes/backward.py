"""Backward kernels: what chunks send back, and the gradients of chunks.

Sums over channels and chunks leave as parts, which `finish` adds in one order: no atomics, so gradients repeat.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false
# pyright: reportInvalidTypeForm=false
# ruff: noqa: RUF005
# (a kernel's arguments and launch are not what Python's types say; its compiler unpacks no tuple, so they grow by +)
import triton
import triton.language as tl

from ..entry import kernel
from .layout import CHANNELS, STATES, hand_out, load_states, load_tile, no_states, store_states, store_tile
from .memory import store
from .reverse import hold_steps, skip_steps, step_back
from .steps import (
    activation,
    existing,
    gate_of,
    load_owned_steps,
    load_projection,
    load_projection_steps,
    mask_of,
    of_owners,
    place_of,
    projection,
    rates_of,
    step_size,
)


@triton.jit
def load_block(pd, pg, pz, pc, at, n, kind: tl.constexpr):
    """Return delta, dy, z and C of the steps at once from `at` on."""
    return (
        load_owned_steps(pd, at, n, kind.delta_step, kind), load_owned_steps(pg, at, n, kind.dy_step, kind),
        load_owned_steps(pz, at, n, kind.z_step, kind), load_projection_steps(pc, at, n, kind.C_step, kind),
    )  # fmt: skip


@kernel
def summarize_back(
    delta, A, C, z, bias, mask, dy, table, total, local, length: tl.int32, chunk: tl.int32, per_row: tl.int32,
    delta_row: tl.int64, C_row: tl.int64, C_group: tl.int64, z_row: tl.int64, dy_row: tl.int64, kind: tl.constexpr,
):  # fmt: skip
    """Store, for every chunk but a row's first, the sum of its step sizes and the adjoint it sends to its entry."""
    AT_ONCE: tl.constexpr = kind.at_once
    place, lanes = place_of(table, length, chunk, per_row, -1, kind)
    n, here = place[3], lanes[3]
    a, shift = rates_of(A, lanes, kind), of_owners(bias, lanes, kind)
    pd = activation(delta, delta_row, kind.delta_step, place, lanes)
    pg = activation(dy, dy_row, kind.dy_step, place, lanes)
    pz = activation(z, z_row, kind.z_step, place, lanes)
    pc = projection(C, C_row, C_group, kind.C_step, place, lanes)
    pm = mask_of(mask, place, length)
    q, steps = no_states(kind), tl.full([kind.threads], 0, tl.float32)
    end = tl.cdiv(n, AT_ONCE) * AT_ONCE - AT_ONCE
    now = load_block(pd, pg, pz, pc, end, n, kind)
    for back in range(0, n, AT_ONCE):
        at = end - back
        ahead = load_block(pd, pg, pz, pc, tl.maximum(at - AT_ONCE, 0), n, kind)
        for r in tl.static_range(AT_ONCE - 1, -1, -1):
            dl, _slope = step_size(now[0][r], shift, pm, at, r, n, here, kind)
            steps += dl
            g = now[1][r]
            if z is not None:
                g = g * gate_of(now[2][r])[0]
            inside = existing(at, r, n, here, kind)
            if inside is not None:
                g = tl.where(inside, g, 0.0)
            q = send_back(q, a, hand_out(dl), hand_out(g), now[3][r])
        now = ahead
    store_tile(local + place[0] * kind.tile, q, kind)
    store(total + place[0] * kind.threads, tl.arange(0, kind.threads), 0, steps, None)


@triton.jit
def send_back(q, a, dl, g, c):
    """Return the adjoint of the state before a step, from that after it."""
    before = ()
    for j in tl.static_range(CHANNELS):
        for m in tl.static_range(STATES):
            decay = tl.exp2(a[j * STATES + m] * dl[j])
            before = before + (decay * (q[j * STATES + m] + g[j] * c[m]),)
    return before


@kernel
def differentiate(
    u, delta, A, B, C, skip, z, bias, mask, dy, table, saved, exits, d_last, du, ddelta, dz, d_first, parts_BC, parts_A,
    parts_D, parts_bias, length: tl.int32, rows: tl.int64, chunk: tl.int32, per_row: tl.int32,
    u_row: tl.int64, delta_row: tl.int64, B_row: tl.int64, B_group: tl.int64, C_row: tl.int64, C_group: tl.int64,
    z_row: tl.int64, dy_row: tl.int64, kind: tl.constexpr,
):  # fmt: skip
    """Walk a chunk from its end: a few steps forward with states and decays in registers, then back through them.

    From a saved state to the one after it are eight such stretches, taken from the last. The first four of them are
    stepped through once, to a state that is kept in memory until the later half is done: where the chunk's part of dA
    will lie, and the adjoint at its exit did. Of each half, the first two stretches are stepped through on the way to
    its second half, the first of each of these on the way to its second: three states more for every two steps.
    """
    AT_ONCE: tl.constexpr = kind.at_once
    place, lanes = place_of(table, length, chunk, per_row, 0, kind)
    n, row, start = place[3], place[1], place[2]
    a, shift = rates_of(A, lanes, kind), of_owners(bias, lanes, kind)
    pu = activation(u, u_row, kind.u_step, place, lanes)
    pd = activation(delta, delta_row, kind.delta_step, place, lanes)
    pg = activation(dy, dy_row, kind.dy_step, place, lanes)
    pz = activation(z, z_row, kind.z_step, place, lanes)
    pb = projection(B, B_row, B_group, kind.B_step, place, lanes)
    pc = projection(C, C_row, C_group, kind.C_step, place, lanes)
    reads = (pu, pd, pg, pb, pc)
    pm = mask_of(mask, place, length)
    to = (row * length + start) * kind.channels
    d_z = None
    if z is not None:
        d_z = dz + to
    part = parts_BC + (lanes[4] * kind.warps * rows + row * length + start) * 32
    writes = (du + to, ddelta + to, part, rows.to(tl.int32) * 32)
    zero = tl.full([kind.threads], 0, tl.float32)
    sums = (no_states(kind), zero, zero)
    vectors = (shift, of_owners(skip, lanes, kind))
    if exits is not None:
        q = load_tile(exits + place[0] * kind.tile, kind, False)  # its part of dA will lie there
    elif d_last is not None:
        q = load_states(d_last + place[5] * (kind.channels * kind.states), lanes, kind)
    else:
        q = no_states(kind)
    kept = parts_A + place[0] * kind.tile
    halves = tl.cdiv(n, kind.half)
    for s in range(halves):
        front = n * 0 + (halves - 1 - s) * kind.half
        entry = saved + ((place[4] + front // kind.saved_every) * kind.blocks + lanes[4]) * kind.tile
        entry = entry_of_half(entry, kept, a, shift, reads, pm, front, n, lanes, kind)
        for later in range(2):
            base = load_tile(entry, kind, False)  # what is kept was stored here
            at = front + (1 - later) * (2 * AT_ONCE)
            base = skip_steps(base, a, shift, reads, pm, front, at, n, lanes, kind)
            for latest in range(2):
                here = at + (1 - latest) * AT_ONCE
                h = skip_steps(base, a, shift, reads, pm, at, here, n, lanes, kind)
                q, sums = stretch(q, sums, h, a, vectors, reads, pm, pz, d_z, writes, here, n, lanes, kind)
    if place[6]:
        store_states(d_first + place[5] * (kind.channels * kind.states), q, lanes, kind)
    store_tile(kept, sums[0], kind)
    thread = tl.arange(0, kind.threads)
    store(parts_D + place[0] * kind.threads, thread, 0, sums[1], None)
    store(parts_bias + place[0] * kind.threads, thread, 0, sums[2], None)


@triton.jit
def entry_of_half(entry, kept, a, shift, reads, pm, front, n, lanes, kind: tl.constexpr):
    """Return where the state at step `front` lies: saved, or of a later half computed from there and kept."""
    if front % kind.saved_every != 0:
        h = load_tile(entry, kind, True)
        h = skip_steps(h, a, shift, reads, pm, front - kind.half, front, n, lanes, kind)
        store_tile(kept, h, kind)
        entry = kept
    return entry


@triton.jit
def stretch(q, sums, h, a, vectors, reads, pm, pz, d_z, writes, at, n, lanes, kind: tl.constexpr):
    """Step forward from state h through `kind.at_once` steps, then back; return the adjoint and the sums."""
    AT_ONCE: tl.constexpr = kind.at_once
    held = hold_steps(h, a, vectors[0], reads, pm, at, n, lanes, kind)
    last: tl.constexpr = AT_ONCE - 1
    b = load_projection(reads[3], at, last, n, kind.B_step, kind, False)
    c = load_projection(reads[4], at, last, n, kind.C_step, kind, False)
    for r in tl.static_range(AT_ONCE - 1, -1, -1):
        next_b, next_c = b, c
        if r > 0:  # ahead of this step's stores
            next_b = load_projection(reads[3], at, r - 1, n, kind.B_step, kind, False)
            next_c = load_projection(reads[4], at, r - 1, n, kind.C_step, kind, False)
        q, sums = step_back(q, sums, held, r, b, c, a, vectors[1], pz, d_z, writes, at, n, lanes, kind)
        b, c = next_b, next_c
    return q, sums
