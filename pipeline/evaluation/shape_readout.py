"""What an embedding tells of the planted pulse shape at best: a read-out fitted on the truth, and its errors' law.

A ridge line through the mean embedding of a few minutes, or through it and the products of its leading directions,
whichever errs less on patients left out. It is unshrunk, so that the shape enters it with a weight of one, and its
errors are divided into what lasts in a patient, what drifts and what is new in every window: with these a filter that
knows the cohort's law makes the most of the embedding (``sources.synthetic.ideal``).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from pipeline.foundation.errors import ConfigError
from pipeline.foundation.schema import HOUR_US, WINDOW_US
from pipeline.sources.synthetic.law import ReadingErrors
from pipeline.training.ridge import FOLDS, Ridge, ridge

BLOCK_US = 300_000_000
"""A reading tells of at most five minutes: the step of the planted latents."""
LEADING = 20
"""Directions of most variance whose products enter the quadratic read-out."""
FITTED_BLOCKS = 20_000
"""Blocks on which a read-out is fitted at most, evenly over all patients'."""
DRIFT_HOURS = np.geomspace(0.5, 64, 15)
"""Among which the time constant of the drifting error is chosen."""
_LEAST_PAIRS = 30
_FLOOR = 1e-6


@dataclass(frozen=True, kw_only=True)
class ShapeBlocks:
    """A patient's windows, a few minutes each, never across a draw: a question at a draw sees whole blocks alone.

    Attributes
    ----------
    first : row of each block's first window
    count : windows in each
    time_us : mean of the windows' middles
    latest_us : middle of the last window
    end_us : its end, when the block is known
    """

    first: Int[np.ndarray, " blocks"]
    count: Int[np.ndarray, " blocks"]
    time_us: Int[np.ndarray, " blocks"]
    latest_us: Int[np.ndarray, " blocks"]
    end_us: Int[np.ndarray, " blocks"]


