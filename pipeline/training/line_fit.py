"""Each lab's lines, of the method ``lines`` or of a network before training: ridge regression, twice, in closed form.

Draws are few and windows many, so the waveform's direction of each lab is learned first, from every training
target, interpolated ones included, without the history (an interpolated target contains the last result, and a
fit that sees both learns to carry it forward). How much to trust that direction, beside the lab's own history, is
then learned from the measured draws alone, on estimates for patients whom the direction was not fitted on, and is
nothing where that does not clearly lower the error (``ridge.weigh``). A model
with a reader of the latest windows (``pipeline.training.reader_fit``) has its reading weighed there too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from models.regressor.inputs import PackedInputs
from models.regressor.lab_lines import LabLines
from models.regressor.lab_regressor import LabRegressor
from models.regressor.window_reader import WindowReader
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.progress import tracked
from pipeline.training.batches import PieceSource
from pipeline.training.reader_fit import Draws, cross_fit, reading_of
from pipeline.training.ridge import ridge, weigh
from pipeline.training.schedule import micro_batches
from pipeline.training.waveform_line import LEAST_ROWS

STEPS_APART = 20
"""Steps between two interpolated targets: neighbours say the same."""
STEPS_AT_ONCE = 16_384
MEASURED_WEIGHT = 1.0
"""Weight of a measured draw; interpolated targets must weigh less."""
"""A lab with fewer measured draws keeps the lines at zero."""


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
    draw: Int[np.ndarray, " rows"]
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
            windows=self.windows, usable=self.usable, target=target,
            patient=self.patient[self.drawn], draw=self.draw[self.drawn],
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """A fitted reader, and for every row what a reader that has not seen the patient says (0 without a draw)."""

    reader: WindowReader
    left_out: Float[np.ndarray, "rows labs"]


def fit_lines(model: LabRegressor | LabLines, source: PieceSource, seed: int) -> None:
    """Set, and hold, every line, reading and read-out bias of `model` to what fits the targets of `source`.

    Raises
    ------
    ConfigError : a model without running means, or interpolated targets that weigh as much as draws
    """
    if model.waveform.means is None:
        raise ConfigError(
            "training.fit_lines needs a model with lines through running means: set model.mean_steps"
        )
    if source.interpolated_weight >= MEASURED_WEIGHT:
        raise ConfigError(
            f"training.fit_lines tells measured draws by their weight of {MEASURED_WEIGHT:g}, and "
            f"alignment.interpolated_weight = {source.interpolated_weight:g} is not less: lower it"
        )
    rows = _rows(model, source)
    reading = None
    if model.waveform.reader is not None and rows.drawn.sum() >= LEAST_ROWS:
        reading = _fit_reader(rows, model.waveform.reader.lstm.hidden_size, seed)
        model.waveform.set_reader(reading.reader)
    for column, lab in enumerate(tracked(source.labs, "fitting lines", "labs")):
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
    model: LabRegressor | LabLines,
    lab: str,
    rows: _Rows,
    column: int,
    known: np.ndarray,
    measured: np.ndarray,
    reading: _Reading | None,
) -> None:
    y, middle = rows.target[:, column], rows.means.shape[1] // 2
    direction = ridge(rows.means[known, middle], y[known], rows.patient[known])
    # The estimate for a draw must come from a fit without its patient, or it would be trusted too much.
    estimate = np.einsum("rsf,f->rs", rows.means, direction.weights)
    shift = np.zeros(len(y))
    shift[known] = direction.left_out - direction.bias - estimate[known, middle]
    offered = [(estimate + shift[:, None])[measured]]
    if reading is not None:
        offered.append(reading.left_out[measured, column : column + 1])
    weighed = weigh(offered, rows.history[measured, column], y[measured], rows.patient[measured])
    waveform, *trust = weighed.offered
    weights, bias = (None, 0.0) if reading is None else reading_of(reading.reader, column, float(trust[0][0]))
    directions = waveform[:, None] * direction.weights
    model.set_line(lab, directions.ravel(), weights, weighed.always, weighed.bias + bias)


def _rows(model: LabRegressor | LabLines, source: PieceSource) -> _Rows:
    starts, patients = source.item_starts(), source.item_patients()
    runs = [(group, run) for group, own in patients.items() for run in _runs(source, group, len(own))]
    parts = [
        _rows_of(model, source, group, run, patients[group][run], starts[group][run])
        for group, run in tracked(runs, "reading embeddings", "runs of pieces")
    ]
    return _Rows(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in _Rows.__dataclass_fields__})


def _runs(source: PieceSource, group: int, count: int) -> list[list[int]]:
    return micro_batches(range(count), source.lengths(group, range(count)), STEPS_AT_ONCE)


def _rows_of(
    model: LabRegressor | LabLines,
    source: PieceSource,
    group: int,
    items: Sequence[int],
    patients: np.ndarray,
    starts: np.ndarray,
) -> _Rows:
    batch = source.load(group, items, epoch=0)
    assert isinstance(batch.inputs, PackedInputs)
    with torch.no_grad():
        seen = model.line_inputs(batch.inputs)
    lengths = batch.inputs.cu_seqlens.diff().numpy()
    piece = np.repeat(np.arange(len(items)), lengths)
    step = np.arange(len(piece)) - np.repeat(batch.inputs.cu_seqlens[:-1].numpy(), lengths)
    weights = batch.weights.numpy()
    measured = weights >= MEASURED_WEIGHT
    here = np.flatnonzero(measured.any(axis=1) | ((weights > 0).any(axis=1) & (step % STEPS_APART == 0)))
    drawn = here[measured[here].any(axis=1)]
    none = torch.zeros(len(piece), 0)
    return _Rows(
        means=seen.means[here].double().numpy(),
        history=seen.history.double().numpy()[piece[here]],
        target=np.where(weights[here] > 0, batch.targets.numpy()[here], np.nan).astype(np.float64),
        measured=measured[here],
        patient=patients[piece[here]],
        draw=(starts[piece] + step)[here],
        windows=(none if seen.windows is None else seen.windows)[drawn].numpy(),
        usable=(none if seen.usable is None else seen.usable)[drawn].numpy(),
    )
