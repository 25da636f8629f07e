"""Ridge regression from embeddings: every estimate by a line that was fitted, penalty and all, on other patients.

One decomposition of the features serves all penalties and all targets; scikit-learn's `Ridge` takes one penalty each.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from pipeline.training.schedule import seed_of

PENALTIES = np.logspace(-3, 5, 17)
"""Of standardised features (our decision)."""
INNER_FOLDS = 5
_LEAST_SHARE = 1e-12
"""Of the largest squared singular value: less is rounding."""


class _Lines:
    """Lines from standardised features `x` to any targets, for any penalty, with an intercept that has none."""

    def __init__(self, x: Float[np.ndarray, "n width"]):
        self._mean, spread = x.mean(axis=0), x.std(axis=0)
        self._spread = np.where(spread > 0, spread, 1.0)
        self._z = (x - self._mean) / self._spread
        if len(x) > x.shape[1]:
            values, self._axes = np.linalg.eigh(self._z.T @ self._z)
            self._squared = np.maximum(values, 0.0)
        else:  # several times faster than singular values of so few rows
            values, turned = np.linalg.eigh(self._z @ self._z.T)
            kept = values > _LEAST_SHARE * max(values[-1], 1e-300)
            self._squared = values[kept]
            self._axes = self._z.T @ (turned[:, kept] / np.sqrt(self._squared))

    def estimates(
        self, y: Float[np.ndarray, "n targets"], at: Float[np.ndarray, "m width"], penalty: np.ndarray
    ) -> Float[np.ndarray, "m targets"]:
        """Return what the lines fitted to `y` say of the features `at`; `penalty` has one number a target."""
        level = y.mean(axis=0)
        along = self._axes.T @ (self._z.T @ (y - level))
        weights = self._axes @ (along / (self._squared[:, None] + penalty))
        return level + (at - self._mean) / self._spread @ weights


def estimates_of_others(
    x: Float[np.ndarray, "n width"],
    y: Float[np.ndarray, "n targets"],
    patients: Int[np.ndarray, " n"],
    others: Float[np.ndarray, "m width"],
    *,
    seed: int = 0,
) -> Float[np.ndarray, "m targets"]:
    """Estimate the targets of other patients' windows by lines fitted on `patients`.

    Each target's penalty has the least absolute error on patients left out of an inner fit.
    """
    errors = np.zeros((len(PENALTIES), y.shape[1]))
    for inner in patient_folds(patients, INNER_FOLDS, seed + 1):
        lines = _Lines(x[~inner])
        for k, penalty in enumerate(PENALTIES):
            guess = lines.estimates(y[~inner], x[inner], np.full(y.shape[1], penalty))
            errors[k] += np.abs(guess - y[inner]).sum(axis=0)
    return _Lines(x).estimates(y, others, PENALTIES[errors.argmin(axis=0)])


def held_out_estimates(
    x: Float[np.ndarray, "n width"],
    y: Float[np.ndarray, "n targets"],
    patients: Int[np.ndarray, " n"],
    *,
    folds: int = 10,
    seed: int = 0,
) -> Float[np.ndarray, "n targets"]:
    """Estimate each window's targets by lines fitted on other patients' windows, all patients in turn."""
    estimates = np.empty(y.shape)
    for held in patient_folds(patients, folds, seed):
        estimates[held] = estimates_of_others(x[~held], y[~held], patients[~held], x[held], seed=seed)
    return estimates


def mean_estimates(
    y: Float[np.ndarray, "n targets"], patients: Int[np.ndarray, " n"], *, folds: int = 10, seed: int = 0
) -> Float[np.ndarray, "n targets"]:
    """Estimate each window's targets by the mean of other patients' windows."""
    return held_out_estimates(np.zeros((len(y), 1)), y, patients, folds=folds, seed=seed)


def patient_folds(patients: Int[np.ndarray, " n"], folds: int, seed: int) -> Iterator[np.ndarray]:
    """Yield, for each fold, which windows are its held-out patients'.

    Not scikit-learn's `GroupKFold`: it draws other folds, and the committed figures of the probe are those of these.
    """
    names = np.unique(patients)
    order = np.random.default_rng(seed_of(seed, len(names))).permutation(names)
    for part in np.array_split(order, min(folds, len(names))):
        yield np.isin(patients, part)
