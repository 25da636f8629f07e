"""Backend `torch`: a loop over steps in plain tensor operations, on any device; the reference of the compiled one.

Autograd through the steps would keep some forty tensors a step; the adjoint keeps the states alone and goes back over
them once, by the same steps in reverse.
"""

import torch
from torch import Tensor

from .operands import Operands, adjoint_states
from .step import FIRST, LAST, floored, predicted, updated


def forward(x: Operands) -> tuple[Tensor, Tensor]:
    """Return means (2, steps, 4, rows) and covariances (2, steps, 4, 4, rows), before and after each value."""
    steps, _, rows = x.kept.shape
    means, covariances = x.kept.new_empty(2, steps, 4, rows), x.kept.new_empty(2, steps, 4, 4, rows)
    mean, covariance = first = x.start.new_zeros(4, rows), x.start
    elsewhere = _elsewhere(x)
    for j in range(steps):
        if elsewhere[j]:
            mean, covariance = _gathered(means[1], covariances[1], first, x.follows[j])
        mean, covariance = predicted(mean, covariance, x.kept[j], x.gained[j])
        if x.least is not None:
            covariance = floored(covariance, x.h[j], x.noise[j], x.least[j])
        means[0, j], covariances[0, j] = mean, covariance
        mean, covariance = updated(mean, covariance, x.h[j], x.noise[j], x.target[j], x.seen[j])
        means[1, j], covariances[1, j] = mean, covariance
    return means, covariances


def backward(
    x: Operands, means: Tensor, covariances: Tensor, outer: tuple[Tensor, Tensor, Tensor, Tensor]
) -> tuple[Tensor, ...]:
    """Return the gradients of kept, gained, h, noise, target and start from those of both kinds of states."""
    before_mean, before_covariance, after_mean, after_covariance = outer
    mean_bar, covariance_bar = adjoint_states(x, after_mean, after_covariance)
    kept_bar, gained_bar, h_bar = (torch.empty_like(t) for t in (x.kept, x.gained, x.h))
    noise_bar, target_bar = torch.empty_like(x.noise), torch.empty_like(x.target)
    first, elsewhere = (x.start.new_zeros(4, x.start.shape[2]), x.start), _elsewhere(x)
    for j in range(len(x.kept) - 1, -1, -1):
        gm, gc, h_bar[j], noise_bar[j], target_bar[j] = _updated_adjoint(
            means[0, j], covariances[0, j], x, j, mean_bar[j], covariance_bar[j]
        )
        gm, gc = gm + before_mean[j], gc + before_covariance[j]
        gc = 0.5 * (gc + gc.transpose(0, 1))
        if elsewhere[j]:
            mean, covariance = _gathered(means[1], covariances[1], first, x.follows[j])
        else:
            mean, covariance = (means[1, j - 1], covariances[1, j - 1]) if j else first
        kept = x.kept[j]
        scaled = gc * kept[None]
        kept_bar[j] = gm * mean + 2 * (covariance * scaled).sum(1)
        gained_bar[j, 0], gained_bar[j, 1] = gc[FIRST, FIRST], gc[LAST, LAST]
        _hand_back(mean_bar, covariance_bar, kept * gm, scaled * kept[:, None], x, elsewhere[j], j)
    return kept_bar, gained_bar, h_bar, noise_bar, target_bar, covariance_bar[-1]


def _updated_adjoint(
    mean: Tensor, covariance: Tensor, x: Operands, j: int, gm: Tensor, gc: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of mean, covariance, h, noise and target from those of the updated mean and covariance.

    Joseph's form equals P - u u' / S with u = P h and S = h'u + r, and the gain is where its own derivative
    vanishes, so the short form's adjoint is the adjoint.
    """
    h = x.h[j]
    gc = 0.5 * (gc + gc.transpose(0, 1))
    along = (covariance * h[:, None]).sum(0)
    inverse = x.seen[j] / ((along * h).sum(0) + x.noise[j])
    innovation = x.target[j] - (h * mean).sum(0)
    turned = (gc * along[:, None]).sum(0)
    towards = (gm * along).sum(0)
    target_bar = inverse * towards
    variance_bar = inverse.square() * ((turned * along).sum(0) - towards * innovation)
    along_bar = inverse * (innovation * gm - 2 * turned) + variance_bar * h
    h_bar = variance_bar * along - target_bar * mean + (covariance * along_bar[:, None]).sum(0)
    return gm - h * target_bar, gc + along_bar[:, None] * h[None], h_bar, variance_bar, target_bar


def _elsewhere(x: Operands) -> list[bool]:
    """Return at which steps some row does not follow the step before."""
    if x.follows is None:
        return [False] * len(x.kept)
    before = torch.arange(len(x.follows), device=x.follows.device)[:, None] - 1
    return (x.follows != before).any(1).tolist()


def _gathered(
    means: Tensor, covariances: Tensor, first: tuple[Tensor, Tensor], follows: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the states after the steps that each row follows; the first states for -1."""
    begins = follows < 0
    place = follows.clamp(min=0)[None, None]
    mean = means.gather(0, place.expand(1, *means.shape[1:]))[0]
    covariance = covariances.gather(0, place[None].expand(1, *covariances.shape[1:]))[0]
    return torch.where(begins, first[0], mean), torch.where(begins, first[1], covariance)


def _hand_back(
    mean_bar: Tensor, covariance_bar: Tensor, gm: Tensor, gc: Tensor, x: Operands, elsewhere: bool, j: int
) -> None:
    """Add gradients to those of the states that step `j` follows; the first state's lie in the last place."""
    if not elsewhere:
        mean_bar[j - 1] += gm
        covariance_bar[j - 1] += gc
        return
    place = x.follows[j].remainder(len(mean_bar))[None, None]
    mean_bar.scatter_add_(0, place.expand(1, *gm.shape), gm[None])
    covariance_bar.scatter_add_(0, place[None].expand(1, *gc.shape), gc[None])
