"""The filter over a whole table of events: parallel over rows, linear in steps, with its own adjoint.

Autograd through the steps would keep some forty tensors a step; the adjoint below keeps the states alone and goes back
over them once, by the same steps in reverse (tested against finite differences and against autograd).
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.assimilation.events import DRAW, Events
from models.assimilation.parameters import FilterParameters
from models.assimilation.step import A, C, D, decay, first_state, floored, least_variance, predicted, updated


@dataclass(frozen=True, kw_only=True)
class Filtered:
    """The filter at every step of some events.

    Attributes
    ----------
    mean, variance : (steps, rows) of the lab itself at the time of a step, before the step's own value is seen; a draw
        of it has ``draw_noise`` more variance
    innovation, innovation_variance : (steps, rows) value minus what was expected, and its variance; 0 and 1 where
        nothing was seen
    before_mean, before_covariance : (steps, 4, rows), (steps, 4, 4, rows) the state before each value is seen
    after_mean, after_covariance : the state after it
    """

    mean: Float[Tensor, "steps rows"]
    variance: Float[Tensor, "steps rows"]
    innovation: Float[Tensor, "steps rows"]
    innovation_variance: Float[Tensor, "steps rows"]
    before_mean: Float[Tensor, "steps 4 rows"]
    before_covariance: Float[Tensor, "steps 4 4 rows"]
    after_mean: Float[Tensor, "steps 4 rows"]
    after_covariance: Float[Tensor, "steps 4 4 rows"]


def lab_moments(
    parameters: FilterParameters, mean: Float[Tensor, "*steps 4 n"], covariance: Float[Tensor, "*steps 4 4 n"]
) -> tuple[Float[Tensor, "*steps n"], Float[Tensor, "*steps n"]]:
    """Return mean and variance of the lab of states."""
    variance = covariance[..., A, A, :] + 2 * covariance[..., A, C, :] + covariance[..., C, C, :]
    return parameters.draw_mean + mean[..., A, :] + mean[..., C, :], variance


def filter_events(parameters: FilterParameters, events: Events) -> Filtered:
    """Run the filter; `parameters` hold one row for each row of `events`. Differentiable in both.

    Source: our decision; docs/assimilation.md.
    """
    parameters.checked()
    draw = events.kind == DRAW
    h, offset, noise = _measured(parameters, draw)
    noise = torch.where(events.seen, noise * events.noise, 1.0)
    target = torch.where(events.seen, events.value - offset, 0.0)
    kept_a, kept_d, *gained = decay(parameters, events.elapsed_hours)
    kept = torch.stack([kept_a, torch.ones_like(kept_a), torch.ones_like(kept_a), kept_d], dim=1)
    start = first_state(parameters, parameters.gain).covariance
    seen = events.seen.to(noise.dtype)
    least = _least(start, h, noise, draw, events.seen)
    states = _Scan.apply(
        kept, torch.stack(gained, dim=1), h, noise, target, start, seen, least, events.follows
    )  # fmt: skip
    before_mean, before_covariance, after_mean, after_covariance = states
    mean, variance = lab_moments(parameters, before_mean, before_covariance)
    spread = (torch.einsum("tijn,tin->tjn", before_covariance, h) * h).sum(1) + noise
    return Filtered(
        mean=mean,
        variance=variance,
        innovation=torch.where(events.seen, target - (h * before_mean).sum(1), 0.0),
        innovation_variance=torch.where(events.seen, spread, 1.0),
        before_mean=before_mean,
        before_covariance=before_covariance,
        after_mean=after_mean,
        after_covariance=after_covariance,
    )


def log_likelihood(
    filtered: Filtered, events: Events, reading_weight: float
) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
    """Return each row's log-likelihood, and that part of it which the draws have.

    Every value is judged by what was expected of it before it was seen; readings weigh `reading_weight` of a draw.
    """
    variance = filtered.innovation_variance
    each = -0.5 * (torch.log(2 * torch.pi * variance) + filtered.innovation.square() / variance)
    draws = torch.where(events.drawn, each, 0.0).sum(0)
    return draws + reading_weight * torch.where(events.read, each, 0.0).sum(0), draws


def _measured(
    parameters: FilterParameters, draw: Bool[Tensor, "steps rows"]
) -> tuple[Float[Tensor, "steps 4 rows"], Float[Tensor, "steps rows"], Float[Tensor, "steps rows"]]:
    """Return how each value depends on the state, its own mean and its noise."""
    level = torch.where(draw, 1.0, parameters.gain)
    own = (~draw).to(level.dtype)
    return (
        torch.stack([level, level, own, own], dim=1),
        torch.where(draw, parameters.draw_mean, parameters.reading_mean),
        torch.where(draw, parameters.draw_noise, parameters.reading_noise),
    )


def _least(
    start: Tensor, h: Tensor, noise: Tensor, draw: Tensor, seen: Tensor
) -> Float[Tensor, "steps 2 rows"] | None:
    """Return the least variance of each value, for a draw and for a reading; None where no value can fall below it."""
    with torch.no_grad():
        least = least_variance(h, start.diagonal(dim1=0, dim2=1).T, 1)
        if bool((noise >= least).all()):
            return None
        return torch.stack([least * (seen & draw), least * (seen & ~draw)], dim=1)


class _Scan(torch.autograd.Function):
    """States before and after every step; see `step` for one of them."""

    @staticmethod
    def forward(
        ctx: Any,
        kept: Tensor,
        gained: Tensor,
        h: Tensor,
        noise: Tensor,
        target: Tensor,
        start: Tensor,
        seen: Tensor,
        least: Tensor | None,
        follows: Tensor | None,
    ) -> tuple[Tensor, ...]:
        steps, _, rows = kept.shape
        means, covariances = kept.new_empty(2, steps, 4, rows), kept.new_empty(2, steps, 4, 4, rows)
        first = start.new_zeros(4, rows), start
        mean, covariance = first
        elsewhere = _elsewhere(follows, steps)
        for j in range(steps):
            if elsewhere[j]:
                assert follows is not None
                mean, covariance = _gathered(means[1], covariances[1], first, follows[j])
            mean, covariance = predicted(mean, covariance, kept[j], gained[j])
            if least is not None:
                covariance = floored(covariance, h[j], noise[j], least[j])
            means[0, j], covariances[0, j] = mean, covariance
            mean, covariance = updated(mean, covariance, h[j], noise[j], target[j], seen[j])
            means[1, j], covariances[1, j] = mean, covariance
        ctx.save_for_backward(kept, h, noise, target, start, seen, means, covariances)
        ctx.follows, ctx.elsewhere = follows, elsewhere
        return means[0], covariances[0], means[1], covariances[1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        kept, h, noise, target, start, seen, means, covariances = ctx.saved_tensors
        before_mean, before_covariance, after_mean, after_covariance = outer
        # Gradients of the states after each step, and of the first one in the last place.
        mean_bar = torch.cat([after_mean, after_mean.new_zeros(1, *after_mean.shape[1:])])
        covariance_bar = torch.cat([after_covariance, torch.zeros_like(start)[None]])
        kept_bar, h_bar = torch.empty_like(kept), torch.empty_like(h)
        gained_bar = kept.new_empty(len(kept), 2, kept.shape[2])
        noise_bar, target_bar = torch.empty_like(noise), torch.empty_like(target)
        first = start.new_zeros(4, start.shape[2]), start
        for j in range(len(kept) - 1, -1, -1):
            mean, covariance = means[0, j], covariances[0, j]
            gm, gc, h_bar[j], noise_bar[j], target_bar[j] = _updated_adjoint(
                mean, covariance, h[j], noise[j], target[j], seen[j], mean_bar[j], covariance_bar[j]
            )
            gm, gc = gm + before_mean[j], gc + before_covariance[j]
            gc = 0.5 * (gc + gc.transpose(0, 1))
            if ctx.elsewhere[j]:
                mean, covariance = _gathered(means[1], covariances[1], first, ctx.follows[j])
            elif j:
                mean, covariance = means[1, j - 1], covariances[1, j - 1]
            else:
                mean, covariance = first
            scaled = gc * kept[j][None]
            kept_bar[j] = gm * mean + 2 * (covariance * scaled).sum(1)
            gained_bar[j, 0], gained_bar[j, 1] = gc[A, A], gc[D, D]
            _add(
                mean_bar,
                covariance_bar,
                kept[j] * gm,
                scaled * kept[j][:, None],
                ctx.follows,
                ctx.elsewhere[j],
                j,
            )
        return (
            kept_bar, gained_bar, h_bar, noise_bar, target_bar, covariance_bar[-1], None, None, None,
        )  # fmt: skip


def _updated_adjoint(
    mean: Tensor,
    covariance: Tensor,
    h: Tensor,
    noise: Tensor,
    target: Tensor,
    seen: Tensor,
    gm: Tensor,
    gc: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of mean, covariance, h, noise and target from those of the updated mean and covariance.

    Joseph's form equals P - u u' / S with u = P h and S = h'u + r, and the gain is where its own derivative
    vanishes, so the short form's adjoint is the adjoint.
    """
    gc = 0.5 * (gc + gc.transpose(0, 1))
    along = (covariance * h[:, None]).sum(0)
    inverse = seen / ((along * h).sum(0) + noise)
    innovation = target - (h * mean).sum(0)
    turned = (gc * along[:, None]).sum(0)
    towards = (gm * along).sum(0)
    target_bar = inverse * towards
    variance_bar = inverse.square() * ((turned * along).sum(0) - towards * innovation)
    along_bar = inverse * (innovation * gm - 2 * turned) + variance_bar * h
    h_bar = variance_bar * along - target_bar * mean + (covariance * along_bar[:, None]).sum(0)
    return gm - h * target_bar, gc + along_bar[:, None] * h[None], h_bar, variance_bar, target_bar


