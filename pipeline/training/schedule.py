"""When the learning rate is what, and which pieces meet in which batch: pure functions of (seed, epoch).

Nothing here keeps a state, so a resumed run needs no generator to be restored, and every rank of a
distributed run finds the same plan.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def learning_rate(
    epoch: float, epochs: int, *, peak: float, start: float, final: float, warmup_epochs: float
) -> float:
    """Return the rate at `epoch` (fractional, 0 at the first batch) of a run of `epochs`.

    Linear from `start` to `peak` over `warmup_epochs` (over half the run where that is shorter), then a
    cosine to `final`. Source: the paper's recipe; the shortened warm-up is our decision.
    """
    warmup = min(warmup_epochs, epochs / 2)
    if epoch < warmup:
        return start + (peak - start) * epoch / warmup
    progress = min((epoch - warmup) / max(epochs - warmup, 1e-12), 1.0)
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One global batch: `items` of one `group` (a protocol), and the batch's number within its epoch."""

    number: int
    group: int
    items: tuple[int, ...]


def plan_epoch(
    group_sizes: Sequence[int], batch_size: int, epoch: int, seed: int, batches_per_group: int | None = None
) -> list[Batch]:
    """Return the batches of one epoch, groups taking turns, each giving an equal number of batches.

    An epoch is one pass over the group that needs the fewest batches (in the paper: over all sequences);
    every other group goes on where its last epoch ended, through its own endless stream of seeded
    permutations, so that all its items are used equally often.

    Parameters
    ----------
    group_sizes : number of items of each group; empty groups are left out
    batch_size : items in a batch; a smaller group gives smaller batches, never an item twice in its first
        pass
    batches_per_group : instead of one pass over the smallest group

    Equal halves by protocol and the definition of an epoch are our decisions.
    """
    groups = [(group, size) for group, size in enumerate(group_sizes) if size > 0]
    if not groups:
        return []
    count = batches_per_group or min(math.ceil(size / batch_size) for _, size in groups)
    batches: list[Batch] = []
    for turn in range(count):
        for group, size in groups:
            take = min(batch_size, size)
            first = (epoch * count + turn) * take
            items = _stream(size, first, take, (seed, group))
            batches.append(Batch(number=len(batches), group=group, items=items))
    return batches


def micro_batches(items: Sequence[int], lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Split `items` into runs of summed `lengths` up to `limit`; an item longer than that stands alone.

    Longest first, so that the split is the same for every rank and the largest memory need comes first.
    """
    order = sorted(range(len(items)), key=lambda i: (-lengths[i], i))
    runs: list[list[int]] = []
    room = 0
    for i in order:
        if not runs or lengths[i] > room:
            runs.append([])
            room = limit
        runs[-1].append(items[i])
        room -= lengths[i]
    return runs


def seed_of(*numbers: int) -> int:
    """Mix `numbers` (seed, epoch, batch, ...) into one 63-bit seed for a generator of its own."""
    return int(np.random.SeedSequence((len(numbers), *numbers)).generate_state(1, np.uint64)[0] >> 1)


def _stream(size: int, first: int, count: int, key: tuple[int, ...]) -> tuple[int, ...]:
    positions = np.arange(first, first + count)
    chosen = np.empty(count, dtype=np.int64)
    for cycle in np.unique(positions // size):
        permutation = np.random.default_rng([*key, int(cycle)]).permutation(size)
        inside = positions // size == cycle
        chosen[inside] = permutation[positions[inside] % size]
    return tuple(int(i) for i in chosen)
