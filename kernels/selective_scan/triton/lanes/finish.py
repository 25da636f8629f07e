"""The kernel that adds the parts of gradients, each sum in one fixed order."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false
# pyright: reportInvalidTypeForm=false
# ruff: noqa: RUF005
# (a kernel's arguments and launch are not what Python's types say; its compiler unpacks no tuple, so they grow by +)
import triton
import triton.language as tl

from ..entry import kernel
from .layout import channel_of, place_in_tile

ROWS, SUMS = tl.constexpr(16), tl.constexpr(8)
"""Steps whose dB and dC a program adds; running sums over chunks, so that as many loads are under way."""


@kernel
def finish(
    parts_BC, parts_A, parts_D, parts_bias, dB, dC, dA, dD, dbias, rows: tl.int64, chunks: tl.int32,
    programs: tl.int32, kind: tl.constexpr,
):  # fmt: skip
    """Add the parts of dB and dC over warps of channels, in the first `programs`; in the rest those over chunks."""
    program = tl.program_id(0)
    if program < programs:
        group = program % kind.groups
        at = (program // kind.groups).to(tl.int64) * (ROWS * 32) + tl.arange(0, ROWS * 32)
        inside = at < rows * 32
        total = tl.full([ROWS * 32], 0, tl.float32)
        WARPS: tl.constexpr = kind.group_blocks * kind.warps
        for p in tl.static_range(WARPS):
            part = (group * WARPS + p).to(tl.int64) * rows * 32
            total += tl.load(parts_BC + part + at, inside, 0.0)
        state = at % 16
        to = (at // 32 * kind.groups + group) * kind.states + state
        inside = inside & (state < kind.states)
        tl.store(dB + to, total.to(dB.dtype.element_ty), inside & (at % 32 < 16))
        tl.store(dC + to, total.to(dC.dtype.element_ty), inside & (at % 32 >= 16))
    else:
        add_chunks(parts_A, parts_D, parts_bias, dA, dD, dbias, chunks, program - programs, kind)


@triton.jit
def add_chunks(parts_A, parts_D, parts_bias, dA, dD, dbias, chunks, program, kind: tl.constexpr):
    """Add a vector of dA's, dD's or dbias' parts over chunks."""
    vectors: tl.constexpr = kind.tile // kind.threads
    vector, block = program % (vectors + 2), program // (vectors + 2)
    first, before = block % kind.group_blocks * kind.threads, block // kind.group_blocks * kind.per_group
    thread = tl.arange(0, kind.threads)
    if vector < vectors:
        within = vector * kind.threads + thread
        d, state, _owner = place_in_tile(within, first, kind)
        total = sum_chunks(parts_A + block * kind.tile + within, chunks, kind.blocks * kind.tile)
        here = (d < kind.per_group) & (state < kind.states)
        tl.store(dA + (before + d) * kind.states + state, total, here)
    else:
        d = channel_of(first, 0, kind)
        at = block * kind.threads + thread
        if vector == vectors:
            total = sum_chunks(parts_D + at, chunks, kind.blocks * kind.threads)
            tl.store(dD + before + d, total, d < kind.per_group)
        else:
            total = sum_chunks(parts_bias + at, chunks, kind.blocks * kind.threads)
            tl.store(dbias + before + d, total, d < kind.per_group)


@triton.jit
def sum_chunks(p, count, stride: tl.constexpr):
    """Return the sum of `count` values `stride` apart, by SUMS running sums."""
    lane = tl.full([p.shape[0]], 0, tl.int32)
    sums = ()
    for r in tl.static_range(SUMS):
        sums = sums + (tl.load(p + r * stride, r + lane < count, 0.0),)
    for i in range(SUMS, count, SUMS):
        more = ()
        for r in tl.static_range(SUMS):
            c = count * 0 + i + r
            more = more + (sums[r] + tl.load(p + c.to(tl.int64) * stride, c + lane < count, 0.0),)
        sums = more
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]))
