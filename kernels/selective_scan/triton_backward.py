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

from kernels.selective_scan.triton_forward import LOG2E, channels_of_program, load_step


@triton.jit
def gated_gradient(dy, z, dy_b, dy_t, dy_c, z_b, z_t, z_c, row, t, d, inside, like, has_z: tl.constexpr):
    """Return the gradient of the output before its gate."""
    g = tl.load(dy + row * dy_b + t * dy_t + d * dy_c, inside, 0.0).to(like.dtype)
    if has_z:
        gate = tl.load(z + row * z_b + t * z_t + d * z_c, inside, 0.0).to(like.dtype)
        g = g * gate / (1.0 + tl.exp(-gate))
    return g


@triton.jit
def summarize_adjoints(
    delta, A, C, z, bias, mask, dy, table, local,
    dt_b, dt_t, dt_c, z_b, z_t, z_c, C_b, C_t, C_g, C_n, dy_b, dy_t, dy_c, length, channels, state, per_group,
    N: tl.constexpr, T: tl.constexpr, BD: tl.constexpr, has_mask: tl.constexpr, has_z: tl.constexpr,
    softplus: tl.constexpr,
):  # fmt: skip
    """Store, for every chunk, the adjoint that its own outputs send to the state at its entry."""
    chunk = tl.program_id(1).to(tl.int64)
    row, start, stop = (
        tl.load(table + chunk * 3),
        tl.load(table + chunk * 3 + 1),
        tl.load(table + chunk * 3 + 2),
    )
    group, d, here = channels_of_program(per_group, BD)
    n = tl.arange(0, N)
    tile = d[:, None] * state + n[None, :]
    here_tile = here[:, None] & (n < state)[None, :]
    a = tl.load(A + tile, here_tile, 0.0) * LOG2E
    shift = tl.load(bias + d, here, 0.0)
    q = tl.zeros([BD, N], a.dtype)
    for i in range(T):
        t = start + T - 1 - i
        inside = here & ((t + d * 0) < stop)
        dl = load_step(delta, mask, shift, dt_b, dt_t, dt_c, row, t, length, d, inside, has_mask, softplus)
        g = gated_gradient(dy, z, dy_b, dy_t, dy_c, z_b, z_t, z_c, row, t, d, inside, a, has_z)
        at_step = (n < state) & ((t + n * 0) < stop)
        c = tl.load(C + row * C_b + t * C_t + group * C_g + n * C_n, at_step, 0.0)
        q = tl.exp2(a * dl[:, None]) * (q + g[:, None] * c.to(a.dtype)[None, :])
    tl.store(local + chunk * channels * state + tile, q, here_tile)


@triton.jit
def advance(
    h, a, u, delta, B, mask, shift, u_b, u_t, u_c, dt_b, dt_t, dt_c, B_b, B_t, B_g, B_n,
    row, t, stop, length, group, d, here, state, N: tl.constexpr, has_mask: tl.constexpr, softplus: tl.constexpr,
):  # fmt: skip
    """Return the state after step `t`; past `stop` it stands still."""
    n = tl.arange(0, N)
    inside = here & ((t + d * 0) < stop)
    dl = load_step(delta, mask, shift, dt_b, dt_t, dt_c, row, t, length, d, inside, has_mask, softplus)
    x = tl.load(u + row * u_b + t * u_t + d * u_c, inside, 0.0).to(a.dtype)
    at_step = (n < state) & ((t + n * 0) < stop)
    b = tl.load(B + row * B_b + t * B_t + group * B_g + n * B_n, at_step, 0.0).to(a.dtype)
    return tl.exp2(a * dl[:, None]) * h + (dl * x)[:, None] * b[None, :]


