"""A line from the waveform's features to one lab, without history, and others like it that have not seen a patient.

Each is fitted under the covariance of its own errors (``patient_errors``): an ordinary ridge line first, whose errors
at patients left out tell it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from models.assimilation.transform import LabTransform
from pipeline.foundation.schema import HOUR_US
from pipeline.training.patient import TrainingPatient
from pipeline.training.patient_errors import ErrorCovariance, fit_error_covariance, whitened
from pipeline.training.ridge import FOLDS, folds, ridge
from pipeline.training.ten_minute_means import BlockMeans

PENALTIES = np.logspace(-1, 5, 13)
"""Of a whitened line, among which left-out patients choose."""
LEAST_ROWS = 4 * FOLDS
"""A lab with fewer draws beside a waveform has no line, and so no readings."""
LATEST_US = 30 * 60 * 1_000_000
"""A draw is read from the blocks that ended in the half hour before it."""


@dataclass(frozen=True, kw_only=True)
class ReadDraws:
    """One lab's draws that have a block in the half hour before them.

    Attributes
    ----------
    features : mean of these blocks
    target : on the filter's scale
    hours : when each was taken
    patient : number among the training patients
    """

    features: Float[np.ndarray, "draws features"]
    target: Float[np.ndarray, " draws"]
    hours: Float[np.ndarray, " draws"]
    patient: Int[np.ndarray, " draws"]

    @classmethod
    def of(cls, lab: str, training: Sequence[TrainingPatient], transform: LabTransform) -> "ReadDraws":
        """Collect them."""
        features, target, hours, number = [], [], [], []
        for patient in training:
            time_us, value = patient.draws(lab)
            for time, scaled in zip(time_us.tolist(), transform.to_scale(value).tolist(), strict=True):
                latest = patient.features.latest(time, LATEST_US)
                if latest is not None:
                    features.append(latest)
                    target.append(scaled)
                    hours.append(time / HOUR_US)
                    number.append(patient.number)
        width = training[0].features.mean.shape[1]
        return cls(
            features=np.array(features).reshape(-1, width), target=np.array(target, float),
            hours=np.array(hours, float), patient=np.array(number, np.int64),
        )  # fmt: skip

    def without(self, fold: int, folds: int) -> "ReadDraws":
        """Return the draws of the patients whom a fold leaves."""
        kept = self.patient % folds != fold
        return ReadDraws(
            features=self.features[kept],
            target=self.target[kept],
            hours=self.hours[kept],
            patient=self.patient[kept],
        )

    @property
    def few(self) -> bool:
        """Whether they are too few for a line."""
        return len(self.target) < LEAST_ROWS or len(np.unique(self.patient)) < FOLDS

    def left_out(self) -> Float[np.ndarray, " draws"]:
        """Return what an ordinary line says of each, without having seen the patient."""
        return ridge(self.features, self.target, self.patient).left_out

    def error_covariance(self) -> ErrorCovariance | None:
        """Return how an ordinary line's errors hang together; None: too few draws."""
        if self.few:
            return None
        return fit_error_covariance(self.target - self.left_out(), self.hours, self.patient)


@dataclass(frozen=True, kw_only=True)
class Line:
    """What the waveform says of a lab: weights on features, and a bias; on the filter's scale."""

    weights: Float[np.ndarray, " features"]
    bias: float

    def read(self, means: BlockMeans) -> Float[np.ndarray, " blocks"]:
        """Return the reading of every block; each depends on its own features alone, to the bit."""
        return np.array([self.weights @ row + self.bias for row in means.mean])


@dataclass(frozen=True, kw_only=True)
class CrossFitted:
    """The line of all training patients, and those that each leave out a fold of them; None: too few draws."""

    whole: Line | None
    without: tuple[Line | None, ...]

    def read(self, means: BlockMeans, fold: int | None) -> Float[np.ndarray, " blocks"]:
        """Read a patient, with the line that has not seen their `fold` (None: no training patient); NaN without one."""
        line = self.whole if fold is None else self.without[fold]
        return np.full(len(means.end_us), np.nan) if line is None else line.read(means)


def cross_fitted_line(draws: ReadDraws) -> CrossFitted:
    """Fit all of them; each line's penalty and covariance are those of its own patients."""
    held = [_line(draws.without(k, FOLDS)) for k in range(FOLDS)]
    return CrossFitted(whole=_line(draws), without=tuple(held))


def fold_of(patients: Sequence[str]) -> dict[str, int]:
    """Return the fold of each training patient."""
    return {patient: number % FOLDS for number, patient in enumerate(sorted(patients))}


def _line(draws: ReadDraws) -> Line | None:
    if draws.few:
        return None
    patient = draws.patient
    return generalised_line(
        draws.features, draws.target, draws.left_out(), draws.hours, patient, folds(patient)
    )


def generalised_line(
    x: Float[np.ndarray, "draws features"],
    y: Float[np.ndarray, " draws"],
    left_out: Float[np.ndarray, " draws"],
    hours: Float[np.ndarray, " draws"],
    patient: Int[np.ndarray, " draws"],
    fold: Int[np.ndarray, " draws"],
) -> Line:
    """Fit a line under the covariance of its errors; its penalty is that of the least whitened error on folds left out.

    Parameters
    ----------
    left_out : what an ordinary line says of each draw without having seen its patient
    fold : of each draw's patient, for the choice of the penalty
    """
    covariance = fit_error_covariance(y - left_out, hours, patient)
    mean, spread = x.mean(axis=0), x.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    columns = np.column_stack([np.ones(len(y)), (x - mean) / spread, y])
    z, target = np.split(whitened(covariance, columns, hours, patient), [-1], axis=1)
    error = np.zeros(len(PENALTIES))
    for k in np.unique(fold):
        held = fold == k
        if not held.all():
            said = z[held] @ _slopes(z[~held], target[~held, 0], PENALTIES).T
            error += np.square(target[held] - said).sum(axis=0)
    (best,) = _slopes(z, target[:, 0], PENALTIES[[int(np.argmin(error))]])
    weights = best[1:] / spread
    return Line(weights=weights, bias=float(best[0] - weights @ mean))


def _slopes(
    z: Float[np.ndarray, "draws columns"],
    y: Float[np.ndarray, " draws"],
    penalties: Float[np.ndarray, " penalties"],
) -> Float[np.ndarray, "penalties columns"]:
    """Return the coefficients under each penalty; the first column is the intercept's, which has none."""
    free = z[:, 0]
    within = float(free @ free)
    rest = z[:, 1:] - np.outer(free, free @ z[:, 1:] / within)
    values, vectors = np.linalg.eigh(rest.T @ rest)
    along = vectors.T @ (rest.T @ y)
    slopes = (along / (np.maximum(values, 0.0) + penalties[:, None])) @ vectors.T
    level = (free @ y - slopes @ (z[:, 1:].T @ free)) / within
    return np.column_stack([level, slopes])
