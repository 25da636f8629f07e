"""Score a method on the points between draws too, as sums: no point is kept beyond its own sequence.

The points, their order and the estimates are those of a table with a row a point; only what is kept differs
(``pipeline.cohort.dense_sums``).
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from models.regressor.lstm import WindowLSTM
from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.base import WindowStore
from pipeline.cohort.dense_points import DensePoints, PointSource
from pipeline.cohort.dense_sums import DenseBlock, accumulate_dense_sums
from pipeline.cohort.splits import Splits
from pipeline.prediction.scoring import forecasters_of, lacks_a_twin, patients_of
from pipeline.training.embedding_cache import EmbeddingCache
from pipeline.training.filter_forecaster import FilterForecaster
from pipeline.training.forecaster import AnyForecaster, Forecaster

Estimator = Callable[[pd.DataFrame], np.ndarray]
PieceEstimates = Iterator[tuple[int, DensePoints, np.ndarray, np.ndarray]]
"""Row of the piece, its points, the steps that were estimated (ascending), estimates (steps, labs)."""


def score_dense(
    checkpoint_dir: Path | str,
    aligned: AlignedCohort,
    store: WindowStore,
    splits: Splits,
    *,
    split: str = "test",
    device: str = "auto",
) -> pd.DataFrame:
    """Estimate every draw and every interpolated point of both protocols with a trained method, and sum up.

    Parameters
    ----------
    checkpoint_dir : what ``train`` returned; for st_pcs the folder that holds one model a lab
    split : whose patients; the one that is judged, since nothing else is made of dense points

    Returns
    -------
    ``schema.DENSE_SUM_COLUMNS``. A lab without a model (st_pcs without targets) has no row; the twin of a split with
    a single patient has none at all.

    Raises
    ------
    CheckpointError : no checkpoint, or one that does not fit its config or the store's encoder
    LeakError : the checkpoint's lab scaling was fitted under another division of the patients
    ConfigError : an estimate that is not finite
    """
    method, forecasters = forecasters_of(checkpoint_dir, store, splits, device)
    patients = patients_of(aligned, splits, split)
    source = PointSource(aligned, [] if lacks_a_twin(forecasters[0], patients, split) else patients)
    cache = EmbeddingCache(store)

    def blocks() -> Iterator[DenseBlock]:
        for forecaster in forecasters:
            for row, points, steps, clinical in _estimates(
                forecaster, source, aligned, store, patients, cache
            ):
                yield from _blocks(
                    forecaster.labs, method, split, aligned.pieces.iloc[row], points, steps, clinical
                )

    return accumulate_dense_sums(blocks(), seed=forecasters[0].seed)


def score_estimators_dense(
    estimators: Mapping[str, Estimator],
    aligned: AlignedCohort,
    splits: Splits,
    *,
    split: str = "test",
    seed: int = 0,
) -> pd.DataFrame:
    """Sum up methods without weights (LOCF and its kin); each maps a table of examples to clinical values.

    Of ``schema.EXAMPLE_COLUMNS`` the table has what such methods read: see ``PointSource.each_sequence``.
    """
    source = PointSource(aligned, patients_of(aligned, splits, split))

    def blocks() -> Iterator[DenseBlock]:
        for patient, known, points in source.each_sequence():
            estimates = {name: np.asarray(f(known), dtype=np.float64) for name, f in estimators.items()}
            for lab, here in points.by_lab():
                yield DenseBlock(
                    patient=patient, split=split, protocol=str(known["protocol"].iat[0]), lab=lab,
                    sampled_at_us=points.sampled_at_us[here], truth=points.truth[here],
                    estimates={name: values[here] for name, values in estimates.items()},
                )  # fmt: skip

    return accumulate_dense_sums(blocks(), seed=seed)


def _estimates(
    forecaster: AnyForecaster,
    source: PointSource,
    aligned: AlignedCohort,
    store: WindowStore,
    patients: list[str],
    cache: EmbeddingCache,
) -> PieceEstimates:
    """Yield what a method says, clinical units."""
    if isinstance(forecaster, FilterForecaster):
        yield from _filter_estimates(forecaster, source, aligned, store, patients, cache)
        return
    if isinstance(forecaster.model, WindowLSTM):
        pieces = _window_estimates(forecaster, source, aligned, store)
    else:
        pieces = _piece_estimates(forecaster, source, aligned, store, patients, cache)
    for row, points, steps, scaled in pieces:
        yield row, points, steps, forecaster.scaler.unscale(scaled.astype(np.float64), forecaster.labs)


def _filter_estimates(
    forecaster: FilterForecaster,
    source: PointSource,
    aligned: AlignedCohort,
    store: WindowStore,
    patients: list[str],
    cache: EmbeddingCache,
) -> PieceEstimates:
    """Ask the filters of one patient after another for the steps of all their pieces at once."""
    if not len(source.rows):
        return
    pieces = aligned.pieces.iloc[source.rows].set_axis(source.rows)
    filter_of = forecaster.of_patients(aligned, store, patients, cache)
    for patient, rows in pieces.groupby("patient_id", sort=False).groups.items():
        points = {int(row): source.of_piece(int(row)) for row in rows}
        points = {row: found for row, found in points.items() if len(found)}
        if points:
            wanted = {row: int(found.step.max()) + 1 for row, found in points.items()}
            for row, clinical in forecaster.of_pieces(pieces, wanted, aligned, filter_of(str(patient))):
                yield row, points[row], np.arange(len(clinical)), clinical


def _piece_estimates(
    forecaster: Forecaster,
    source: PointSource,
    aligned: AlignedCohort,
    store: WindowStore,
    patients: list[str],
    cache: EmbeddingCache,
) -> PieceEstimates:
    """Run the model through the pieces; the points of those of one pass wait for its output."""
    waiting: deque[tuple[int, DensePoints]] = deque()

    def wanted() -> Iterator[tuple[int, int]]:
        for index, row in enumerate(source.rows):
            points = source.of_piece(int(row))
            if len(points):
                waiting.append((int(row), points))
                yield index, int(points.step.max()) + 1

    if not len(source.rows):
        return
    dataset = forecaster.dataset_of(aligned, store, patients, cache)
    for scaled in forecaster.each_piece(dataset, wanted()):
        row, points = waiting.popleft()
        yield row, points, np.arange(len(scaled)), scaled


def _window_estimates(
    forecaster: Forecaster, source: PointSource, aligned: AlignedCohort, store: WindowStore
) -> PieceEstimates:
    """Run the LSTM once at every step that has a point, of whatever lab."""
    for row in map(int, source.rows):
        points = source.of_piece(row)
        if len(points):
            piece, steps = aligned.pieces.iloc[row], np.unique(points.step)
            windows, grid = store.read(str(piece["patient_id"])), aligned.grid(str(piece["sequence_id"]))
            yield row, points, steps, forecaster.at_steps(windows, grid, int(piece["first_step"]) + steps)


def _blocks(
    labs: tuple[str, ...],
    method: str,
    split: str,
    piece: pd.Series,
    points: DensePoints,
    steps: np.ndarray,
    clinical: np.ndarray,
) -> Iterator[DenseBlock]:
    """Yield one block for each lab that the model knows."""
    place = np.searchsorted(steps, points.step)
    for lab, here in points.by_lab():
        if lab in labs:
            estimate = clinical[place[here], labs.index(lab)]
            yield DenseBlock(
                patient=str(piece["patient_id"]), split=split, protocol=str(piece["protocol"]), lab=lab,
                sampled_at_us=points.sampled_at_us[here], truth=points.truth[here],
                estimates={method: estimate},
            )  # fmt: skip
