"""One step of the filter, for any number of rows at once: what scan, bedside and benchmark all do.

The covariance is updated in Joseph's form, (I - K h') P (I - K h')' + K r K', which is a sum of two positive
semi-definite matrices whatever the rounding of K: with an exact assay (r = 0) and a wide prior the short form
P - K h' P loses its sign. A square-root form would hold as well, but its prediction needs a factorisation a step, where
here two variances are added. Components lie first and rows last, and every operation is elementwise or a sum of four
terms: the bits of a row depend neither on its neighbours nor on their number.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from models.assimilation.parameters import FilterParameters

A, C, B, D = range(4)
"""Components of the state: drift, level, the patient's waveform offset, its drift."""
LEAST_VARIANCE = 1e-12
"""Least variance of a measured value, as a share of its prior variance: below it lies rounding alone. An exact assay of
a lab that does not drift leaves none; should the next draw differ all the same, the difference is drift. That is the
limit of ever less drift, and what carries the last value forward. Fitted numbers stay far above."""
_TINY = 1e-30
"""The same for a lab whose prior variance is zero: a variance must not be."""
_DRIFT = 1e6
"""Drift that such a value finds, in least variances: so much that rounding beside it is nothing."""


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


def predicted(
    mean: Float[Tensor, "4 n"],
    covariance: Float[Tensor, "4 4 n"],
    kept: Float[Tensor, "4 n"],
    gained: Float[Tensor, "2 n"],
) -> tuple[Float[Tensor, "4 n"], Float[Tensor, "4 4 n"]]:
    """Return mean and covariance after time has passed."""
    covariance = covariance * kept[:, None] * kept[None]
    covariance[A, A] += gained[0]
    covariance[D, D] += gained[1]
    return kept * mean, covariance


def least_variance(
    h: Float[Tensor, "*steps 4 n"], prior: Float[Tensor, "4 n"], components: int
) -> Float[Tensor, "*steps n"]:
    """Return the least variance of a value that measures `h`; `components` is the axis of these in `h`."""
    return (LEAST_VARIANCE * (h.square() * prior).sum(components)).clamp(min=_TINY)


def floored(
    covariance: Float[Tensor, "4 4 n"],
    h: Float[Tensor, "4 n"],
    noise: Float[Tensor, " n"],
    least: Float[Tensor, "2 n"],
) -> Float[Tensor, "4 4 n"]:
    """Return the covariance with some drift added where the value measured next would have next to no variance.

    `least` holds the least variance of a draw and of a reading, 0 for the kind that does not come.
    """
    variance = ((covariance * h[:, None]).sum(0) * h).sum(0) + noise
    short = torch.where(variance < least, _DRIFT * least, 0.0).detach()
    covariance = covariance.clone()
    covariance[A, A] += short[0]
    covariance[D, D] += short[1]
    return covariance


def updated(
    mean: Float[Tensor, "4 n"],
    covariance: Float[Tensor, "4 4 n"],
    h: Float[Tensor, "4 n"],
    noise: Float[Tensor, " n"],
    value: Float[Tensor, " n"],
    seen: Float[Tensor, " n"],
) -> tuple[Float[Tensor, "4 n"], Float[Tensor, "4 4 n"]]:
    """Return mean and covariance after a value, above its own mean, was measured; unchanged where `seen` is 0."""
    along = (covariance * h[:, None]).sum(0)
    gain = along * (seen / ((along * h).sum(0) + noise))
    innovation = value - (h * mean).sum(0)
    left = covariance - gain[:, None] * along[None]
    rest = gain * noise - (left * h[None]).sum(1)
    return mean + gain * innovation, left + rest[:, None] * gain[None]