def _elsewhere(follows: Int[Tensor, "steps rows"] | None, steps: int) -> list[bool]:
    """Return at which steps some row does not follow the step before."""
    if follows is None:
        return [False] * steps
    before = torch.arange(len(follows), device=follows.device)[:, None] - 1
    return (follows != before).any(1).tolist()


def _gathered(
    means: Tensor, covariances: Tensor, first: tuple[Tensor, Tensor], follows: Int[Tensor, " rows"]
) -> tuple[Tensor, Tensor]:
    """Return the states after the steps that each row follows; the first states for -1."""
    begins = follows < 0
    place = follows.clamp(min=0)[None, None]
    mean = means.gather(0, place.expand(1, *means.shape[1:]))[0]
    covariance = covariances.gather(0, place[None].expand(1, *covariances.shape[1:]))[0]
    return torch.where(begins, first[0], mean), torch.where(begins, first[1], covariance)


def _add(
    mean_bar: Tensor,
    covariance_bar: Tensor,
    gm: Tensor,
    gc: Tensor,
    follows: Tensor | None,
    elsewhere: bool,
    j: int,
) -> None:
    """Add gradients to those of the states that step `j` follows; the first state's lie in the last place."""
    if not elsewhere:
        mean_bar[j - 1] += gm
        covariance_bar[j - 1] += gc
        return
    assert follows is not None
    place = follows[j].remainder(len(mean_bar))[None, None]
    mean_bar.scatter_add_(0, place.expand(1, *gm.shape), gm[None])
    covariance_bar.scatter_add_(0, place[None].expand(1, *gc.shape), gc[None])
