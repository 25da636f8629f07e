"""The lines of a lab regressor, fitted before training: ridge regression, twice, in closed form.

Draws are few and windows many, so the waveform's direction of each lab is learned first, from every training
target, interpolated ones included, without the history (an interpolated target contains the last result, and a
fit that sees both learns to carry it forward). How much to trust that direction, beside the lab's own history, is
then learned from the measured draws alone, on estimates for patients whom the direction was not fitted on. A model
with a reader of the latest windows (``pipeline.reader_fit``) has its reading weighed there too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from models.inputs import PackedInputs
from models.lab_regressor import LabRegressor
from models.window_reader import WindowReader
from pipeline.batches import PieceSource
from pipeline.errors import ConfigError
from pipeline.reader_fit import Draws, cross_fit, reading_of
from pipeline.schedule import micro_batches

PENALTIES = np.logspace(0, 4, 9)
FOLDS = 5
STEPS_APART = 20
"""Steps between two interpolated targets: neighbours say the same."""
STEPS_AT_ONCE = 16_384
LEAST_ROWS = 4 * FOLDS
"""A lab with fewer measured draws keeps the lines at zero."""


@dataclass(frozen=True, kw_only=True)
class Ridge:
    """A line: `weights` and `bias` on the inputs as they come, and what it says of rows left out of its fit."""

    weights: Float[np.ndarray, " features"]
    bias: float
    left_out: Float[np.ndarray, " rows"]


def ridge(
    x: Float[np.ndarray, "rows features"], y: Float[np.ndarray, " rows"], group: Int[np.ndarray, " rows"]
) -> Ridge:
    """Fit a line on standardised inputs; the penalty is that of the least squared error on groups left out."""
    mean, spread = x.mean(axis=0), x.std(axis=0)
    z = (x - mean) / np.where(spread > 0, spread, 1.0)
    fold = np.unique(group, return_inverse=True)[1] % FOLDS
    left_out = np.zeros((len(PENALTIES), len(y)))
    for k in range(FOLDS):
        fitted, held = fold != k, fold == k
        if fitted.any() and held.any():
            slopes, bias = _slopes(z[fitted], y[fitted])
            left_out[:, held] = slopes @ z[held].T + bias[:, None]
    best = int(np.argmin(np.square(left_out - y).sum(axis=1)))
    slopes, bias = _slopes(z, y)
    weights = slopes[best] / np.where(spread > 0, spread, 1.0)
    return Ridge(weights=weights, bias=float(bias[best] - weights @ mean), left_out=left_out[best])


def _slopes(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return one row of slopes, and one intercept, for each penalty."""
    centre, level = z.mean(axis=0), y.mean()
    values, vectors = np.linalg.eigh((z - centre).T @ (z - centre))
    along = vectors.T @ ((z - centre).T @ (y - level))
    slopes = (along / (np.maximum(values, 0.0) + PENALTIES[:, None])) @ vectors.T
    return slopes, level - slopes @ centre


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Steps of training pieces: running means by time constant, own history by lab, targets, patients.

    The latest windows are kept for measured draws alone: `windows` has as many rows as `measured` has rows with a draw.
    """

    means: Float[np.ndarray, "rows scales features"]
    history: Float[np.ndarray, "rows labs history"]
    target: Float[np.ndarray, "rows labs"]
    measured: np.ndarray
    patient: Int[np.ndarray, " rows"]
    windows: np.ndarray
    usable: np.ndarray

    @property
    def drawn(self) -> np.ndarray:
        """Rows with a measured draw of any lab."""
        return np.asarray(self.measured.any(axis=1))

    @property
    def draws(self) -> Draws:
        """Measured draws as the reader sees them."""
        target = np.where(self.measured, self.target, np.nan)[self.drawn]
        return Draws(
            windows=self.windows, usable=self.usable, target=target, patient=self.patient[self.drawn]
        )


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """A fitted reader, and for every row what a reader that has not seen the patient says (0 without a draw)."""

    reader: WindowReader
    left_out: Float[np.ndarray, "rows labs"]


def fit_lines(model: LabRegressor, source: PieceSource, seed: int) -> None:
    """Set, and hold, every line, reading and read-out bias of `model` to what fits the targets of `source`.

    Raises
    ------
    ConfigError : a model without running means
    """
    if model.waveform.means is None:
        raise ConfigError(
            "training.fit_lines needs a model with lines through running means: set model.mean_steps"
        )
    rows = _rows(model, source)
    reading = None
    if model.waveform.reader is not None and rows.drawn.sum() >= LEAST_ROWS:
        reading = _fit_reader(rows, model.waveform.reader.lstm.hidden_size, seed)
        model.waveform.set_reader(reading.reader)
    for column, lab in enumerate(source.labs):
        known, measured = np.isfinite(rows.target[:, column]), rows.measured[:, column]
        if measured.sum() >= LEAST_ROWS:
            _fit_lab(model, lab, rows, column, known, measured, reading)
    model.hold_lines()


def _fit_reader(rows: _Rows, width: int, seed: int) -> _Reading:
    reader, said = cross_fit(rows.draws, width, seed)
    left_out = np.zeros(rows.target.shape)
    left_out[rows.drawn] = said
    return _Reading(reader=reader, left_out=left_out)


def _fit_lab(
    model: LabRegressor,
    lab: str,
    rows: _Rows,
    column: int,
    known: np.ndarray,
    measured: np.ndarray,
    reading: _Reading | None,
) -> None:
    y, scales = rows.target[:, column], rows.means.shape[1]
    middle = scales // 2
    direction = ridge(rows.means[known, middle], y[known], rows.patient[known])
    # The estimate for a draw must come from a fit without its patient, or it would be trusted too much.
    estimate = np.einsum("rsf,f->rs", rows.means, direction.weights)
    shift = np.zeros(len(y))
    shift[known] = direction.left_out - direction.bias - estimate[known, middle]
    inputs = np.concatenate([estimate + shift[:, None], rows.history[:, column]], axis=1)[measured]
    said = None if reading is None else reading.left_out[measured, column]
    line, trust = _trusting(inputs, said, y[measured], rows.patient[measured])
    waveform, history = np.split(line.weights, [scales])
    weights, bias = (None, 0.0) if reading is None else reading_of(reading.reader, column, trust)
    directions = waveform[:, None] * direction.weights
    model.set_line(lab, directions.ravel(), weights, history, line.bias + bias)


def _trusting(
    inputs: np.ndarray, said: np.ndarray | None, y: np.ndarray, patient: np.ndarray
) -> tuple[Ridge, float]:
    """Return the line through `inputs`, and the weight of what the reader said beside it.

    The weight is 0 unless it is positive and lowers the error on patients left out. With few draws a reader says
    little more than the mean of the others, which is low where a patient's own value is high: a line through that
    turns it round and magnifies it (seen with 80 patients: a weight of -1.9, and R2 of glucose 0.24 -> 0.00).
    """
    line = ridge(inputs, y, patient)
    if said is None:
        return line, 0.0
    both = ridge(np.column_stack([inputs, said]), y, patient)
    trust = float(both.weights[-1])
    if trust <= 0 or np.square(both.left_out - y).sum() >= np.square(line.left_out - y).sum():
        return line, 0.0
    return Ridge(weights=both.weights[:-1], bias=both.bias, left_out=both.left_out), trust


def _rows(model: LabRegressor, source: PieceSource) -> _Rows:
    parts = [
        _rows_of(model, source, group, run, patients[run])
        for group, patients in source.item_patients().items()
        for run in _runs(source, group, len(patients))
    ]
    return _Rows(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in _Rows.__dataclass_fields__})


def _runs(source: PieceSource, group: int, count: int) -> list[list[int]]:
    return micro_batches(range(count), source.lengths(group, range(count)), STEPS_AT_ONCE)


def _rows_of(
    model: LabRegressor, source: PieceSource, group: int, items: Sequence[int], patients: np.ndarray
) -> _Rows:
    batch = source.load(group, items, epoch=0)
    assert isinstance(batch.inputs, PackedInputs)
    with torch.no_grad():
        seen = model.line_inputs(batch.inputs)
    lengths = batch.inputs.cu_seqlens.diff().numpy()
    piece = np.repeat(np.arange(len(items)), lengths)
    step = np.arange(len(piece)) - np.repeat(batch.inputs.cu_seqlens[:-1].numpy(), lengths)
    weights = batch.weights.numpy()
    measured = weights >= 1.0
    here = np.flatnonzero(measured.any(axis=1) | ((weights > 0).any(axis=1) & (step % STEPS_APART == 0)))
    drawn = here[measured[here].any(axis=1)]
    none = torch.zeros(len(piece), 0)
    return _Rows(
        means=seen.means[here].double().numpy(),
        history=seen.history.double().numpy()[piece[here]],
        target=np.where(weights[here] > 0, batch.targets.numpy()[here], np.nan).astype(np.float64),
        measured=measured[here],
        patient=patients[piece[here]],
        windows=(none if seen.windows is None else seen.windows)[drawn].numpy(),
        usable=(none if seen.usable is None else seen.usable)[drawn].numpy(),
    )
