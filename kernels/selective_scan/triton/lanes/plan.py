"""What is the same in every call of one kind: sizes, how sequences are cut into chunks, and compiled kernels."""

import functools
import operator
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from ...operands import ScanInputs, time_major_strides
from ...remembered import made_of, sent_to
from ..binaries import Binary, Kernels, binary
from ..readable import mask_bytes, readable
from . import backward, carry, finish, forward
from .kind import CHANNELS, STATES, Kind, half_of, segment_of

THREADS = 128
"""Of a program, the most; a power of two."""

AT_ONCE = 4
"""Steps that a loop takes at once (`Kind.at_once`): what the registers of `differentiate` hold."""

FORWARD_PROGRAMS, BACKWARD_PROGRAMS = 4, 2
"""Programs of 128 threads for each multiprocessor: what their registers allow. A sequence is cut no further than that
(a cut costs a second run over its steps)."""


MOST_PLANS = 64
"""Plans that are remembered of one kind of call: strides may be others in every call."""


def ceil_div(a: int, b: int) -> int:
    """Return a / b, rounded up."""
    return -(-a // b)


@functools.cache
def processors(device: torch.device) -> int:
    """Return the card's multiprocessors; for the interpreter a few, so that short sequences are cut too."""
    if device.type != "cuda":
        return 2
    return torch.cuda.get_device_properties(device).multi_processor_count


@dataclass(frozen=True, slots=True)
class Chunks:
    """How sequences are cut.

    Attributes
    ----------
    steps, per_row : of a chunk, and chunks of each row; without meaning for a pack
    count : chunks of all sequences
    summarized : those of them whose summaries somebody needs; 0 where no sequence is cut
    table, bounds : a pack's chunks, and each sequence's first one
    """

    steps: int
    per_row: int
    count: int
    summarized: int
    table: Tensor | None = None
    bounds: Tensor | None = None


class Plan:
    """One kind of call: shapes, strides, dtypes and which operands are there."""

    def __init__(self, x: ScanInputs) -> None:
        batch, channels, self.length = x.u.shape
        groups, states = x.groups, x.A.shape[1]
        self.sequences, self.rows = x.sequences, batch * self.length
        self.device, self.dtype = x.u.device, x.u.dtype
        threads = threads_for(channels // groups)
        pack = x.cu_seqlens is not None
        self.kind = Kind(
            per_group=channels // groups, groups=groups, states=states, threads=threads, at_once=AT_ONCE,
            softplus=x.delta_softplus, ragged=pack or self.length % half_of(AT_ONCE) != 0,
            u_step=x.u.stride(2), delta_step=x.delta.stride(2),
            z_step=0 if x.z is None else x.z.stride(2), B_step=x.B.stride(-1), C_step=x.C.stride(-1),
        )  # fmt: skip
        self.activation = x.u.shape, time_major_strides(x.u.shape)
        self.projection = x.B.shape, time_major_strides(x.B.shape)
        self.state_shape = (self.sequences, channels, states)
        self.saved_shape = saved_shape(x)
        u, delta, B, C = (t.stride(0) for t in (x.u, x.delta, x.B, x.C))
        groups_B, groups_C = (0 if t.dim() == 3 else t.stride(1) for t in (x.B, x.C))
        z = 0 if x.z is None else x.z.stride(0)
        self.summarized_rows = u, delta, B, groups_B
        self.forward_rows, self.backward_rows = (
            (*self.summarized_rows, C, groups_C, z),
            (delta, C, groups_C, z),
        )
        if not pack:
            self.forward_chunks, self.backward_chunks = map(self._cut, (FORWARD_PROGRAMS, BACKWARD_PROGRAMS))
        kind = self.kind
        values = kind.tile // kind.threads
        self.carry_programs = self.sequences * kind.blocks * values
        self.finish_programs = ceil_div(self.rows, finish.ROWS.value) * groups, kind.blocks * (values + 2)
        self._made_for = (self.dtype, self.device, *[t is not None for t in x[:11]])
        self._forward: dict[bool, Kernels] = {}
        self._backward: dict[tuple[int, bool], Kernels] = {}
        self._parts: dict[int, tuple[int, ...]] = {}

    def forward_kernels(self, *, cut: bool, save: bool) -> Kernels:
        """Return the kernels that summarize chunks and carry over them, where sequences are cut, and that write.

        Whether they are cut is the same in all calls of a plan: of rows always, and a pack's count as cut.
        """
        if save not in self._forward:
            of = partial(self._binary, self.kind, (cut, save))
            between = (of(forward.summarize), of(carry.carry, False)) if cut else ()
            self._forward[save] = Kernels(self.device, *between, of(forward.write))
        return self._forward[save]

    def backward_kernels(self, *, cut: bool, dy_step: int, last: bool) -> Kernels:
        """Return the kernels that summarize and carry back, where sequences are cut, that differentiate, and add.

        The outputs' gradients may have another stride over steps in each call, and the last state none.
        """
        key = dy_step, last
        if key not in self._backward:
            of, by_dy = (
                partial(self._binary, kind, (cut, last))
                for kind in (self.kind, replace(self.kind, dy_step=dy_step))
            )
            between = (by_dy(backward.summarize_back), of(carry.carry, True)) if cut else ()
            self._backward[key] = Kernels(
                self.device, *between, by_dy(backward.differentiate), of(finish.finish)
            )
        return self._backward[key]

    def _binary(self, kind: Kind, present: tuple[bool, ...], function: Any, *constants: Any) -> Binary:
        """Return a kernel of a pass: `present` says which operands there are beside the plan's own."""
        return binary(function, (*self._made_for, *present), kind.warps, *constants, kind)

    def _wanted(self, programs: int) -> int:
        """Return how many chunks fill the card."""
        return max(1, processors(self.device) * programs * THREADS // self.kind.threads // self.kind.blocks)

    def _cut(self, programs: int) -> Chunks:
        saved_every = self.kind.saved_every
        each = max(1, self._wanted(programs) // max(1, self.sequences))
        each = min(each, max(1, ceil_div(self.length, saved_every)))
        steps = max(1, ceil_div(ceil_div(self.length, each), saved_every)) * saved_every
        per_row = ceil_div(self.length, steps)
        return Chunks(steps, per_row, self.sequences * per_row, self.sequences * max(0, per_row - 1))

    def chunks(self, cu_seqlens: Tensor | None, *, backward: bool) -> Chunks:
        """Return the chunks of a call; of a pack, made once for its bounds."""
        if cu_seqlens is None:
            return self.backward_chunks if backward else self.forward_chunks
        wanted = self._wanted(BACKWARD_PROGRAMS if backward else FORWARD_PROGRAMS)
        return made_of(cu_seqlens, _cut_pack, self.device, wanted, self.kind.saved_every)

    def parts(self, chunks: int) -> tuple[int, ...]:
        """Return where the parts of dA, decays, dD, dbias, dB with dC begin in one allocation, and where it ends."""
        parts = self._parts.get(chunks)
        if parts is None:
            kind, tiles = self.kind, chunks * self.kind.blocks
            sizes = (
                tiles * kind.tile,
                *[tiles * kind.threads] * 3,
                kind.blocks * kind.warps * self.rows * 32,
            )
            parts = self._parts[chunks] = tuple(accumulate(sizes, initial=0))
        return parts


def _cut_pack(bounds: tuple[int, ...], device: torch.device, wanted: int, saved_every: int) -> Chunks:
    """Return the chunks of a pack: lines of (start, steps, first saved state, sequence, is first, is last)."""
    steps = ceil_div(max(saved_every, bounds[-1] // wanted), saved_every) * saved_every
    lines, firsts, segment = [], [0], 0
    for sequence, (begin, end) in enumerate(pairwise(bounds)):
        for start in range(begin, end, steps):
            stop, at = min(start + steps, end), segment + (start - begin) // saved_every
            lines.append((start, stop - start, at, sequence, start == begin, stop == end))
        segment += ceil_div(end - begin, saved_every)
        firsts.append(len(lines))
    table = torch.tensor(lines, dtype=torch.int64).view(-1, 6)
    return Chunks(0, 0, len(lines), len(lines), sent_to(device, table), sent_to(device, torch.tensor(firsts)))


def threads_for(per_group: int) -> int:
    """Return the threads of a program: as few without a channel as can be, and then as many as can be."""
    sizes = [32 << n for n in range((THREADS // 32).bit_length())]
    return min(sizes, key=lambda threads: (ceil_div(per_group, threads) * threads, -threads))


def saved_shape(x: ScanInputs) -> tuple[int, int]:
    """Return the shape of the states saved for the backward pass: of a pack, a bound that needs no look at it."""
    batch, channels, length = x.u.shape
    groups = x.groups
    pack = x.cu_seqlens is not None
    every = segment_of(AT_ONCE)
    segments = length // every + x.sequences if pack else batch * ceil_div(length, every)
    threads = threads_for(channels // groups)
    return segments, ceil_div(channels // groups, threads) * groups * threads * CHANNELS * STATES


def planned(x: ScanInputs) -> tuple[ScanInputs, Plan]:
    """Return inputs as the kernels read them, and the plan of a call's kind and strides."""
    made = {} if x.made is None else x.made
    key = x.delta_softplus, *[None if t is None else t.stride() for t in x[:10]]
    known = made.get(key)
    if known is None:
        if len(made) >= MOST_PLANS:
            made.clear()
        read = readable(x)
        known = made[key] = Plan(read), all(map(operator.is_, read[:9], x))
    plan, as_they_are = known
    if not as_they_are:
        return readable(x), plan
    return (x if x.step_mask is None else x._replace(step_mask=mask_bytes(x.step_mask))), plan
