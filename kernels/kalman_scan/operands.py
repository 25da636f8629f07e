"""What a scan is given."""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Operands(NamedTuple):
    """Tensors of one scan, float64 but for `follows`.

    Attributes
    ----------
    kept : (steps, 4, rows) what is left of each component since the step that this one follows
    gained : (steps, 2, rows) variance that the first and the last component gained meanwhile
    h : (steps, 4, rows) how the value depends on the state
    noise, target : (steps, rows) its noise variance, and the value above its own mean; 1 and 0 where nothing was seen
    start : (4, 4, rows) covariance before the first step; the mean is 0
    seen : (steps, rows) 1 where there is a value, else 0
    least : (steps, 2, rows) see ``step.floored``; None where no value's variance can fall so low
    follows : (steps, rows) int64, number of the earlier step that each one goes on from, -1 for the beginning; None:
        the one before
    """

    kept: Tensor
    gained: Tensor
    h: Tensor
    noise: Tensor
    target: Tensor
    start: Tensor
    seen: Tensor
    least: Tensor | None
    follows: Any


def adjoint_states(x: Operands, after_mean: Tensor, after_covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of the states after each step, as far as they come from outside.

    One place more than there are steps: the last is the state's before the first.
    """
    mean_bar = torch.cat([after_mean, after_mean.new_zeros(1, *after_mean.shape[1:])])
    return mean_bar, torch.cat([after_covariance, torch.zeros_like(x.start)[None]])
