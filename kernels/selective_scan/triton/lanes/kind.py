"""What a binary of these kernels depends on, and nothing else: one compile-time constant of every kernel."""

from dataclasses import dataclass
from functools import cached_property

CHANNELS, STATES = 4, 4
"""Registers of channels and of states of a thread: four lanes share the 16 states of each of their four channels."""

MOST_STATES = 16


def half_of(at_once: int) -> int:
    """Return the steps of half a segment."""
    return 4 * at_once


def segment_of(at_once: int) -> int:
    """Return the steps of a segment, which is what lies between two saved states."""
    return 2 * half_of(at_once)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Compile-time sizes of a call.

    Attributes
    ----------
    per_group, groups, states : channels of a group, groups, states of a channel
    threads : of a program, and its channels: every thread owns one
    softplus : whether the step size is the softplus of delta plus bias
    at_once : steps that a loop takes at once: forward, those loaded ahead; backward, those whose states are in
        registers
    ragged : a chunk may end anywhere; otherwise all are whole multiples of `half`
    u_step, delta_step, z_step, dy_step, B_step, C_step : elements from one step to the next
    """

    per_group: int
    groups: int
    states: int
    threads: int
    at_once: int
    softplus: bool
    ragged: bool
    u_step: int
    delta_step: int
    z_step: int
    B_step: int
    C_step: int
    dy_step: int = 0

    @cached_property
    def half(self) -> int:
        """Steps of four stretches of the backward pass: half of those between saved states."""
        return half_of(self.at_once)

    @cached_property
    def saved_every(self) -> int:
        """Steps between the states that the forward pass saves."""
        return segment_of(self.at_once)

    @cached_property
    def partial(self) -> bool:
        """Whether a group's last program has fewer channels than threads."""
        return self.per_group % self.threads != 0

    @cached_property
    def group_blocks(self) -> int:
        """Programs that span a group."""
        return -(-self.per_group // self.threads)

    @cached_property
    def blocks(self) -> int:
        """Programs that span all channels."""
        return self.group_blocks * self.groups

    @cached_property
    def channels(self) -> int:
        """Channels of all groups."""
        return self.per_group * self.groups

    @cached_property
    def tile(self) -> int:
        """Values of a program's states, those that no channel or state has included."""
        return self.threads * CHANNELS * STATES

    @cached_property
    def warps(self) -> int:
        """Warps of a program: each leaves a part of dB and dC."""
        return self.threads // 32
