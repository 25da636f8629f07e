"""Which channels and states a lane holds, how lanes hand values to each other, and states in memory.

A warp's lane is numbered 4 i + k. Its four registers of states are those of quarter k, and four lanes, k = 0 to 3,
together hold the 16 states of each of their four channels. Register j of channels is the warp's channel
8 (j ^ k) + i, so register 0 of every lane is another channel: the lane *owns* it. What belongs to a channel alone
(step size, gate, loads and stores) is computed by its owner and handed out with three shuffles; a sum over states
is gathered into the owner with three.

Register m of states is state 4 k + (m ^ (i % 4)): with the states in this order a sum over the eight channel lanes is
a butterfly, in which a lane sends what it no longer needs, without any selection.

States in memory (saved ones, chunk summaries, parts of dA) lie as registers do, four neighbours a lane.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false
# ruff: noqa: RUF005
# (a kernel's arguments and launch are not what Python's types say; its compiler unpacks no tuple, so they grow by +)
import triton
import triton.language as tl

from .kind import CHANNELS as _CHANNELS
from .kind import STATES as _STATES
from .memory import from_lane, load, load_four, store, store_four

CHANNELS, STATES = tl.constexpr(_CHANNELS), tl.constexpr(_STATES)


@triton.jit
def channel_of(first, j: tl.constexpr, kind: tl.constexpr):
    """Return, for every lane, the channel within its group of register j; `first` is the program's first one."""
    thread = tl.arange(0, kind.threads)
    k, i = thread % 4, thread % 32 // 4
    return first + thread // 32 * 32 + 8 * (j ^ k) + i


@triton.jit
def state_of(m: tl.constexpr, kind: tl.constexpr):
    """Return, for every lane, the state of register m."""
    thread = tl.arange(0, kind.threads)
    return 4 * (thread % 4) + (m ^ (thread % 16 // 4))


@triton.jit
def hand_out(x):
    """Hand an owner's value to the lanes of its channel: one value for each register of channels."""
    return x, from_lane(x, 1), from_lane(x, 2), from_lane(x, 3)


@triton.jit
def gather(x):
    """Return to every owner the sum of what its four lanes hold for its channel."""
    low, high = x[0] + from_lane(x[2], 2), x[1] + from_lane(x[3], 2)
    return low + from_lane(high, 1)


@triton.jit
def over_channels(b, c, kind: tl.constexpr):
    """Return one of the warp's 32 sums over channels to every lane (`sum_place` says which), given their parts.

    Each of three exchanges halves the registers: 7 shuffles for the 8 values a lane of dB and dC.
    """
    b0, b1 = b[0] + from_lane(b[2], 8), b[1] + from_lane(b[3], 8)
    c0, c1 = c[0] + from_lane(c[2], 8), c[1] + from_lane(c[3], 8)
    b0, c0 = b0 + from_lane(b1, 4), c0 + from_lane(c1, 4)
    upper = tl.arange(0, kind.threads) % 32 >= 16
    return tl.where(upper, c0, b0) + from_lane(tl.where(upper, b0, c0), 16)


@triton.jit
def sum_place(kind: tl.constexpr):
    """Return where a lane's sum stands among its warp's: 16 states of dB, then 16 of dC."""
    thread = tl.arange(0, kind.threads)
    return thread % 32 // 16 * 16 + state_of(0, kind)


@triton.jit
def no_states(kind: tl.constexpr):
    """Return zero for every register of channels and states."""
    h = ()
    for _ in tl.static_range(CHANNELS * STATES):
        h = h + (tl.full([kind.threads], 0, tl.float32),)
    return h


@triton.jit
def load_tile(p, kind: tl.constexpr, EARLY: tl.constexpr):
    """Return the states that lie at p as registers do."""
    h = ()
    thread = tl.arange(0, kind.threads)
    for j in tl.static_range(CHANNELS):
        x0, x1, x2, x3 = load_four(p, (j * kind.threads + thread) * STATES, EARLY)
        h = h + (x0, x1, x2, x3)
    return h


@triton.jit
def store_tile(p, h, kind: tl.constexpr):
    """Store states at p as registers do."""
    thread = tl.arange(0, kind.threads)
    for j in tl.static_range(CHANNELS):
        at = (j * kind.threads + thread) * STATES
        store_four(p, at, h[j * STATES], h[j * STATES + 1], h[j * STATES + 2], h[j * STATES + 3])


@triton.jit
def place_in_tile(at, first, kind: tl.constexpr):
    """Return channel (within its group), state and owning thread of the value at place `at` of a tile."""
    j, thread, m = at // (STATES * kind.threads), at // STATES % kind.threads, at % STATES
    k, i = thread % 4, thread % 32 // 4
    channel = first + thread // 32 * 32 + 8 * (j ^ k) + i
    return channel, 4 * k + (m ^ (i % 4)), thread ^ j


@triton.jit
def load_states(p, lanes, kind: tl.constexpr):
    """Return the states that lie at p as (channels, state) do, zero where there is none."""
    h = ()
    first, group = lanes[0], lanes[1]
    for j in tl.static_range(CHANNELS):
        d = channel_of(first, j, kind)
        inside = tl.minimum(d, kind.per_group - 1)
        for m in tl.static_range(STATES):
            n = state_of(m, kind)
            at = (group * kind.per_group + inside) * kind.states + tl.minimum(n, kind.states - 1)
            x = load(p, at, 0, True)
            h = h + (tl.where((d < kind.per_group) & (n < kind.states), x, 0.0),)
    return h


@triton.jit
def store_states(p, h, lanes, kind: tl.constexpr):
    """Store states at p as (channels, state)."""
    first, group = lanes[0], lanes[1]
    for j in tl.static_range(CHANNELS):
        d = channel_of(first, j, kind)
        for m in tl.static_range(STATES):
            n = state_of(m, kind)
            at = (group * kind.per_group + d) * kind.states + n
            store(p, at, 0, h[j * STATES + m], (d < kind.per_group) & (n < kind.states))