def shape_blocks(start_us: Int[np.ndarray, " windows"], draws_us: Int[np.ndarray, " draws"]) -> ShapeBlocks:
    """Divide a patient's usable windows, in order of time; `draws_us`: sorted times of draws."""
    end_us = start_us + WINDOW_US
    cell, draws_before = -(-end_us // BLOCK_US), np.searchsorted(draws_us, end_us, side="left")
    new = (np.diff(cell, prepend=-1) != 0) | (np.diff(draws_before, prepend=0) != 0)
    if len(new):
        new[0] = True
    first = np.flatnonzero(new)
    count = np.diff(np.append(first, len(start_us)))
    last = first + count - 1
    middle = start_us + WINDOW_US // 2
    sums = np.add.reduceat(middle - middle[0], first) if len(first) else first
    return ShapeBlocks(
        first=first, count=count, time_us=sums // np.maximum(count, 1) + (middle[0] if len(middle) else 0),
        latest_us=middle[last], end_us=end_us[last],
    )  # fmt: skip


def block_means(embeddings: np.ndarray, blocks: ShapeBlocks) -> Float[np.ndarray, "blocks width"]:
    """Return the mean embedding of each block."""
    if not len(blocks.first):
        return np.zeros((0, embeddings.shape[1]))
    return np.add.reduceat(embeddings.astype(np.float64), blocks.first, axis=0) / blocks.count[:, None]


@dataclass(frozen=True, kw_only=True)
class LabelledBlocks:
    """Blocks of one training patient with the true shape."""

    mean: Float[np.ndarray, "blocks width"]
    shape: Float[np.ndarray, "blocks shapes"]
    time_us: Int[np.ndarray, " blocks"]
    count: Int[np.ndarray, " blocks"]


@dataclass(frozen=True, kw_only=True)
class ShapeReadout:
    """A fitted read-out.

    Attributes
    ----------
    features : of mean embeddings, what the line goes through
    weights, bias : the unshrunk line
    errors : of its readings, of patients left out
    explained : share of each parameter's variance that it explains in patients left out, before it was unshrunk
    quadratic : whether products enter
    """

    features: Callable[[np.ndarray], np.ndarray]
    weights: Float[np.ndarray, "features shapes"]
    bias: Float[np.ndarray, " shapes"]
    errors: ReadingErrors
    explained: Float[np.ndarray, " shapes"]
    quadratic: bool

    def of(self, mean: Float[np.ndarray, "blocks width"]) -> Float[np.ndarray, "blocks shapes"]:
        """Read the shape's drivers from mean embeddings."""
        return self.features(mean) @ self.weights + self.bias


def fit_readout(training: Mapping[str, LabelledBlocks]) -> ShapeReadout:
    """Fit linear and quadratic read-out on training patients and keep the one that errs less on patients left out.

    Raises
    ------
    ConfigError : fewer training patients than folds
    """
    patients = sorted(patient for patient, blocks in training.items() if len(blocks.time_us))
    if len(patients) < FOLDS:
        raise ConfigError(
            f"what the embedding tells of the pulse's shape is read on {len(patients)} training patients; {FOLDS} are "
            "needed: make the cohort larger"
        )
    total = sum(len(training[patient].time_us) for patient in patients)
    every = max(1, -(-total // FITTED_BLOCKS))
    taken = {patient: slice(None, None, every) for patient in patients}
    x = np.concatenate([training[patient].mean[taken[patient]] for patient in patients])
    y = np.concatenate([training[patient].shape[taken[patient]] for patient in patients])
    group = np.repeat(
        np.arange(len(patients)), [len(training[patient].time_us[taken[patient]]) for patient in patients]
    )
    found = []
    for features, quadratic in ((_standardised(x), False), (_with_products(x), True)):
        lines = [ridge(features(x), column, group) for column in y.T]
        left_out = np.stack([line.left_out for line in lines], axis=1)
        found.append(
            (np.square(left_out - y).sum(axis=0) / y.var(axis=0) / len(y), features, quadratic, lines)
        )
    unexplained, features, quadratic, lines = min(found, key=lambda one: float(one[0].sum()))
    slope, level = _shrinkage(np.stack([line.left_out for line in lines], axis=1), y)
    back = np.linalg.inv(slope)
    residuals = {
        patient: (_left_out(lines, features(training[patient].mean), number % FOLDS) - level) @ back
        - training[patient].shape
        for number, patient in enumerate(patients)
    }
    weights = np.stack([line.weights for line in lines], axis=1)
    return ShapeReadout(
        features=features, weights=weights @ back, bias=(np.array([line.bias for line in lines]) - level) @ back,
        errors=error_law(
            [
                BlockErrors(error=residuals[p], time_us=training[p].time_us, count=training[p].count)
                for p in patients
            ]
        ),
        explained=1 - unexplained, quadratic=quadratic,
    )  # fmt: skip


def _standardised(x: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    mean, spread = x.mean(axis=0), x.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    return lambda values: (values - mean) / scale


def _with_products(x: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    plain = _standardised(x)
    z = plain(x)
    variance, directions = np.linalg.eigh(np.cov(z.T))
    kept = min(LEADING, z.shape[1])
    leading = directions[:, -kept:] / np.sqrt(np.maximum(variance[-kept:], 1e-9))
    upper = np.triu_indices(kept)

    def features(values: np.ndarray) -> np.ndarray:
        z = plain(values)
        along = z @ leading
        return np.hstack([z, (along[:, :, None] * along[:, None, :])[:, upper[0], upper[1]]])

    return features


def _left_out(lines: Sequence[Ridge], features: np.ndarray, fold: int) -> np.ndarray:
    """Read by the lines that were fitted without this fold."""
    weights = np.stack([line.fold_weights[fold] for line in lines], axis=1)
    return features @ weights + np.array([line.fold_bias[fold] for line in lines])


def _shrinkage(read: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return slope and level of read = true @ slope + level, by least squares."""
    design = np.column_stack([true, np.ones(len(true))])
    found = np.linalg.lstsq(design, read, rcond=None)[0]
    return found[:-1], found[-1]


@dataclass(frozen=True, kw_only=True)
class BlockErrors:
    """How a read-out erred in the blocks of one patient whom it had not seen."""

    error: Float[np.ndarray, "blocks shapes"]
    time_us: Int[np.ndarray, " blocks"]
    count: Int[np.ndarray, " blocks"]


def error_law(patients: Sequence[BlockErrors]) -> ReadingErrors:
    """Divide errors into what lasts, what drifts and what is new, by their products over time."""
    shapes = patients[0].error.shape[1]
    at_once = np.zeros((shapes, shapes))
    for own in patients:
        at_once += own.error.T @ own.error
    blocks = sum(len(own.error) for own in patients)
    at_once /= blocks
    hours, products, pairs = _products_over_time(patients)
    share = sum(float((1 / own.count).sum()) for own in patients) / blocks
    if not len(hours):
        nothing = np.zeros((shapes, shapes))
        return ReadingErrors(
            constant=nothing, drift=nothing, drift_hours=1.0, window=_positive(at_once / share)
        )
    best: tuple[float, float, np.ndarray, np.ndarray] | None = None
    for drift_hours in DRIFT_HOURS:
        design = (
            np.stack([np.ones(len(hours)), np.exp(-hours / drift_hours)], axis=1) * np.sqrt(pairs)[:, None]
        )
        wanted = products.reshape(len(hours), -1) * np.sqrt(pairs)[:, None]
        found = np.linalg.lstsq(design, wanted, rcond=None)[0].reshape(2, shapes, shapes)
        constant, drift = (_positive(part) for part in found)
        error = float(np.square(design @ np.stack([constant.ravel(), drift.ravel()]) - wanted).sum())
        if best is None or error < best[0]:
            best = (error, float(drift_hours), constant, drift)
    assert best is not None
    _, drift_hours, constant, drift = best
    window = _positive((at_once - constant - drift) / share, floor=_FLOOR)
    return ReadingErrors(constant=constant, drift=drift, drift_hours=drift_hours, window=window)


def _products_over_time(patients: Sequence[BlockErrors]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean gap (hours), mean product of errors and number of pairs, for lags that double from one block on."""
    longest = max(len(own.time_us) for own in patients)
    hours, products, pairs = [], [], []
    for lag in 2 ** np.arange(math.floor(math.log2(max(longest - 1, 1))) + 1):
        gap, product, n = 0.0, 0.0, 0
        for own in patients:
            apart = (own.time_us[lag:] - own.time_us[:-lag]) / HOUR_US
            near = apart <= 1.5 * lag * BLOCK_US / HOUR_US  # no gap of the recording lies between
            one, other = own.error[:-lag][near], own.error[lag:][near]
            gap, n = gap + float(apart[near].sum()), n + int(near.sum())
            product = product + (one.T @ other + other.T @ one) / 2
        if n >= _LEAST_PAIRS:
            hours.append(gap / n)
            products.append(product / n)
            pairs.append(n)
    return np.array(hours), np.array(products), np.array(pairs, dtype=float)


def _positive(matrix: np.ndarray, floor: float = 0.0) -> np.ndarray:
    """Return the nearest covariance: no variance below `floor` along any direction."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * np.maximum(values, floor)) @ vectors.T
