"""What a source of training batches must fill, and what a micro-batch holds.

A source knows its items in groups (protocols), how long each is, how much target weight it carries per lab
*before* anything is loaded, and loads a micro-batch when asked. The weight sums let the loss be normalised by
the whole global batch although only a part of it is ever in memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from models.regressor.inputs import PackedInputs


@dataclass(frozen=True, kw_only=True)
class WindowInputs:
    """Ten windows per draw: embeddings (n, 10, width) and mask (n, 10), True where usable."""

    embeddings: Float[Tensor, "n ten width"]
    mask: Tensor

    def to(self, device: torch.device | str) -> "WindowInputs":
        """Return the same inputs on `device`."""
        return WindowInputs(embeddings=self.embeddings.to(device), mask=self.mask.to(device))


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """Inputs, scaled targets (rows, labs; 0 where the weight is 0) and weights (rows, labs)."""

    inputs: PackedInputs | WindowInputs
    targets: Float[Tensor, "rows labs"]
    weights: Float[Tensor, "rows labs"]

    def pinned(self) -> "MicroBatch":
        """Return the same in page-locked memory, from which a GPU copies while the processor goes on."""
        return self._each(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device) -> "MicroBatch":
        """Return the same on `device`; from page-locked memory without waiting for it."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "MicroBatch":
        changed = {field.name: change(getattr(self.inputs, field.name)) for field in fields(self.inputs)}
        return MicroBatch(
            inputs=replace(self.inputs, **changed), targets=change(self.targets), weights=change(self.weights)
        )


@runtime_checkable
class BatchSource(Protocol):
    """Items in groups, to be planned by ``schedule.plan_epoch`` and loaded in micro-batches."""

    labs: tuple[str, ...]
    group_sizes: list[int]

    def lengths(self, group: int, items: Sequence[int]) -> list[int]:
        """Return the steps of each item."""
        ...

    def weight_sums(self, group: int, items: Sequence[int]) -> Float64[np.ndarray, " labs"]:
        """Return the target weight of `items`, summed, per lab."""
        ...

    def load(self, group: int, items: Sequence[int], epoch: int) -> MicroBatch:
        """Read `items`; `epoch` decides which history windows are drawn."""
        ...

    def sample(self, seed: int) -> PackedInputs | WindowInputs:
        """Return inputs of a bounded number of items, to take the statistics of the inputs from."""
        ...

    def target_means(self) -> Float64[np.ndarray, " labs"]:
        """Return the mean scaled measured target per lab; 0.5 for a lab without one."""
        ...

    def counts(self) -> dict[str, int]:
        """Return how many items and targets there are, and how many items have no history."""
        ...
