"""How a line's errors at one patient's draws hang together, and draws freed of it (generalised least squares).

What the waveform misreads in a patient it misreads again: most of an error is the patient's own, the same at every
draw, and much of the rest passes within hours. Fitted as if all errors were independent, a line takes a patient with
forty draws for forty patients, and bends towards what is only theirs. Divided by the root of the errors' covariance
("whitened"), draws count for what they are worth, and what moves within a patient counts in full.

    covariance(i, j) = noise [i = j] + drift exp(-|hours_i - hours_j| / drift_hours) + level

Source: our decision; the estimator is Aitken's (1935). docs/assimilation.md says what it brought.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize
from torch import Tensor

_START = (1 / 3, 1 / 3, 1 / 3, 6.0)
"""Centre of the prior of noise, drift and level (shares of the mean square) and of drift_hours."""
_PRIOR_SPREAD = 1.5
"""Standard deviation of the prior of their logarithms, as of a filter's numbers: a factor 4.5 either way."""
_BOUNDS = ((1e-4, 20.0), (1e-4, 20.0), (1e-4, 20.0), (0.25, 250.0))


@dataclass(frozen=True, kw_only=True)
class ErrorCovariance:
    """Variances of an error's parts, and how long the one that passes lasts.

    The variances are shares of the errors' mean square: a line asks for their ratios alone, and so no unit matters.

    Attributes
    ----------
    noise : each draw's own
    drift, drift_hours : what passes, and its time constant
    level : the patient's own, for good
    """

    noise: float
    drift: float
    level: float
    drift_hours: float

    def matrix(self, hours: Float[np.ndarray, " draws"]) -> Float[np.ndarray, "draws draws"]:
        """Return the covariance of the errors at some draws of one patient."""
        numbers = torch.tensor([self.noise, self.drift, self.level, self.drift_hours], dtype=torch.float64)
        return _matrices(numbers, torch.from_numpy(np.asarray(hours, np.float64))[None])[0].numpy()


def fit_error_covariance(
    error: Float[np.ndarray, " draws"],
    hours: Float[np.ndarray, " draws"],
    patient: Int[np.ndarray, " draws"],
) -> ErrorCovariance:
    """Fit the covariance to errors of known draws: Gaussian likelihood, a wide prior, L-BFGS-B; no chance in it.

    Parameters
    ----------
    error : of a line that had not seen the patient, or it would look smaller than it is
    hours : when each draw was taken, from any origin
    patient : whose it is
    """
    alike = _by_count(error / (np.sqrt(np.square(error).mean()) or 1.0), hours, patient)
    low, high = np.log(_BOUNDS).T
    centre = np.log(_START)

    def objective(log_numbers: np.ndarray) -> tuple[float, np.ndarray]:
        point = torch.from_numpy(log_numbers).requires_grad_()
        away = (point - torch.from_numpy(centre)) / _PRIOR_SPREAD
        value = 0.5 * away.square().sum() + sum(_surprise(point.exp(), *group) for group in alike)
        value.backward()
        assert point.grad is not None
        return float(value.detach()), point.grad.numpy()

    end = minimize(objective, centre, jac=True, method="L-BFGS-B", bounds=list(zip(low, high, strict=True)))
    noise, drift, level, drift_hours = np.exp(end.x).tolist()
    return ErrorCovariance(noise=noise, drift=drift, level=level, drift_hours=drift_hours)


def whitened(
    covariance: ErrorCovariance,
    values: Float[np.ndarray, "draws columns"],
    hours: Float[np.ndarray, " draws"],
    patient: Int[np.ndarray, " draws"],
) -> Float[np.ndarray, "draws columns"]:
    """Return values in which the errors of all draws are independent and alike; row by row of one draw each."""
    made = np.empty(values.shape)
    for rows in _rows_of(patient):
        root = np.linalg.cholesky(covariance.matrix(hours[rows]))
        made[rows] = np.linalg.solve(root, values[rows])
    return made


_Alike = tuple[Float[Tensor, "patients draws"], Float[Tensor, "patients draws"]]


def _by_count(error: np.ndarray, hours: np.ndarray, patient: np.ndarray) -> list[_Alike]:
    """Return errors and hours of the patients with equally many draws together, so that none is filled up."""
    counted: dict[int, list[np.ndarray]] = {}
    for rows in _rows_of(patient):
        counted.setdefault(len(rows), []).append(rows)
    error, hours = np.asarray(error, np.float64), np.asarray(hours, np.float64)
    return [
        (torch.from_numpy(error[np.stack(rows)]), torch.from_numpy(hours[np.stack(rows)]))
        for _, rows in sorted(counted.items())
    ]


def _rows_of(patient: Int[np.ndarray, " draws"]) -> list[Int[np.ndarray, " _"]]:
    order = np.argsort(patient, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(patient[order])) + 1) if len(order) else []


def _surprise(numbers: Tensor, error: Tensor, hours: Tensor) -> Tensor:
    """Return the negative log likelihood of errors of some patients, but for its constant."""
    root = torch.linalg.cholesky(_matrices(numbers, hours))
    white = torch.linalg.solve_triangular(root, error[..., None], upper=False)
    return 0.5 * white.square().sum() + root.diagonal(dim1=-2, dim2=-1).log().sum()


def _matrices(
    numbers: Float[Tensor, " 4"], hours: Float[Tensor, "patients draws"]
) -> Float[Tensor, "patients draws draws"]:
    noise, drift, level, drift_hours = numbers
    apart = (hours[:, :, None] - hours[:, None, :]).abs()
    return (
        noise * torch.eye(hours.shape[1], dtype=hours.dtype) + drift * torch.exp(-apart / drift_hours) + level
    )
