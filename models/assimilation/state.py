"""What is known of a patient's lab: the four components, where they start, and what time leaves of them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from models.assimilation.parameters import FilterParameters

A, C, B, D = range(4)
"""Components of the state: drift, level, the patient's waveform offset, its drift."""


@dataclass(frozen=True, kw_only=True)
class FilterState:
    """What is known of (a, c, b, d): mean (4, rows) and covariance (4, 4, rows)."""

    mean: Float[Tensor, "4 n"]
    covariance: Float[Tensor, "4 4 n"]


def first_state(parameters: FilterParameters, like: Float[Tensor, " n"]) -> FilterState:
    """Return the state of patients of whom nothing is known: the processes are stationary, so it has no time."""
    variance = parameters.prior
    eye = torch.eye(4, dtype=like.dtype, device=like.device)
    return FilterState(mean=torch.zeros_like(variance), covariance=eye[:, :, None] * variance[None])


def decay(
    parameters: FilterParameters, hours: Float[Tensor, "*steps n"]
) -> tuple[Float[Tensor, "*steps n"], ...]:
    """Return what is left of a and of d after some hours, and the variances that they gain meanwhile."""
    kept_a, kept_d = -hours / parameters.drift_hours, -hours / parameters.offset_drift_hours
    gained_a = -torch.expm1(2 * kept_a) * parameters.drift_variance
    gained_d = -torch.expm1(2 * kept_d) * parameters.offset_drift_variance
    return kept_a.exp(), kept_d.exp(), gained_a, gained_d
