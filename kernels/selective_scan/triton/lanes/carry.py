"""The kernel that carries states, or in reverse adjoints, over the chunks of a sequence."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false
# pyright: reportInvalidTypeForm=false
# ruff: noqa: RUF005
# (a kernel's arguments and launch are not what Python's types say; its compiler unpacks no tuple, so they grow by +)
import triton.language as tl

from ..common import LOG2E
from ..entry import kernel
from .layout import place_in_tile

AHEAD = tl.constexpr(16)
"""Chunks that are read before the first of them is used: a read takes as long as a hundred steps of the carry."""


@kernel
def carry(local, total, A, first, last, bounds, per_row: tl.int32, REVERSE: tl.constexpr, kind: tl.constexpr):
    """Carry the first state over a sequence's chunks (in reverse the last adjoint); `local` becomes what enters each.

    A program carries as many values of a tile as it has threads. `last` becomes what `first` is where a sequence has
    no chunk; elsewhere the kernel that comes next knows it, after its last step.
    """
    program = tl.program_id(0)
    parts: tl.constexpr = kind.tile // kind.threads
    part, block = program % parts, program // parts % kind.blocks
    sequence = (program // (parts * kind.blocks)).to(tl.int64)
    within = part * kind.threads + tl.arange(0, kind.threads)
    d, state, owner = place_in_tile(within, block % kind.group_blocks * kind.threads, kind)
    here = (d < kind.per_group) & (state < kind.states)
    plain = (block // kind.group_blocks * kind.per_group + d) * kind.states + state
    if bounds is None:
        begin, end = sequence * per_row, (sequence + 1) * per_row
    else:
        begin, end = tl.load(bounds + sequence), tl.load(bounds + sequence + 1)
    count = (end - begin).to(tl.int32)
    a = tl.load(A + plain, here, 0.0) * LOG2E
    own = sequence * (kind.channels * kind.states) + plain
    h = tl.full([kind.threads], 0, tl.float32)
    if first is not None:
        h = tl.load(first + own, here, 0.0)
    for c in range(0, count, AHEAD):
        states, steps = (), ()
        for r in tl.static_range(AHEAD):
            at = tl.minimum(c + r, count - 1)
            tile = (end - 1 - at if REVERSE else begin + at) * kind.blocks + block
            states = states + (tl.load(local + tile * kind.tile + within),)
            steps = steps + (tl.load(total + tile * kind.threads + owner),)
        for r in tl.static_range(AHEAD):
            tile = (end - 1 - (c + r) if REVERSE else begin + (c + r)) * kind.blocks + block
            tl.store(local + tile * kind.tile + within, h, (within * 0 + c + r) < count)
            h = h * tl.exp2(a * steps[r]) + states[r]
    if count == 0:
        tl.store(last + own, h, here)
