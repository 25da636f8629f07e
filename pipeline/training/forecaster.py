"""A trained model with what it takes to estimate the cohort's examples, in validation and in scoring."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float32, Int

from models.assimilation.lab_assimilation import LabAssimilation
from models.regressor.lab_lines import LabLines
from models.regressor.lab_regressor import LabRegressor
from models.regressor.lstm import WindowLSTM
from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.base import PatientWindows, WindowStore
from pipeline.cohort.normalization import LabScaler
from pipeline.cohort.targets import StepGrid
from pipeline.foundation.progress import tracked
from pipeline.foundation.schema import LAB_NAMES, TWINS
from pipeline.training.checkpoints import LoadedModel
from pipeline.training.dataset import PieceDataset, PieceItem, pack
from pipeline.training.embedding_cache import EmbeddingCache
from pipeline.training.estimated import Estimated, columns_of
from pipeline.training.filter_forecaster import FilterForecaster
from pipeline.training.inference import (
    CHUNK_STEPS,
    estimate_piece,
    estimate_pieces,
    estimate_windows,
    shortened,
)
from pipeline.training.prefetch import ReadAhead
from pipeline.training.trailing import trailing_windows

PACKED_STEPS = 32_768
"""Steps in one pass where the exact bits do not matter (validation)."""
LSTM_STEPS = 16 * CHUNK_STEPS
"""Steps whose windows are read at a time: ten windows each."""
PIECES_AHEAD = 4
"""Pieces that a thread reads while the model computes: 40 MB each for a week at width 512."""


@dataclass(frozen=True, kw_only=True)
class Forecaster:
    """A model and how to feed it.

    Attributes
    ----------
    labs : what the model's columns are
    twin : feed it another patient's waveform of the same split
    centred : LSTM windows around the step instead of before it
    seed : of the run; decides who is whose twin
    """

    model: LabRegressor | WindowLSTM | LabLines
    labs: tuple[str, ...]
    scaler: LabScaler
    device: torch.device
    twin: bool = False
    centred: bool = False
    seed: int = 0

    @property
    def looks_ahead(self) -> bool:
        """Whether its estimates need windows that follow. The LSTM's alone can; the setting stands in every record."""
        return self.centred and isinstance(self.model, WindowLSTM)

    def estimated(
        self,
        examples: pd.DataFrame,
        aligned: AlignedCohort,
        store: WindowStore,
        patients: Sequence[str],
        *,
        cache: EmbeddingCache | None = None,
        exact: bool = True,
    ) -> Estimated:
        """Return the clinical estimate of every example; parameters as of `scaled`."""
        scaled = self.scaled(examples, aligned, store, patients, cache=cache, exact=exact)
        return Estimated.without_spread(self.clinical(scaled, examples["lab"]))

    def scaled(
        self,
        examples: pd.DataFrame,
        aligned: AlignedCohort,
        store: WindowStore,
        patients: Sequence[str],
        *,
        cache: EmbeddingCache | None = None,
        exact: bool = True,
    ) -> Float[np.ndarray, " examples"]:
        """Return the scaled estimate of every example; NaN for a lab that the model does not know.

        Parameters
        ----------
        examples : rows of ``EXAMPLE_COLUMNS`` of `patients`
        patients : all patients of one split; a twin is one of them
        exact : the bits that `prediction.predict` gives, instead of several pieces in one pass
        """
        if examples.empty:
            return np.empty(0)
        if isinstance(self.model, WindowLSTM):
            table = self._window_estimates(examples, aligned, store)
        else:
            dataset = self.dataset_of(aligned, store, patients, cache)
            table = self._piece_estimates(examples, dataset, exact)
        columns = columns_of(examples["lab"], self.labs)
        return np.where(columns >= 0, table[np.arange(len(examples)), columns], np.nan)

    def clinical(
        self, scaled: Float[np.ndarray, " examples"], labs: Iterable[str]
    ) -> Float[np.ndarray, " examples"]:
        """Map scaled estimates back to the units of their labs."""
        return _by_lab(self.scaler.unscale, scaled, labs)

    def _piece_estimates(self, examples: pd.DataFrame, dataset: PieceDataset, exact: bool) -> np.ndarray:
        rows = _rows_by(examples["piece_id"])
        steps = examples["step"].to_numpy(dtype=np.int64)
        index = {piece: i for i, piece in enumerate(dataset.piece_ids)}
        # In the order of the data set: one patient's pieces together, so that the cache serves them.
        pieces = sorted(rows, key=index.__getitem__)
        wanted = ((index[piece], int(steps[rows[piece]].max()) + 1) for piece in pieces)
        table = np.full((len(examples), len(self.labs)), np.nan)
        outputs = self.each_piece(dataset, wanted, exact=exact)
        for piece, output in zip(tracked(pieces, "estimating", "pieces"), outputs, strict=True):
            table[rows[piece]] = output[steps[rows[piece]]]
        return table

    def each_piece(
        self, dataset: PieceDataset, wanted: Iterable[tuple[int, int]], *, exact: bool = False
    ) -> Iterator[Float32[np.ndarray, "steps labs"]]:
        """Yield the scaled estimates of one piece after another, at every step up to the last that is wanted.

        Parameters
        ----------
        dataset : see ``dataset_of``
        wanted : place of a piece in the data set, and how many of its steps; read in a thread, at most
            `PIECES_AHEAD` pieces further than a pass holds
        exact : the bits that `prediction.predict` gives, instead of several pieces in one pass

        Raises
        ------
        ValueError : the model is the LSTM, whose steps are estimated one by one (``at_steps``)
        """
        if isinstance(self.model, WindowLSTM):
            raise ValueError("the LSTM has no pieces; ask for its estimates at some steps")
        items = (shortened(dataset[index], n_steps) for index, n_steps in wanted)
        with ReadAhead(items, PIECES_AHEAD) as ready:
            yield from self._outputs(self.model, ready, exact)

    def dataset_of(
        self,
        aligned: AlignedCohort,
        store: WindowStore,
        patients: Sequence[str],
        cache: EmbeddingCache | None = None,
    ) -> PieceDataset:
        """Return the pieces of all patients of one split as the model sees them; a twin is one of them."""
        return PieceDataset(
            aligned, store, self.scaler, patients=patients, pooling="mean", twin=self.twin,
            seed=self.seed, labs=self.labs, cache=cache,
        )  # fmt: skip

    def at_steps(
        self, windows: PatientWindows, grid: StepGrid, steps: Int[np.ndarray, " n"]
    ) -> Float32[np.ndarray, "n labs"]:
        """Return the LSTM's scaled estimates at some steps of a sequence, reading a few thousand windows at a time.

        Parameters
        ----------
        windows, grid : the patient's windows and the sequence's steps
        steps : of the sequence (not of a piece)

        Raises
        ------
        ValueError : the model is not the LSTM
        """
        if not isinstance(self.model, WindowLSTM):
            raise ValueError("only the LSTM estimates single steps; other models run through a piece")
        outputs = [
            estimate_windows(
                self.model,
                *trailing_windows(windows, grid, steps[first : first + LSTM_STEPS], centred=self.centred),
                self.device,
            )
            for first in range(0, len(steps), LSTM_STEPS)
        ]
        return np.concatenate(outputs) if outputs else np.zeros((0, len(self.labs)), dtype=np.float32)

    def _outputs(
        self, model: LabRegressor | LabLines, items: Iterator[PieceItem], exact: bool
    ) -> Iterator[np.ndarray]:
        waiting: list[PieceItem] = []
        for item in items:
            if exact:
                yield estimate_piece(model, pack([item]).inputs, self.device)
                continue
            waiting.append(item)
            if sum(len(i.step_mask) for i in waiting) >= PACKED_STEPS:
                yield from estimate_pieces(model, waiting, self.device)
                waiting = []
        if waiting:
            yield from estimate_pieces(model, waiting, self.device)

    def _window_estimates(
        self, examples: pd.DataFrame, aligned: AlignedCohort, store: WindowStore
    ) -> np.ndarray:
        first = dict(zip(aligned.pieces["piece_id"], aligned.pieces["first_step"], strict=True))
        steps = np.array([first[piece] for piece in examples["piece_id"]], dtype=np.int64)
        steps += examples["step"].to_numpy(dtype=np.int64)
        patient = dict(zip(examples["sequence_id"], examples["patient_id"], strict=True))
        table = np.full((len(examples), len(self.labs)), np.nan)
        for sequence, rows in _rows_by(examples["sequence_id"]).items():
            table[rows] = self.at_steps(store.read(patient[sequence]), aligned.grid(sequence), steps[rows])
        return table


