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

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def channels_of_program(per_group, BD: tl.constexpr):
    """Return the program's group of B and C, its channels, and which of them exist; no program has two groups."""
    blocks = tl.cdiv(per_group, BD)
    group = tl.program_id(0) // blocks
    within = (tl.program_id(0) % blocks) * BD + tl.arange(0, BD)
    return group, group * per_group + within, within < per_group


@triton.jit
def step_size(raw, bias, mask, softplus: tl.constexpr):
    """Return delta as the recurrence uses it: bias, softplus, then zero where the step is masked."""
    x = raw + bias
    if softplus:
        # log1p by log: for small e, log(1 + e) loses what e - e^2/2 keeps.
        e = tl.exp(-tl.abs(x))
        x = tl.maximum(x, 0.0) + tl.where(e < 1e-4, e - 0.5 * e * e, tl.log(1.0 + e))
    return tl.where(mask, x, 0.0)


@triton.jit
def load_step(delta, mask, bias, stride_batch, stride_time, stride_channel, row, t, length, d, inside,
              has_mask: tl.constexpr, softplus: tl.constexpr):  # fmt: skip
    """Return the step sizes of the channels `d` at step `t`; zero outside."""
    raw = tl.load(delta + row * stride_batch + t * stride_time + d * stride_channel, inside, 0.0).to(
        bias.dtype
    )
    real = inside
    if has_mask:
        real = inside & (tl.load(mask + row * length + t + d * 0, inside, 0) != 0)
    return step_size(raw, bias, real, softplus)


@triton.jit
def summarize_chunks(
    u, delta, A, B, bias, mask, table, total, local,
    u_b, u_t, u_c, dt_b, dt_t, dt_c, B_b, B_t, B_g, B_n, length, channels, state, per_group,
    N: tl.constexpr, T: tl.constexpr, BD: tl.constexpr, has_mask: tl.constexpr, softplus: tl.constexpr,
):  # fmt: skip
    """Store, for every chunk, the sum of its step sizes and the state it reaches from zero."""
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
    h = tl.zeros([BD, N], a.dtype)
    sum_steps = tl.zeros([BD], a.dtype)
    for i in range(T):
        t = start + i
        inside = here & ((t + d * 0) < stop)
        dl = load_step(delta, mask, shift, dt_b, dt_t, dt_c, row, t, length, d, inside, has_mask, softplus)
        x = tl.load(u + row * u_b + t * u_t + d * u_c, inside, 0.0).to(a.dtype)
        at_step = (n < state) & ((t + n * 0) < stop)
        b = tl.load(B + row * B_b + t * B_t + group * B_g + n * B_n, at_step, 0.0)
        h = tl.exp2(a * dl[:, None]) * h + (dl * x)[:, None] * b.to(a.dtype)[None, :]
        sum_steps += dl
    tl.store(local + chunk * channels * state + tile, h, here_tile)
    tl.store(total + chunk * channels + d, sum_steps, here)


@triton.jit
def pass_over_chunks(
    local, total, A, first, last, bounds, channels, state, N: tl.constexpr, BD: tl.constexpr, reverse: tl.constexpr,
):  # fmt: skip
    """Carry states (or, in reverse, adjoints) over a sequence's chunks; `local` becomes the value at each entry.

    The last value carried is the last state, or in reverse the gradient of the initial state.
    """
    sequence = tl.program_id(1).to(tl.int64)
    begin, end = tl.load(bounds + sequence), tl.load(bounds + sequence + 1)
    d, n = tl.program_id(0) * BD + tl.arange(0, BD), tl.arange(0, N)
    here = d < channels
    tile = d[:, None] * state + n[None, :]
    here_tile = here[:, None] & (n < state)[None, :]
    a = tl.load(A + tile, here_tile, 0.0) * LOG2E
    h = tl.load(first + sequence * channels * state + tile, here_tile, 0.0)
    for i in range(end - begin):
        chunk = begin + i
        if reverse:
            chunk = end - 1 - i
        at = local + chunk * channels * state + tile
        own = tl.load(at, here_tile, 0.0)
        steps = tl.load(total + chunk * channels + d, here, 0.0)
        tl.store(at, h, here_tile)
        h = h * tl.exp2(a * steps[:, None]) + own
    tl.store(last + sequence * channels * state + tile, h, here_tile)


@triton.jit
def write_chunks(
    u, delta, A, B, C, skip, z, bias, mask, table, entries, y,
    u_b, u_t, u_c, dt_b, dt_t, dt_c, z_b, z_t, z_c, B_b, B_t, B_g, B_n, C_b, C_t, C_g, C_n,
    length, channels, state, per_group,
    N: tl.constexpr, T: tl.constexpr, BD: tl.constexpr, has_mask: tl.constexpr, has_z: tl.constexpr,
    softplus: tl.constexpr,
):  # fmt: skip
    """Store the outputs of every chunk, starting from its entry state."""
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
    dv = tl.load(skip + d, here, 0.0)
    h = tl.load(entries + chunk * channels * state + tile, here_tile, 0.0)
    for i in range(T):
        t = start + i
        inside = here & ((t + d * 0) < stop)
        dl = load_step(delta, mask, shift, dt_b, dt_t, dt_c, row, t, length, d, inside, has_mask, softplus)
        x = tl.load(u + row * u_b + t * u_t + d * u_c, inside, 0.0).to(a.dtype)
        at_step = (n < state) & ((t + n * 0) < stop)
        b = tl.load(B + row * B_b + t * B_t + group * B_g + n * B_n, at_step, 0.0)
        c = tl.load(C + row * C_b + t * C_t + group * C_g + n * C_n, at_step, 0.0)
        h = tl.exp2(a * dl[:, None]) * h + (dl * x)[:, None] * b.to(a.dtype)[None, :]
        out = tl.sum(h * c.to(a.dtype)[None, :], 1) + dv * x
        if has_z:
            g = tl.load(z + row * z_b + t * z_t + d * z_c, inside, 0.0).to(a.dtype)
            out = out * g / (1.0 + tl.exp(-g))
        tl.store(y + (row * length + t) * channels + d, out.to(y.dtype.element_ty), inside)
