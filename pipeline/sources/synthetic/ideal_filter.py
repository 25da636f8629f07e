"""One Kalman filter over everything that a planted cohort's law knows, for many patients at once, in numpy.

Exact: it equals a dense Gaussian process of the same law (tests build and solve it).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from pipeline.foundation.schema import HOUR_US
from pipeline.sources.synthetic.law import LinearLaw

ROWS_AT_ONCE = 64
"""Rows that are filtered together: the covariances of more leave the processor's cache."""
NOTHING, READING, DRAW = 0, 1, 2
"""Kinds of event; a draw of lab i is `DRAW` + i."""


@dataclass(frozen=True, kw_only=True)
class FilterRow:
    """What one row of the filter is told, in order of time, and when it is asked.

    Attributes
    ----------
    time_us : of each event, not falling; a question at the time of a value comes before it where it stands before it
    kind : `NOTHING` (a question alone), `READING`, or `DRAW` + lab
    value : a reading of the shape, or a draw's score in the first column
    noise : of a draw, variance beside the law's; of a reading, the share of a window's noise that it has
    asked : events before which the labs are asked for
    """

    time_us: Int[np.ndarray, " events"]
    kind: Int[np.ndarray, " events"]
    value: Float[np.ndarray, "events shapes"]
    noise: Float[np.ndarray, " events"]
    asked: Int[np.ndarray, " questions"]


@dataclass(frozen=True, kw_only=True)
class LabMoments:
    """Mean and variance of every lab, without a draw's noise, at a row's questions."""

    mean: Float[np.ndarray, "questions labs"]
    variance: Float[np.ndarray, "questions labs"]


def filter_rows(law: LinearLaw, rows: Sequence[FilterRow]) -> list[LabMoments]:
    """Filter every row and answer its questions, in the order of `rows`."""
    answers: dict[int, LabMoments] = {}
    by_length = sorted(range(len(rows)), key=lambda i: len(rows[i].time_us))
    for first in range(0, len(rows), ROWS_AT_ONCE):
        chosen = by_length[first : first + ROWS_AT_ONCE]
        mean, variance = _filtered(law, [rows[i] for i in chosen])
        for place, i in enumerate(chosen):
            asked = rows[i].asked
            answers[i] = LabMoments(mean=mean[asked, place], variance=variance[asked, place])
    return [answers[i] for i in range(len(rows))]


def _filtered(law: LinearLaw, rows: Sequence[FilterRow]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of the labs before every event, (events, rows, labs); rows are padded at their end."""
    kind, value, noise, hours = _packed(rows)
    seen, own_noise = _observations(law)
    states, shapes = law.shape.shape[1], len(law.shape)
    x = np.zeros((len(rows), states))
    covariance = np.repeat(law.covariance[None], len(rows), axis=0)
    means = np.empty((len(kind), len(rows), len(law.lab)))
    variances = np.empty_like(means)
    first = np.arange(shapes) == 0
    for step in range(len(kind)):
        if step:
            kept = np.exp(-hours[step][:, None] / law.time_constant_hours)
            both = kept[:, :, None] * kept[:, None, :]
            x = x * kept
            covariance = (
                both * covariance + (1 - both) * law.covariance
            )  # stationary: what is lost comes anew
        means[step] = x @ law.lab.T
        variances[step] = np.einsum("ls,rst,lt->rl", law.lab, covariance, law.lab, optimize=True)
        told = np.flatnonzero(kind[step] != NOTHING)
        if not len(told):
            continue
        which = kind[step][told]
        reads = which == READING
        h = seen[which]
        r = np.where(reads, noise[step][told], 1.0)[:, None, None] * own_noise[which]
        r = r + np.where(reads, 0.0, noise[step][told])[:, None, None] * np.outer(first, first)
        ph = covariance[told] @ h.transpose(0, 2, 1)
        s = h @ ph + r
        gain = np.linalg.solve(s, ph.transpose(0, 2, 1)).transpose(0, 2, 1)
        innovation = value[step][told] - (h @ x[told][:, :, None])[:, :, 0]
        x[told] += (gain @ innovation[:, :, None])[:, :, 0]
        after = covariance[told] - gain @ ph.transpose(0, 2, 1)
        covariance[told] = (after + after.transpose(0, 2, 1)) / 2
    return means, variances


def _packed(rows: Sequence[FilterRow]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return kind, value, noise and hours since the event before, events first; padding tells nothing."""
    longest = max(len(row.time_us) for row in rows)
    shapes = rows[0].value.shape[1]
    kind = np.full((longest, len(rows)), NOTHING)
    value = np.zeros((longest, len(rows), shapes))
    noise, hours = np.ones((longest, len(rows))), np.zeros((longest, len(rows)))
    for place, row in enumerate(rows):
        own = slice(len(row.time_us))
        kind[own, place], value[own, place], noise[own, place] = row.kind, row.value, row.noise
        hours[1 : len(row.time_us), place] = np.diff(row.time_us) / HOUR_US
    return kind, value, noise, hours


def _observations(law: LinearLaw) -> tuple[np.ndarray, np.ndarray]:
    """Return, by kind of event, what it sees of the states and with what noise, both as wide as a reading.

    A draw fills the first line; the others see nothing, with a noise of 1 that nothing depends on.
    """
    shapes, states = law.shape.shape
    kinds = DRAW + len(law.lab)
    seen, noise = np.zeros((kinds, shapes, states)), np.repeat(np.eye(shapes)[None], kinds, axis=0)
    seen[READING], noise[READING] = law.shape, law.window_noise
    for lab in range(len(law.lab)):
        seen[DRAW + lab, 0], noise[DRAW + lab, 0, 0] = law.lab[lab], law.lab_noise[lab]
    return seen, noise
