"""The filter over a whole table of events: parallel over rows, linear in steps, differentiable."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kernels.kalman_scan import kalman_scan, least_variance
from models.assimilation.events import DRAW, Events
from models.assimilation.parameters import FilterParameters
from models.assimilation.state import A, C, decay, first_state


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
    states = kalman_scan(
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
    each = step_log_likelihood(filtered)
    draws = torch.where(events.drawn, each, 0.0).sum(0)
    return draws + reading_weight * torch.where(events.read, each, 0.0).sum(0), draws


def step_log_likelihood(filtered: Filtered) -> Float[Tensor, "steps rows"]:
    """Return the log-likelihood of each step's value; it means nothing where none was seen."""
    variance = filtered.innovation_variance
    return -0.5 * (torch.log(2 * torch.pi * variance) + filtered.innovation.square() / variance)


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
