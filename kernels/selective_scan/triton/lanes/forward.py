"""Forward kernels: summaries of chunks, and the outputs of chunks.

Each takes four steps at a time and loads those that come next before it stores anything of these: a load stays
behind the stores before it, and a step that waited for both its loads and the last step's stores would wait for
memory.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false
# pyright: reportInvalidTypeForm=false
# ruff: noqa: SIM102
# (a kernel's arguments and launch are not what Python's types say; a test when compiling stands apart from one later)
import triton
import triton.language as tl

from ..entry import kernel
from .layout import hand_out, load_states, load_tile, no_states, store_states, store_tile
from .memory import store
from .steps import (
    activation,
    advance,
    existing,
    gate_of,
    load_owned_steps,
    load_projection_steps,
    mask_of,
    next_steps,
    of_owners,
    place_of,
    projection,
    rates_of,
    read_out,
    step_size,
)


@triton.jit
def load_block(pu, pd, pz, pb, pc, at, n, kind: tl.constexpr):
    """Return u, delta, z, B and C of the steps at once from `at` on."""
    return (
        load_owned_steps(pu, at, n, kind.u_step, kind), load_owned_steps(pd, at, n, kind.delta_step, kind),
        load_owned_steps(pz, at, n, kind.z_step, kind), load_projection_steps(pb, at, n, kind.B_step, kind),
        load_projection_steps(pc, at, n, kind.C_step, kind),
    )  # fmt: skip


@kernel
def summarize(
    u, delta, A, B, bias, mask, table, total, local,
    length: tl.int32, chunk: tl.int32, per_row: tl.int32,
    u_row: tl.int64, delta_row: tl.int64, B_row: tl.int64, B_group: tl.int64, kind: tl.constexpr,
):  # fmt: skip
    """Store, for every chunk but a row's last, the sum of its step sizes and the state it reaches from zero."""
    AT_ONCE: tl.constexpr = kind.at_once
    place, lanes = place_of(table, length, chunk, per_row, 1, kind)
    n, here = place[3], lanes[3]
    a, shift = rates_of(A, lanes, kind), of_owners(bias, lanes, kind)
    pu = activation(u, u_row, kind.u_step, place, lanes)
    pd = activation(delta, delta_row, kind.delta_step, place, lanes)
    pb = projection(B, B_row, B_group, kind.B_step, place, lanes)
    pm = mask_of(mask, place, length)
    h, steps = no_states(kind), tl.full([kind.threads], 0, tl.float32)
    at = n * 0
    raw, x = (
        load_owned_steps(pd, at, n, kind.delta_step, kind),
        load_owned_steps(pu, at, n, kind.u_step, kind),
    )
    b = load_projection_steps(pb, at, n, kind.B_step, kind)
    for i in range(0, n, AT_ONCE):
        at = n * 0 + i
        ahead = next_steps(at, n, kind)
        next_raw = load_owned_steps(pd, ahead, n, kind.delta_step, kind)
        next_x = load_owned_steps(pu, ahead, n, kind.u_step, kind)
        next_b = load_projection_steps(pb, ahead, n, kind.B_step, kind)
        for r in tl.static_range(AT_ONCE):
            dl, _slope = step_size(raw[r], shift, pm, at, r, n, here, kind)
            steps += dl
            h, _decays = advance(h, a, hand_out(dl), hand_out(dl * x[r]), b[r])
        raw, x, b = next_raw, next_x, next_b
    store_tile(local + place[0] * kind.tile, h, kind)
    store(total + place[0] * kind.threads, tl.arange(0, kind.threads), 0, steps, None)


@kernel
def write(
    u, delta, A, B, C, skip, z, bias, mask, table, entries, initial, saved, y, last,
    length: tl.int32, chunk: tl.int32, per_row: tl.int32, u_row: tl.int64, delta_row: tl.int64, B_row: tl.int64,
    B_group: tl.int64, C_row: tl.int64, C_group: tl.int64, z_row: tl.int64, kind: tl.constexpr,
):  # fmt: skip
    """Store the outputs of every chunk and, given `saved`, the state before every `kind.saved_every`-th step."""
    AT_ONCE: tl.constexpr = kind.at_once
    place, lanes = place_of(table, length, chunk, per_row, 0, kind)
    n, here = place[3], lanes[3]
    a, shift = rates_of(A, lanes, kind), of_owners(bias, lanes, kind)
    through = of_owners(skip, lanes, kind)
    pu = activation(u, u_row, kind.u_step, place, lanes)
    pd = activation(delta, delta_row, kind.delta_step, place, lanes)
    pz = activation(z, z_row, kind.z_step, place, lanes)
    pb = projection(B, B_row, B_group, kind.B_step, place, lanes)
    pc = projection(C, C_row, C_group, kind.C_step, place, lanes)
    pm = mask_of(mask, place, length)
    py = y + (place[1] * length + place[2]) * kind.channels
    if entries is not None:
        h = load_tile(entries + place[0] * kind.tile, kind, True)
    elif initial is not None:
        h = load_states(initial + place[5] * (kind.channels * kind.states), lanes, kind)
    else:
        h = no_states(kind)
    now = load_block(pu, pd, pz, pb, pc, n * 0, n, kind)
    for i in range(0, n, AT_ONCE):
        at = n * 0 + i
        if saved is not None:
            if at % kind.saved_every == 0:
                segment = (place[4] + at // kind.saved_every) * kind.blocks + lanes[4]
                store_tile(saved + segment * kind.tile, h, kind)
        ahead = load_block(pu, pd, pz, pb, pc, next_steps(at, n, kind), n, kind)
        for r in tl.static_range(AT_ONCE):
            x = now[0][r]
            dl, _slope = step_size(now[1][r], shift, pm, at, r, n, here, kind)
            h, _decays = advance(h, a, hand_out(dl), hand_out(dl * x), now[3][r])
            out = read_out(h, now[4][r]) + through * x
            if z is not None:
                out = out * gate_of(now[2][r])[0]
            first = py + at.to(tl.int64) * kind.channels
            store(first, lanes[2], r * kind.channels, out, existing(at, r, n, here, kind))
        now = ahead
    if place[7]:
        store_states(last + place[5] * (kind.channels * kind.states), h, lanes, kind)
