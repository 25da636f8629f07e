"""One step of the filter, for any number of rows at once: the one definition, which every backend follows to the bit.

The covariance is updated in Joseph's form, (I - K h') P (I - K h')' + K r K', which is a sum of two positive
semi-definite matrices whatever the rounding of K: with an exact assay (r = 0) and a wide prior the short form
P - K h' P loses its sign. A square-root form would hold as well, but its prediction needs a factorisation a step, where
here two variances are added. Components lie first and rows last, and every operation is elementwise or a sum of four
terms: the bits of a row depend neither on its neighbours nor on their number.

Shapes: mean (4, n), covariance (4, 4, n), h (4, n), the others (n,); transitions are diagonal, and noise enters the
first and the last component alone.
"""

import torch
from torch import Tensor

FIRST, LAST = 0, 3
"""Components that drift, and so gain variance."""
LEAST_VARIANCE = 1e-12
"""Least variance of a measured value, as a share of its prior variance: below it lies rounding alone. An exact assay of
a lab that does not drift leaves none; should the next draw differ all the same, the difference is drift. That is the
limit of ever less drift, and what carries the last value forward. Fitted numbers stay far above."""
_TINY = 1e-30
"""The same for a lab whose prior variance is zero: a variance must not be."""
_DRIFT = 1e6
"""Drift that such a value finds, in least variances: so much that rounding beside it is nothing."""


def predicted(
    mean: Tensor,
    covariance: Tensor,
    kept: Tensor,
    gained: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return mean and covariance after time has passed."""
    covariance = covariance * kept[:, None] * kept[None]
    covariance[FIRST, FIRST] += gained[0]
    covariance[LAST, LAST] += gained[1]
    return kept * mean, covariance


def least_variance(h: Tensor, prior: Tensor, components: int) -> Tensor:
    """Return the least variance of a value that measures `h`; `components` is the axis of these in `h`."""
    return (LEAST_VARIANCE * (h.square() * prior).sum(components)).clamp(min=_TINY)


def floored(
    covariance: Tensor,
    h: Tensor,
    noise: Tensor,
    least: Tensor,
) -> Tensor:
    """Return the covariance with some drift added where the value measured next would have next to no variance.

    `least` holds the least variance of a draw and of a reading, 0 for the kind that does not come.
    """
    variance = ((covariance * h[:, None]).sum(0) * h).sum(0) + noise
    short = torch.where(variance < least, _DRIFT * least, 0.0).detach()
    covariance = covariance.clone()
    covariance[FIRST, FIRST] += short[0]
    covariance[LAST, LAST] += short[1]
    return covariance


def updated(
    mean: Tensor,
    covariance: Tensor,
    h: Tensor,
    noise: Tensor,
    value: Tensor,
    seen: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return mean and covariance after a value, above its own mean, was measured; unchanged where `seen` is 0."""
    along = (covariance * h[:, None]).sum(0)
    gain = along * (seen / ((along * h).sum(0) + noise))
    innovation = value - (h * mean).sum(0)
    left = covariance - gain[:, None] * along[None]
    rest = gain * noise - (left * h[None]).sum(1)
    return mean + gain * innovation, left + rest[:, None] * gain[None]
