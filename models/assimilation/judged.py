"""What a filter expects of every draw before it is seen: for choices that its likelihood alone does not make."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from models.assimilation.events import DRAW, Events
from models.assimilation.parameters import FilterParameters
from models.assimilation.scan import filter_events, step_log_likelihood

ROWS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class JudgedDraws:
    """The draws of some rows, row after row in order of time, those with a missing value among them.

    Attributes
    ----------
    row : of each draw
    mean : of the lab, on the filter's scale, from what came before
    log_likelihood : of the draw's value; 0 where it is missing
    """

    row: Int[np.ndarray, " draws"]
    mean: Float[np.ndarray, " draws"]
    log_likelihood: Float[np.ndarray, " draws"]

    def by_row(self, rows: int) -> Float[np.ndarray, " rows"]:
        """Return the log-likelihood of each row's draws."""
        return np.bincount(self.row, weights=self.log_likelihood, minlength=rows)


def judged_draws(parameters: FilterParameters, events: Events) -> JudgedDraws:
    """Judge the draws of rows that one lab's numbers (one row) stand for."""
    rows, means, likelihoods = [], [], []
    for some in torch.arange(events.kind.shape[1]).split(ROWS_AT_ONCE):
        part = events.take(some)
        with torch.no_grad():
            filtered = filter_events(parameters.take(torch.zeros(len(some), dtype=torch.int64)), part)
        each = torch.where(part.drawn, step_log_likelihood(filtered), 0.0)
        row, step = (part.kind == DRAW).T.nonzero(as_tuple=True)
        rows.append(some[row])
        means.append(filtered.mean[step, row])
        likelihoods.append(each[step, row])
    if not rows:
        return JudgedDraws(row=np.empty(0, np.int64), mean=np.empty(0), log_likelihood=np.empty(0))
    return JudgedDraws(
        row=torch.cat(rows).numpy(),
        mean=torch.cat(means).numpy(),
        log_likelihood=torch.cat(likelihoods).numpy(),
    )
