"""Eleven numbers a lab by maximum likelihood of training patients' draws, each judged before it is seen."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize

from models.assimilation.config import FitConfig
from models.assimilation.events import PADDING, Events
from models.assimilation.parameters import BOUNDS, NAMES, PRIOR, FilterParameters
from models.assimilation.scan import filter_events, log_likelihood

SLOW_HOURS = 96.0
"""Drift of the second start, hours: whether what lasts is level or drift, the likelihood may have two answers."""
FIRST_PATIENTS = 150
"""Patients, evenly over all, on whom both starts are tried; of more, all then go on from the better end. The numbers
that some thousand draws tell lie close to those of all, and a pass over all costs as many times more."""
FITTED = "fitted"
_EDGE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The numbers of one lab, and how they came about.

    Attributes
    ----------
    parameters : one row
    status : ``FITTED``, or why the prior's numbers were kept
    n_draws, n_patients, n_readings : of which the likelihood was made
    draw_log_likelihood : mean over draws, at these numbers; NaN without a draw
    n_evaluations : of the likelihood and its gradient
    at_bound : names of numbers that ended at a bound
    """

    parameters: FilterParameters
    status: str
    n_draws: int
    n_patients: int
    n_readings: int
    draw_log_likelihood: float
    n_evaluations: int = 0
    at_bound: tuple[str, ...] = ()


def fit_lab(
    events: Events,
    config: FitConfig = FitConfig(),  # noqa: B008 - frozen
    start: FilterParameters | None = None,
) -> Fit:
    """Fit one lab's filter; the rows of `events` are training patients, all of that lab.

    L-BFGS-B in float64 from two starts, the better one kept, or from `start` alone: no chance in it; with more than
    `FIRST_PATIENTS` the starts are tried on a part of them, and all decide from there. A Gaussian prior
    and bounds (``parameters.PRIOR``, ``BOUNDS``) keep a lab with few draws sane; with fewer than the configuration asks
    for it keeps the prior's numbers. Events that need no replaying are expected: each value is judged after all earlier
    ones.

    Source: our decision; docs/assimilation.md.
    """
    drawn = events.drawn
    n_draws, n_patients = int(drawn.sum()), int(drawn.any(0).sum())
    counts = {"n_draws": n_draws, "n_patients": n_patients, "n_readings": int(events.read.sum())}
    parts = _parts(events, config.rows_at_once)
    if n_draws < config.least_draws or n_patients < config.least_patients:
        status = (
            f"too few draws to fit: {n_draws} of at least {config.least_draws}, of {n_patients} patients of at least "
            f"{config.least_patients}; the prior's numbers are kept"
        )
        return _fit(PRIOR[:, 0].numpy(), parts, status, counts, 0)
    slow = PRIOR[:, 0].numpy().copy()
    slow[NAMES.index("drift_hours")] = np.log(SLOW_HOURS)
    starts = [PRIOR[:, 0].numpy(), slow] if start is None else [start.axis[0].numpy()]
    whole, n_evaluations = _Objective(parts, config, n_draws), 0
    every = -(-drawn.shape[1] // FIRST_PATIENTS)
    if every > 1 and len(starts) > 1:
        some = events.take(torch.arange(0, drawn.shape[1], every))
        part = _Objective(_parts(some, config.rows_at_once), config, max(1, int(some.drawn.sum())))
        starts = [_best(part, starts)]
        n_evaluations = part.n_evaluations
    end = _best(whole, starts)
    return _fit(end, parts, FITTED, counts, n_evaluations + whole.n_evaluations)


def _best(objective: "_Objective", starts: list[np.ndarray]) -> np.ndarray:
    return min((objective.minimised(start) for start in starts), key=lambda end: end[0])[1]


class _Objective:
    """Negative log-posterior a draw, over coordinates in which the prior is a standard normal."""

    def __init__(self, parts: list[Events], config: FitConfig, n_draws: int) -> None:
        self.parts, self.config, self.n_draws = parts, config, n_draws
        self.centre, self.spread = PRIOR.numpy().T
        self.n_evaluations = 0

    def minimised(self, start: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the least value found from `start`, and where on the axis of fitting it is."""
        bounds = (BOUNDS.numpy() - self.centre[:, None]) / self.spread[:, None]
        end = minimize(
            self.value_and_gradient, (start - self.centre) / self.spread, jac=True, method="L-BFGS-B", bounds=bounds,
            options={"maxiter": self.config.most_iterations, "ftol": 1e-9, "gtol": 1e-5, "maxcor": 11},
        )  # fmt: skip
        return float(end.fun), end.x * self.spread + self.centre

    def value_and_gradient(self, z: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the objective and its gradient."""
        self.n_evaluations += 1
        axis = torch.from_numpy(z * self.spread + self.centre)[None].requires_grad_()
        total = 0.0
        for part in self.parts:
            parameters = FilterParameters.from_axis(axis.expand(part.kind.shape[1], -1))
            loss = -log_likelihood(filter_events(parameters, part), part, self.config.reading_weight)[0].sum()
            loss.backward()
            total += float(loss.detach())
        assert axis.grad is not None
        gradient = axis.grad[0].numpy() * self.spread + self.config.prior_weight * z
        return (total + 0.5 * self.config.prior_weight * float(z @ z)) / self.n_draws, gradient / self.n_draws


def _parts(events: Events, rows_at_once: int) -> list[Events]:
    """Cut into parts of rows of like length, longest first: what is padded is filtered too."""
    order = torch.argsort((events.kind != PADDING).sum(0), descending=True, stable=True)
    return [events.take(rows) for rows in order.split(rows_at_once)] if len(order) else []


def _fit(
    axis: np.ndarray, parts: list[Events], status: str, counts: dict[str, int], n_evaluations: int
) -> Fit:
    point = torch.from_numpy(np.asarray(axis, float))[None]
    with torch.no_grad():
        draws = 0.0
        for part in parts:
            parameters = FilterParameters.from_axis(point.expand(part.kind.shape[1], -1))
            draws += float(log_likelihood(filter_events(parameters, part), part, 0.0)[1].sum())
    ends = np.abs(np.asarray(axis)[:, None] - BOUNDS.numpy()) < _EDGE
    return Fit(
        parameters=FilterParameters.from_axis(point),
        status=status,
        draw_log_likelihood=draws / counts["n_draws"] if counts["n_draws"] else float("nan"),
        n_evaluations=n_evaluations,
        at_bound=tuple(name for name, end in zip(NAMES, ends, strict=True) if end.any())
        if status == FITTED
        else (),
        **counts,
    )
