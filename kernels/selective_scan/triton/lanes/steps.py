"""A program's place, and the operands of its steps."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false
# ruff: noqa: RUF005
# (a kernel's arguments and launch are not what Python's types say; its compiler unpacks no tuple, so they grow by +)
import triton
import triton.language as tl

from ..common import LOG2E, exp_minus, log1p_unit
from .kind import MOST_STATES as _MOST_STATES
from .layout import CHANNELS, STATES, channel_of, gather, load_states, state_of
from .memory import load, reciprocal

MOST_STATES = tl.constexpr(_MOST_STATES)


@triton.jit
def place_of(table, length, chunk, per_row, LEFT_OUT: tl.constexpr, kind: tl.constexpr):
    """Return the program's chunk, and its lanes.

    The chunk: where its tile stands among those of all programs, batch row, first step, steps, first saved state,
    sequence, whether it is the sequence's first and its last. The lanes: the first channel's number within its group,
    the group, each owner's channel among all, which owners have one. LEFT_OUT: which chunk of a row has no program,
    the last (1), the first (-1) or none.

    Without a table (a pack's), chunks are `chunk` steps long, `per_row` in each row.
    """
    program = tl.program_id(0)
    block, counted = program % kind.blocks, program // kind.blocks
    if table is None:
        programs = per_row if LEFT_OUT == 0 else per_row - 1
        row, c = counted // programs, counted % programs
        if LEFT_OUT == -1:
            c += 1
        slot, start = row * per_row + c, c * chunk
        n = tl.minimum(chunk, length - start)
        row = row.to(tl.int64)
        segment = row * tl.cdiv(length, kind.saved_every) + start // kind.saved_every
        sequence, is_first, is_last = row, c == 0, c == per_row - 1
    else:
        slot = counted
        line = table + counted.to(tl.int64) * 6
        start, segment, sequence = tl.load(line), tl.load(line + 2), tl.load(line + 3)
        n = tl.load(line + 1).to(tl.int32)
        is_first, is_last = tl.load(line + 4) != 0, tl.load(line + 5) != 0
        row = sequence * 0
    group, first = block // kind.group_blocks, block % kind.group_blocks * kind.threads
    d = channel_of(first, 0, kind)
    owner = group * kind.per_group + tl.minimum(d, kind.per_group - 1)
    tile = slot.to(tl.int64) * kind.blocks + block
    return (
        (tile, row, start.to(tl.int64), n, segment, sequence, is_first, is_last),
        (first, group, owner, d < kind.per_group, block),
    )  # fmt: skip


@triton.jit
def rates_of(A, lanes, kind: tl.constexpr):
    """Return A log2(e): a decay is then a power of two, one instruction."""
    a = ()
    plain = load_states(A, lanes, kind)
    for j in tl.static_range(CHANNELS * STATES):
        a = a + (plain[j] * LOG2E,)
    return a


@triton.jit
def of_owners(p, lanes, kind: tl.constexpr):
    """Return each owner's value of a vector over channels, zeros where there is none."""
    if p is None:
        return tl.full([kind.threads], 0, tl.float32)
    else:
        return load(p, lanes[2], 0, True)


@triton.jit
def activation(x, row_stride, step: tl.constexpr, place, lanes):
    """Return the address of an activation at the chunk's first step, None where there is none."""
    where = None
    if x is not None:
        where = (x + (place[1] * row_stride + place[2] * step), lanes[2])
    return where


@triton.jit
def projection(x, row_stride, group_stride, step: tl.constexpr, place, lanes):
    """Return the base of B or C at the chunk's first step."""
    return x + (place[1] * row_stride + place[2] * step + lanes[1] * group_stride)


@triton.jit
def mask_of(mask, place, length):
    """Return the address of the mask at the chunk's first step, None where there is none."""
    at = None
    if mask is not None:
        at = mask + place[1] * length + place[2]
    return at


@triton.jit
def load_owned(x, at, r: tl.constexpr, n, step: tl.constexpr, kind: tl.constexpr, EARLY: tl.constexpr = True):
    """Return an activation at step at + r of a chunk of n: past its end, what the last step has."""
    if kind.ragged:
        return load(x[0] + tl.minimum(at + r, n - 1).to(tl.int64) * step, x[1], 0, EARLY)
    else:
        return load(x[0] + at.to(tl.int64) * step, x[1], r * step, EARLY)


@triton.jit
def load_owned_steps(x, at, n, step: tl.constexpr, kind: tl.constexpr):
    """Return an activation at the next `kind.at_once` steps; nothing where there is none."""
    values = ()
    AT_ONCE: tl.constexpr = kind.at_once
    if x is not None:
        for r in tl.static_range(AT_ONCE):
            values = values + (load_owned(x, at, r, n, step, kind),)
    return values


@triton.jit
def load_projection(
    x, at, r: tl.constexpr, n, step: tl.constexpr, kind: tl.constexpr, EARLY: tl.constexpr = True
):
    """Return B or C at step at + r, a value for each register of states (zero past the last state)."""
    values = ()
    for m in tl.static_range(STATES):
        state = state_of(m, kind)
        place = (x, tl.minimum(state, kind.states - 1) if kind.states < MOST_STATES else state)
        value = load_owned(place, at, r, n, step, kind, EARLY)
        if kind.states < MOST_STATES:
            value = tl.where(state < kind.states, value, 0.0)
        values = values + (value,)
    return values


@triton.jit
def load_projection_steps(x, at, n, step: tl.constexpr, kind: tl.constexpr):
    """Return B or C at the next `kind.at_once` steps, one tuple a step."""
    values = ()
    AT_ONCE: tl.constexpr = kind.at_once
    for r in tl.static_range(AT_ONCE):
        values = values + (load_projection(x, at, r, n, step, kind),)
    return values


@triton.jit
def next_steps(at, n, kind: tl.constexpr):
    """Return where the steps after those at `at` begin; at the end, some that exist."""
    if kind.ragged:
        return at + kind.at_once
    else:
        return tl.minimum(at + kind.at_once, n - kind.at_once)


@triton.jit
def existing(at, r: tl.constexpr, n, here, kind: tl.constexpr):
    """Return which owners have a step at + r, None for all."""
    inside = None
    if kind.ragged:
        inside = here & ((at + r) < n)
    elif kind.partial:
        inside = here
    return inside


@triton.jit
def step_size(raw, shift, mask, at, r: tl.constexpr, n, here, kind: tl.constexpr):
    """Return the step size that the recurrence uses, and its slope by delta; both zero where no step is taken."""
    x = raw + shift
    slope = x * 0.0 + 1.0
    if kind.softplus:
        e = exp_minus(tl.abs(x))
        slope = tl.where(x < 0, e, 1.0) * reciprocal(1.0 + e)
        x = tl.maximum(x, 0.0) + log1p_unit(e)
    real = existing(at, r, n, here, kind)
    if mask is not None:
        step = tl.minimum(at + r, n - 1) if kind.ragged else at + r
        taken = here & (tl.load(mask + step) != 0)
        real = taken if real is None else real & taken
    if real is not None:
        x, slope = tl.where(real, x, 0.0), tl.where(real, slope, 0.0)
    return x, slope


@triton.jit
def gate_of(z):
    """Return SiLU(z), and its slope."""
    sigmoid = reciprocal(1.0 + tl.exp2(-z * LOG2E))
    return z * sigmoid, sigmoid * (1.0 + z * (1.0 - sigmoid))


@triton.jit
def advance(h, a, dl, v, b):
    """Return the states after a step, and its decays; dl and v (step size, and it times u) are handed out."""
    after, decays = (), ()
    for j in tl.static_range(CHANNELS):
        for m in tl.static_range(STATES):
            decay = tl.exp2(a[j * STATES + m] * dl[j])
            decays = decays + (decay,)
            after = after + (decay * h[j * STATES + m] + v[j] * b[m],)
    return after, decays


@triton.jit
def read_out(h, c):
    """Return to every owner the sum over states of C h."""
    sums = ()
    for j in tl.static_range(CHANNELS):
        s = h[j * STATES] * c[0]
        for m in tl.static_range(1, STATES):
            s += h[j * STATES + m] * c[m]
        sums = sums + (s,)
    return gather(sums)