@triton.jit
def differentiate_chunks(
    u, delta, A, B, C, skip, z, bias, mask, dy, table, entries, exits,
    du, ddelta, dz, dA, dB, dC, dD, dbias,
    u_b, u_t, u_c, dt_b, dt_t, dt_c, z_b, z_t, z_c, B_b, B_t, B_g, B_n, C_b, C_t, C_g, C_n, dy_b, dy_t, dy_c,
    length, channels, state, per_group, steps,
    N: tl.constexpr, T: tl.constexpr, S: tl.constexpr, BD: tl.constexpr, has_mask: tl.constexpr, has_z: tl.constexpr,
    softplus: tl.constexpr,
):  # fmt: skip
    """Recompute the states of a chunk, S steps at a time from the last, and walk back through them.

    Only S states are held in registers; those before them are computed again for every stretch of S steps.
    """
    block, chunk = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row, start, stop = (
        tl.load(table + chunk * 3),
        tl.load(table + chunk * 3 + 1),
        tl.load(table + chunk * 3 + 2),
    )
    blocks = tl.cdiv(per_group, BD)
    group, d, here = channels_of_program(per_group, BD)
    n = tl.arange(0, N)
    tile = d[:, None] * state + n[None, :]
    here_tile = here[:, None] & (n < state)[None, :]
    rate = tl.load(A + tile, here_tile, 0.0)
    a = rate * LOG2E
    shift = tl.load(bias + d, here, 0.0)
    dv = tl.load(skip + d, here, 0.0)
    q = tl.load(exits + chunk * channels * state + tile, here_tile, 0.0)
    sum_A = tl.zeros([BD, N], a.dtype)
    sum_D = tl.zeros([BD], a.dtype)
    sum_bias = tl.zeros([BD], a.dtype)
    for k in range(T // S):
        ahead = T - (k + 1) * S
        h = tl.load(entries + chunk * channels * state + tile, here_tile, 0.0)
        for i in range(ahead):
            h = advance(
                h, a, u, delta, B, mask, shift, u_b, u_t, u_c, dt_b, dt_t, dt_c, B_b, B_t, B_g, B_n,
                row, start + i, stop, length, group, d, here, state, N, has_mask, softplus,
            )  # fmt: skip
        states = ()
        for i in tl.static_range(S):
            states = states + (h,)  # noqa: RUF005 - the compiler knows no unpacking
            h = advance(
                h, a, u, delta, B, mask, shift, u_b, u_t, u_c, dt_b, dt_t, dt_c, B_b, B_t, B_g, B_n,
                row, start + ahead + i, stop, length, group, d, here, state, N, has_mask, softplus,
            )  # fmt: skip
        for j in tl.static_range(S):
            before = states[S - 1 - j]
            t = start + ahead + S - 1 - j
            inside = here & ((t + d * 0) < stop)
            at_step = (n < state) & ((t + n * 0) < stop)
            at_delta = delta + row * dt_b + t * dt_t + d * dt_c
            dl = load_step(
                delta, mask, shift, dt_b, dt_t, dt_c, row, t, length, d, inside, has_mask, softplus
            )
            x = tl.load(u + row * u_b + t * u_t + d * u_c, inside, 0.0).to(a.dtype)
            b = tl.load(B + row * B_b + t * B_t + group * B_g + n * B_n, at_step, 0.0).to(a.dtype)
            c = tl.load(C + row * C_b + t * C_t + group * C_g + n * C_n, at_step, 0.0).to(a.dtype)
            out = (row * length + t) * channels + d
            decay = tl.exp2(a * dl[:, None])
            carried = decay * before
            now = carried + (dl * x)[:, None] * b[None, :]
            g = tl.load(dy + row * dy_b + t * dy_t + d * dy_c, inside, 0.0).to(a.dtype)
            if has_z:
                gate = tl.load(z + row * z_b + t * z_t + d * z_c, inside, 0.0).to(a.dtype)
                sigmoid = 1.0 / (1.0 + tl.exp(-gate))
                read = tl.sum(now * c[None, :], 1) + dv * x
                by_gate = g * read * sigmoid * (1.0 + gate * (1.0 - sigmoid))
                tl.store(dz + out, by_gate.to(dz.dtype.element_ty), inside)
                g = g * gate * sigmoid
            q = q + g[:, None] * c[None, :]
            by_drive = tl.sum(q * b[None, :], 1)
            exponent = q * carried
            part = (
                ((block % blocks) * steps + row * length + t) * (channels // per_group) + group
            ) * state + n
            tl.store(dB + part, tl.sum(q * (dl * x)[:, None], 0), at_step)
            tl.store(dC + part, tl.sum(g[:, None] * now, 0), at_step)
            slope = tl.where(inside, 1.0, 0.0).to(a.dtype)
            if has_mask:
                slope = tl.where(tl.load(mask + row * length + t + d * 0, inside, 0) != 0, slope, 0.0)
            if softplus:
                slope = slope / (1.0 + tl.exp(-(tl.load(at_delta, inside, 0.0).to(a.dtype) + shift)))
            by_delta = (by_drive * x + tl.sum(exponent * rate, 1)) * slope
            tl.store(du + out, (by_drive * dl + dv * g).to(du.dtype.element_ty), inside)
            tl.store(ddelta + out, by_delta.to(ddelta.dtype.element_ty), inside)
            sum_A += exponent * dl[:, None]
            sum_D += g * x
            sum_bias += by_delta
            q = q * decay
    tl.store(dA + chunk * channels * state + tile, sum_A, here_tile)
    tl.store(dD + chunk * channels + d, sum_D, here)
    tl.store(dbias + chunk * channels + d, sum_bias, here)
