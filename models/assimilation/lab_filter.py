"""The filters of all labs: their numbers as a module's parameters, a step at a time or a table at once."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kernels.kalman_scan import floored, least_variance, predicted, updated
from models.assimilation.events import Events
from models.assimilation.parameters import BOUNDS, PRIOR, FilterParameters
from models.assimilation.scan import Filtered, filter_events, lab_moments, log_likelihood
from models.assimilation.state import FilterState, decay, first_state


class LabFilters(nn.Module):
    """One filter a lab, float64.

    The parameters are points on the axis of fitting (logarithms of the positive numbers), held inside their bounds
    where they are used, so that no step of an optimiser leaves the model's meaning. By hand-given numbers, such as
    those of a special case, go by ``of``.

    Parameters
    ----------
    labs : names, in the order of rows; each starts at the prior's numbers
    """

    def __init__(self, labs: Sequence[str]):
        super().__init__()
        self.labs = tuple(labs)
        self.axis = nn.Parameter(PRIOR[:, 0].repeat(len(self.labs), 1))
        self._given: FilterParameters | None = None

    @classmethod
    def of(cls, parameters: FilterParameters) -> "LabFilters":
        """Return filters that hold `parameters` as they are, bounds or not; nothing learns."""
        made = cls([str(i) for i in range(len(parameters.gain))])
        made.axis.requires_grad_(False)
        made._given = parameters.checked().detach()
        return made

    @property
    def parameters_by_lab(self) -> FilterParameters:
        """The eleven numbers, one row a lab."""
        if self._given is not None:
            return self._given
        return FilterParameters.from_axis(torch.clamp(self.axis, BOUNDS[:, 0], BOUNDS[:, 1]))

    def forward(self, events: Events) -> Filtered:
        """Filter a table of events, every row by its lab's numbers."""
        return filter_events(self.parameters_by_lab.take(events.lab), events)

    def log_likelihood(self, events: Events, reading_weight: float) -> Float[Tensor, " rows"]:
        """Return each row's log-likelihood, readings by their weight: what a network is trained by."""
        return log_likelihood(self(events), events, reading_weight)[0]

    def start(self) -> FilterState:
        """Return the state of a patient of whom nothing is known, one row a lab."""
        numbers = self.parameters_by_lab
        return first_state(numbers, numbers.gain)

    def predict(self, state: FilterState, hours: float) -> FilterState:
        """Return the state after `hours` without news."""
        numbers = self.parameters_by_lab
        kept_a, kept_d, *gained = decay(numbers, torch.full_like(numbers.gain, hours))
        one = torch.ones_like(kept_a)
        mean, covariance = predicted(
            state.mean, state.covariance, torch.stack([kept_a, one, one, kept_d]), torch.stack(gained)
        )
        return FilterState(mean=mean, covariance=covariance)

    def update(
        self,
        state: FilterState,
        value: Float[Tensor, " labs"],
        *,
        draw: bool,
        noise: Float[Tensor, " labs"] | float = 1.0,
    ) -> FilterState:
        """Return the state after one value a lab at the state's own time, all draws or all readings; NaN: missing.

        Parameters
        ----------
        noise : noise variance over that of the main assay, or of a whole reading
        """
        numbers = self.parameters_by_lab
        seen = ~value.isnan()
        one = torch.ones_like(numbers.gain)
        h = torch.stack([one, one, 0 * one, 0 * one] if draw else [numbers.gain, numbers.gain, one, one])
        offset = numbers.draw_mean if draw else numbers.reading_mean
        own = torch.where(seen, (numbers.draw_noise if draw else numbers.reading_noise) * noise, 1.0)
        target = torch.where(seen, value - offset, 0.0)
        covariance = state.covariance
        least = least_variance(h, numbers.prior, 0) * seen
        if bool((own < least).any()):
            covariance = floored(covariance, h, own, torch.stack([least * draw, least * (not draw)]))
        mean, covariance = updated(state.mean, covariance, h, own, target, seen.to(own.dtype))
        return FilterState(mean=mean, covariance=covariance)

    def estimate(
        self, state: FilterState
    ) -> tuple[Float[Tensor, " labs"], Float[Tensor, " labs"], Float[Tensor, " labs"]]:
        """Return mean and variance of each lab, and the variance of a draw of it."""
        numbers = self.parameters_by_lab
        mean, variance = lab_moments(numbers, state.mean, state.covariance)
        return mean, variance, variance + numbers.draw_noise
