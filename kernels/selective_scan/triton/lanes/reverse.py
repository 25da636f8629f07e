"""One stretch of the backward pass: `kind.at_once` steps whose states and decays are in registers."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false
# pyright: reportPossiblyUnboundVariable=false
# ruff: noqa: RUF005
# (a kernel's arguments and launch are not what Python's types say; its compiler unpacks no tuple, so they grow by +)
import triton
import triton.language as tl

from .layout import CHANNELS, STATES, gather, hand_out, over_channels, sum_place
from .memory import store
from .steps import (
    advance,
    existing,
    gate_of,
    load_owned,
    load_owned_steps,
    load_projection_steps,
    read_out,
    step_size,
)

LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def skip_steps(h, a, shift, reads, pm, at, stop, n, lanes, kind: tl.constexpr):
    """Return the states at step `stop`, from those at step `at`."""
    AT_ONCE: tl.constexpr = kind.at_once
    for i in range(at, stop, AT_ONCE):
        step = n * 0 + i
        raw = load_owned_steps(reads[1], step, n, kind.delta_step, kind)
        x = load_owned_steps(reads[0], step, n, kind.u_step, kind)
        b = load_projection_steps(reads[3], step, n, kind.B_step, kind)
        for r in tl.static_range(AT_ONCE):
            dl, _slope = step_size(raw[r], shift, pm, step, r, n, lanes[3], kind)
            h, _decays = advance(h, a, hand_out(dl), hand_out(dl * x[r]), b[r])
    return h


@triton.jit
def hold_steps(h, a, shift, reads, pm, at, n, lanes, kind: tl.constexpr):
    """Return states (one more than steps), decays, step sizes, their slopes, inputs and dy of the steps at once."""
    AT_ONCE: tl.constexpr = kind.at_once
    raw = load_owned_steps(reads[1], at, n, kind.delta_step, kind)
    x = load_owned_steps(reads[0], at, n, kind.u_step, kind)
    g = load_owned_steps(reads[2], at, n, kind.dy_step, kind)
    b = load_projection_steps(reads[3], at, n, kind.B_step, kind)
    states, decays, sizes, slopes = (h,), (), (), ()
    for r in tl.static_range(AT_ONCE):
        dl, slope = step_size(raw[r], shift, pm, at, r, n, lanes[3], kind)
        h, decay = advance(h, a, hand_out(dl), hand_out(dl * x[r]), b[r])
        states, decays = states + (h,), decays + (decay,)
        sizes, slopes = sizes + (dl,), slopes + (slope,)
    return states, decays, sizes, slopes, x, g


@triton.jit
def step_back(
    q, sums, held, r: tl.constexpr, b, c, a, through, pz, d_z, writes, at, n, lanes, kind: tl.constexpr,
):  # fmt: skip
    """Store the gradients of step at + r; return the adjoint of the state before it, and the sums with its terms."""
    dl, slope, x, g = held[2][r], held[3][r], held[4][r], held[5][r]
    inside = existing(at, r, n, lanes[3], kind)
    if inside is not None:
        g = tl.where(inside, g, 0.0)
    first = at.to(tl.int64)
    if pz is not None:
        gate, by_gate = gate_of(load_owned(pz, at, r, n, kind.z_step, kind))
        read = read_out(held[0][r + 1], c) + through * x
        store(d_z + first * kind.channels, lanes[2], r * kind.channels, g * read * by_gate, inside)
        g = g * gate
    states = (held[0][r], held[0][r + 1], held[1][r])
    out = terms(q, sums[0], states, a, hand_out(g), hand_out(dl), hand_out(dl * x), b, c)
    warp = tl.arange(0, kind.threads) // 32
    whole = None
    if kind.ragged:
        whole = (warp * 0 + at + r) < n
    place = warp * writes[3] + sum_place(kind)
    store(writes[2] + first * 32, place, r * 32, over_channels(out[2], out[3], kind), whole)
    drive = gather(out[4])
    by_delta = (gather(out[5]) * LN2 + drive * x) * slope
    store(writes[0] + first * kind.channels, lanes[2], r * kind.channels, drive * dl + through * g, inside)
    store(writes[1] + first * kind.channels, lanes[2], r * kind.channels, by_delta, inside)
    return out[0], (out[1], sums[1] + g * x, sums[2] + by_delta)


@triton.jit
def terms(q, d_A, states, a, g, dl, v, b, c):
    """Return the adjoint of the state before, dA with this step's, and the lane's parts of dB, dC and two sums.

    The sums, over states for each register of channels: q B, the derivative by what drives the state; and w A log2(e),
    that by the step size through the decays (w = q decay h is the derivative by the exponent).
    """
    before, after, decay = states[0], states[1], states[2]
    q_before, next_A, by_drive, by_rate = (), (), (), ()
    d_B, d_C = (), ()
    for j in tl.static_range(CHANNELS):
        old_B, old_C, d_B, d_C = d_B, d_C, (), ()
        for m in tl.static_range(STATES):
            now = q[j * STATES + m] + g[j] * c[m]
            sent = now * decay[j * STATES + m]
            w = sent * before[j * STATES + m]
            q_before, next_A = q_before + (sent,), next_A + (d_A[j * STATES + m] + w * dl[j],)
            if m == 0:
                s_drive, s_rate = now * b[0], w * a[j * STATES]
            else:
                s_drive, s_rate = s_drive + now * b[m], s_rate + w * a[j * STATES + m]
            if j == 0:
                d_B, d_C = d_B + (now * v[0],), d_C + (g[0] * after[m],)
            else:
                d_B = d_B + (old_B[m] + now * v[j],)
                d_C = d_C + (old_C[m] + g[j] * after[j * STATES + m],)
        by_drive, by_rate = by_drive + (s_drive,), by_rate + (s_rate,)
    return q_before, next_A, d_B, d_C, by_drive, by_rate
