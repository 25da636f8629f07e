"""Estimates without a waveform: the last lab carried forward, and what two numbers a lab make of it.

Every method here estimates the same examples as the models do, and sees no lab that they do not see; live
LOCF is the exception, and its label says so.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from pipeline.labs.base import CarryForward

Key = tuple[str, str]
"""(protocol, lab): both protocols have their own coefficients, because the last lab's age differs so much."""

DECAY_HOURS = np.append(np.geomspace(1.0, 720.0, 25), np.inf)
"""Time constants tried for decayed LOCF, hours; infinity is LOCF itself."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """An estimate that the alignment has already put beside the example."""

    name: str

    def estimate(self, examples: pd.DataFrame) -> Float[np.ndarray, " examples"]:
        """Return the column."""
        return examples[self.name].to_numpy("float64")


LOCF = Column(name="last_lab")
LIVE_LOCF = Column(name="live_last_lab")
PATIENT_MEAN = Column(name="history_mean")


@dataclass(frozen=True, kw_only=True)
class ShrunkLocf:
    """a + b LOCF, least squares over the training examples of a protocol and lab.

    Attributes
    ----------
    coefficients : (a, b) by (protocol, lab); a pair without training examples is carried forward as it is
    """

    coefficients: Mapping[Key, tuple[float, float]]

    def estimate(self, examples: pd.DataFrame) -> Float[np.ndarray, " examples"]:
        """Return a + b last_lab."""
        estimates = LOCF.estimate(examples).copy()
        for key, rows in _rows_by_key(examples):
            a, b = self.coefficients.get(key, (0.0, 1.0))
            estimates[rows] = a + b * estimates[rows]
        return estimates


@dataclass(frozen=True, kw_only=True)
class DecayedLocf:
    """The last lab, drawn to the training mean with age: mean + (last - mean) exp(-age / tau).

    Attributes
    ----------
    means : training mean by (protocol, lab)
    decay_hours : tau by (protocol, lab), of ``DECAY_HOURS`` the one with the least squared error in training
    """

    means: Mapping[Key, float]
    decay_hours: Mapping[Key, float]

    def estimate(self, examples: pd.DataFrame) -> Float[np.ndarray, " examples"]:
        """Return the decayed last lab."""
        estimates = LOCF.estimate(examples).copy()
        age = examples["hours_since_last_lab"].to_numpy("float64")
        for key, rows in _rows_by_key(examples):
            if key in self.means:
                mean, tau = self.means[key], self.decay_hours[key]
                estimates[rows] = _decayed(estimates[rows], age[rows], mean, tau)
        return estimates


@dataclass(frozen=True, kw_only=True)
class TrainingMean:
    """One constant a protocol and lab; where training has no example, the last lab."""

    means: Mapping[Key, float]

    def estimate(self, examples: pd.DataFrame) -> Float[np.ndarray, " examples"]:
        """Return the constant."""
        estimates = LOCF.estimate(examples).copy()
        for key, rows in _rows_by_key(examples):
            if key in self.means:
                estimates[rows] = self.means[key]
        return estimates


def fit_shrunk_locf(train_examples: pd.DataFrame) -> ShrunkLocf:
    """Fit a and b by least squares; without spread in the last lab, b = 0 and a = the mean."""
    coefficients = {}
    for key, rows in _rows_by_key(train_examples):
        coefficients[key] = least_squares_line(
            train_examples["last_lab"].to_numpy("float64")[rows],
            train_examples["truth"].to_numpy("float64")[rows],
        )
    return ShrunkLocf(coefficients=coefficients)


def fit_decayed_locf(train_examples: pd.DataFrame) -> DecayedLocf:
    """Take the training mean, and the time constant with the least squared error."""
    means = fit_training_mean(train_examples).means
    truth, last, age = (
        train_examples[name].to_numpy("float64") for name in ("truth", "last_lab", "hours_since_last_lab")
    )
    decay = {}
    for key, rows in _rows_by_key(train_examples):
        errors = [
            np.square(truth[rows] - _decayed(last[rows], age[rows], means[key], tau)).sum()
            for tau in DECAY_HOURS
        ]
        decay[key] = float(DECAY_HOURS[np.argmin(errors)])
    return DecayedLocf(means=means, decay_hours=decay)


def fit_training_mean(train_examples: pd.DataFrame) -> TrainingMean:
    """Take the mean truth of each protocol and lab."""
    truth = train_examples["truth"].to_numpy("float64")
    return TrainingMean(means={key: float(truth[rows].mean()) for key, rows in _rows_by_key(train_examples)})


def fit_carry_forward(train_examples: pd.DataFrame) -> dict[str, CarryForward]:
    """Return every method of this module, fitted, under its name in ``schema.METHODS``."""
    return {
        "locf": LOCF,
        "shrunk_locf": fit_shrunk_locf(train_examples),
        "decayed_locf": fit_decayed_locf(train_examples),
        "patient_mean": PATIENT_MEAN,
        "training_mean": fit_training_mean(train_examples),
        "live_locf": LIVE_LOCF,
    }


def least_squares_line(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Return a and b of y = a + b x; b = 0 where x has no spread."""
    spread = np.square(x - x.mean()).sum()
    b = float(((x - x.mean()) * (y - y.mean())).sum() / spread) if spread > 0 else 0.0
    return float(y.mean() - b * x.mean()), b


def _decayed(last: np.ndarray, age_hours: np.ndarray, mean: float, tau: float) -> np.ndarray:
    return mean + (last - mean) * np.exp(-age_hours / tau)


def _rows_by_key(examples: pd.DataFrame) -> Iterator[tuple[Key, np.ndarray]]:
    """Yield each (protocol, lab) with the positions of its rows."""
    for key, rows in examples.groupby(["protocol", "lab"]).indices.items():
        protocol, lab = key  # pyright: ignore[reportGeneralTypeIssues]  # two keys make a pair
        yield (str(protocol), str(lab)), rows
