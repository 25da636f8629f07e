"""What the Triton kernels share: a program's place, and the operands of one step.

An activation comes to a kernel as a tuple (data, strides of batch, time and channel), B and C as (data, strides of
batch, time, group and state): any layout is read in place. Absent operands are None, and cost nothing.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportAssignmentType=false, reportCallIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false
# (a kernel's arguments and launch are not what Python's types say)
import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def chunk_of_program(table, blocks):
    """Return the program's block of channels and its chunk: number, batch row, first step and end.

    All programs lie along the first axis of the grid, the blocks of a chunk side by side (they read the same B and
    C): the other axes end at 65535 programs, fewer than a large batch has chunks.
    """
    program = tl.program_id(0)
    chunk = (program // blocks).to(tl.int64)
    line = table + chunk * 5
    return program % blocks, chunk, tl.load(line), tl.load(line + 1), tl.load(line + 2)


@triton.jit
def place_of_program(table, channels, state, per_group, N: tl.constexpr, BD: tl.constexpr):
    """Return a scan program's chunk, block within its group, (row, start, stop, group), channels and state tile.

    The channels are (numbers, which exist), the tile (offsets, which exist, which states exist); no program has
    channels of two groups.
    """
    per_row = tl.cdiv(per_group, BD)
    block, chunk, row, start, stop = chunk_of_program(table, channels // per_group * per_row)
    group, block = block // per_row, block % per_row
    within, n = block * BD + tl.arange(0, BD), tl.arange(0, N)
    here, exists = within < per_group, n < state
    d = group * per_group + within
    tile = d[:, None] * state + n[None, :]
    return (
        chunk, block.to(tl.int64), (row, start, stop, group), (d, here),
        (tile, here[:, None] & exists[None, :], exists),
    )  # fmt: skip


@triton.jit
def load_channels(x, row, t, d, inside, like):
    """Return the channels `d` of activation `x` at step `t`, zero outside, in the dtype of `like`."""
    return tl.load(x[0] + row * x[1] + t * x[2] + d * x[3], inside, 0.0).to(like.dtype)


@triton.jit
def load_states(x, place, t, exists, like):
    """Return the states of projection `x` (B or C) at step `t`, zero past the chunk's end."""
    n = tl.arange(0, exists.shape[0])
    at = x[0] + place[0] * x[1] + t * x[2] + place[3] * x[3] + n * x[4]
    return tl.load(at, exists & ((t + n * 0) < place[2]), 0.0).to(like.dtype)


@triton.jit
def exp_minus(x):
    """Return exp(-x) for x >= 0, as good relatively far out as near 0.

    exp2(-x log2(e)) is not: at x = 80 the product has lost 7 bits of its fraction. ln(2) in two parts, the first
    short enough that k times it is exact, loses none.
    """
    x = tl.where(x > 700.0, 700.0, x)
    k = tl.floor(x * LOG2E + 0.5)
    rest = k * 0.693359375 - x - k * 2.1219444005469057e-4
    return tl.exp2(rest * LOG2E) * tl.exp2(-k)


@triton.jit
def log1p_unit(e):
    """Return log(1 + e) for 0 <= e <= 1, small arguments with their whole relative accuracy.

    In float32 as e times the polynomial that passes through log(1 + e) / e at ten Chebyshev nodes of [0, 1]: it holds
    the fewest registers. In float64 as 2 artanh(e / (2 + e)), whose seventeen terms reach the last bit.
    """
    if e.dtype == tl.float64:
        s2 = e / (2.0 + e) * (e / (2.0 + e))
        p = s2 * 0.0
        for i in tl.static_range(17):
            p = p * s2 + 2.0 / (33 - 2 * i)
        return p * e / (2.0 + e)
    p = 0.019542526 - 0.003176057 * e
    p = 0.10543624 + e * (p * e - 0.05637361)
    p = 0.19663274 + e * (p * e - 0.15269667)
    p = 0.3332971 + e * (p * e - 0.24951616)
    return e * (1.0 + e * (p * e - 0.49999893))


@triton.jit
def load_step(delta, mask, shift, place, t, length, lanes, softplus: tl.constexpr):
    """Return the step sizes of the channels at step `t`, their slopes by delta, and which of them exist.

    Bias, softplus, then zero where the step is masked or past the chunk's end.
    """
    row, stop = place[0], place[2]
    d, here = lanes
    inside = here & ((t + d * 0) < stop)
    x = load_channels(delta, row, t, d, inside, shift) + shift
    real = inside
    if mask is not None:
        real = inside & (tl.load(mask + row * length + t + d * 0, inside, 0) != 0)
    slope = x * 0.0 + 1.0
    if softplus:
        e = exp_minus(tl.abs(x))
        slope = tl.where(x < 0, e, 1.0) / (1.0 + e)
        x = tl.maximum(x, 0.0) + log1p_unit(e)
    return tl.where(real, x, 0.0), tl.where(real, slope, 0.0), inside


@triton.jit
def load_gate(z, row, t, d, inside, like):
    """Return SiLU(z) and its slope."""
    x = load_channels(z, row, t, d, inside, like)
    sigmoid = 1.0 / (1.0 + tl.exp(-x))
    return x * sigmoid, sigmoid * (1.0 + x * (1.0 - sigmoid))


@triton.jit
def advance(h, a, u, delta, B, mask, shift, place, t, length, lanes, exists, softplus: tl.constexpr):
    """Return the state after step `t`, the step sizes, the inputs and which channels exist; past the end it stands."""
    dl, _slope, inside = load_step(delta, mask, shift, place, t, length, lanes, softplus)
    x = load_channels(u, place[0], t, lanes[0], inside, a)
    b = load_states(B, place, t, exists, a)
    return tl.exp2(a * dl[:, None]) * h + (dl * x)[:, None] * b[None, :], dl, x, inside
