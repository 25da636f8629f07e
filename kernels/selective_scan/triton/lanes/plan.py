"""What is the same in every call of one kind: sizes, how sequences are cut into chunks, and compiled kernels."""

import functools
import operator
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from ...operands import ScanOperands
from ...remembered import made_of
from . import backward, carry, finish, forward
from .binaries import Binary, binary
from .kind import CHANNELS, STATES, Kind, half_of
from .readable import readable

THREADS = 128
"""Of a program, the most; a power of two."""

AT_ONCE = 4
"""Steps that a loop takes at once (`Kind.at_once`): what the registers of `differentiate` hold."""

FORWARD_PROGRAMS, BACKWARD_PROGRAMS = 4, 2
"""Programs of 128 threads for each multiprocessor: what their registers allow. A sequence is cut no further than that
(a cut costs a second run over its steps)."""

MOST_PLANS = 1024
"""Plans that are remembered (packs have a length of their own each)."""


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

    def __init__(self, x: ScanOperands) -> None:
        batch, self.length, channels = x.u.shape
        groups, states = x.B.shape[2:]
        self.sequences, self.rows = x.sequences, batch * self.length
        self.device, self.dtype = x.u.device, x.u.dtype
        threads = threads_for(channels // groups)
        pack = x.cu_seqlens is not None
        self.kind = Kind(
            per_group=channels // groups, groups=groups, states=states, threads=threads, at_once=AT_ONCE,
            softplus=x.delta_softplus, ragged=pack or self.length % half_of(AT_ONCE) != 0,
            u_step=x.u.stride(1), delta_step=x.delta.stride(1),
            z_step=0 if x.z is None else x.z.stride(1), B_step=x.B.stride(1), C_step=x.C.stride(1),
        )  # fmt: skip
        self.state_shape = (self.sequences, channels, states)
        self.saved_shape = saved_shape(x)
        u, delta, B, C = (t.stride(0) for t in (x.u, x.delta, x.B, x.C))
        groups_B, groups_C, z = x.B.stride(2), x.C.stride(2), 0 if x.z is None else x.z.stride(0)
        self.forward_rows, self.backward_rows = (
            (u, delta, B, groups_B, C, groups_C, z),
            (delta, C, groups_C, z),
        )
        if not pack:
            self.forward_chunks, self.backward_chunks = map(self._cut, (FORWARD_PROGRAMS, BACKWARD_PROGRAMS))
        self.summarize, self.write = (self._binary(f) for f in (forward.summarize, forward.write))
        self.carry, self.carry_back = (self._binary(carry.carry, reverse) for reverse in (False, True))
        self.finish = self._binary(finish.finish)
        kind = self.kind
        values = kind.tile // kind.threads
        self.carry_programs = self.sequences * kind.blocks * values
        self.finish_programs = ceil_div(self.rows, finish.ROWS.value) * groups, kind.blocks * (values + 2)
        self._backward: dict[int, tuple[Binary, Binary]] = {}
        self._parts: dict[int, tuple[int, ...]] = {}

    def _binary(self, function: Any, *constants: Any) -> Binary:
        return binary(function, self.dtype, self.device, self.kind, *constants)

    def backward_binaries(self, dy_step: int) -> tuple[Binary, Binary]:
        """Return the kernels that read the outputs' gradients, whose stride over steps may be another each time."""
        if dy_step not in self._backward:
            kind = replace(self.kind, dy_step=dy_step)
            self._backward[dy_step] = (
                binary(backward.summarize_back, self.dtype, self.device, kind),
                binary(backward.differentiate, self.dtype, self.device, kind),
            )
        return self._backward[dy_step]

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
        return made_of(cu_seqlens, _cut_pack, wanted, self.kind.saved_every, self.device)

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


def _cut_pack(bounds: tuple[int, ...], wanted: int, saved_every: int, device: torch.device) -> Chunks:
    """Return the chunks of a pack: lines of (start, steps, first saved state, sequence, is first, is last)."""
    steps = ceil_div(max(saved_every, bounds[-1] // wanted), saved_every) * saved_every
    lines, firsts, segment = [], [0], 0
    for sequence, (begin, end) in enumerate(pairwise(bounds)):
        for start in range(begin, end, steps):
            stop, at = min(start + steps, end), segment + (start - begin) // saved_every
            lines.append((start, stop - start, at, sequence, start == begin, stop == end))
        segment += ceil_div(end - begin, saved_every)
        firsts.append(len(lines))
    table = torch.tensor(lines, dtype=torch.int64).view(-1, 6).to(device)
    return Chunks(0, 0, len(lines), len(lines), table, torch.tensor(firsts).to(device))


def threads_for(per_group: int) -> int:
    """Return the threads of a program: as few without a channel as can be, and then as many as can be."""
    sizes = [32 << n for n in range((THREADS // 32).bit_length())]
    return min(sizes, key=lambda threads: (ceil_div(per_group, threads) * threads, -threads))


def saved_shape(x: ScanOperands) -> tuple[int, int]:
    """Return the shape of the states saved for the backward pass: of a pack, a bound that needs no look at it."""
    batch, length, channels = x.u.shape
    groups = x.B.shape[2]
    pack = x.cu_seqlens is not None
    every = 2 * half_of(AT_ONCE)
    segments = length // every + x.sequences if pack else batch * ceil_div(length, every)
    threads = threads_for(channels // groups)
    return segments, ceil_div(channels // groups, threads) * groups * threads * CHANNELS * STATES


_plans: dict[Any, tuple[Plan, bool]] = {}


def planned(x: ScanOperands) -> tuple[ScanOperands, Plan]:
    """Return operands as the kernels read them, and the plan of a call's kind."""
    u, delta, z, B, C, D, bias, state = x.u, x.delta, x.z, x.B, x.C, x.D, x.delta_bias, x.initial_state
    key = (
        u.shape, u.stride(), delta.stride(), None if z is None else z.stride(), B.shape, B.stride(), C.stride(),
        x.A.is_contiguous(), D is None or D.is_contiguous(), bias is None or bias.is_contiguous(),
        state is None or state.is_contiguous(), x.step_mask is None,
        u.dtype, u.device, x.delta_softplus, None if x.cu_seqlens is None else x.cu_seqlens.shape,
    )  # fmt: skip
    known = _plans.get(key)
    if known is None:
        if len(_plans) >= MOST_PLANS:
            _plans.clear()
        read = readable(x)
        known = _plans[key] = Plan(read), all(map(operator.is_, read, x))
    plan, as_they_are = known
    return (x if as_they_are else readable(x)), plan