AnyForecaster = Forecaster | FilterForecaster


def forecaster_of(loaded: LoadedModel, device: torch.device) -> AnyForecaster:
    """Make the forecaster of a checkpoint."""
    training = loaded.experiment.get("training", {})
    seed, twin = int(training.get("seed", 0)), loaded.method in TWINS
    if isinstance(loaded.model, LabAssimilation):
        return FilterForecaster(model=loaded.model, scaler=loaded.scaler, twin=twin, seed=seed)
    return Forecaster(
        model=loaded.model.to(device),
        labs=loaded.labs,
        scaler=loaded.scaler,
        device=device,
        twin=twin,
        centred=bool(training.get("lstm_centred", False)),
        seed=seed,
    )


def scale_rows(
    scaler: LabScaler, values: Float[np.ndarray, " rows"], labs: Iterable[str]
) -> Float[np.ndarray, " rows"]:
    """Scale values whose labs differ from row to row."""
    return _by_lab(scaler.scale, values, labs)


def _by_lab(scale: Callable[[np.ndarray], np.ndarray], values: np.ndarray, labs: Iterable[str]) -> np.ndarray:
    wide = scale(np.repeat(values[:, None], len(LAB_NAMES), axis=1))
    return wide[np.arange(len(values)), [LAB_NAMES.index(lab) for lab in labs]]


def _rows_by(keys: Iterable[str]) -> dict[str, np.ndarray]:
    rows: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return {key: np.array(where) for key, where in rows.items()}
