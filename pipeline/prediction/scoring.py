"""Score a trained method, or a carried-forward value, on the cohort's measured draws: one set for all methods.

Interpolated points are scored in ``pipeline.prediction.dense_scoring``, as sums.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.base import WindowStore
from pipeline.cohort.splits import Splits
from pipeline.foundation.schema import PREDICTION_COLUMNS
from pipeline.training.checkpoints import check_encoder, checkpoint_folders, load_model
from pipeline.training.distributed import pick_device
from pipeline.training.embedding_cache import EmbeddingCache
from pipeline.training.estimated import Estimated
from pipeline.training.forecaster import AnyForecaster, forecaster_of

logger = logging.getLogger(__name__)

SCORED_SPLITS = ("validation", "calibration", "test")


def score(
    checkpoint_dir: Path | str,
    aligned: AlignedCohort,
    store: WindowStore,
    splits: Splits,
    *,
    splits_to_score: Sequence[str] = SCORED_SPLITS,
    device: str = "auto",
    exact: bool = False,
) -> pd.DataFrame:
    """Estimate every example of both protocols with a trained method.

    Parameters
    ----------
    checkpoint_dir : what ``train`` returned; for st_pcs the folder that holds one model a lab
    splits_to_score : which patients
    exact : one piece at a time, in the fixed shapes of ``prediction.predict``, for its very bits; otherwise many
        pieces in one pass, several times faster and equal but for rounding

    Returns
    -------
    Table of ``schema.PREDICTION_COLUMNS``, estimates in clinical units, ``lower`` and ``upper`` NaN (see
    ``pipeline.prediction.intervals``); of a method that knows how far off it may be, ``schema.SPREAD_COLUMNS`` too. A
    lab without a model (st_pcs without targets) has no row. The twin of a split with a single patient cannot be: that
    split has no row.

    Raises
    ------
    CheckpointError : no checkpoint, or one that does not fit its config or the store's encoder
    LeakError : the checkpoint's lab scaling was fitted under another division of the patients
    """
    method, forecasters = forecasters_of(checkpoint_dir, store, splits, device)
    cache = EmbeddingCache(store)
    parts = []
    for split in splits_to_score:
        patients = patients_of(aligned, splits, split)
        if lacks_a_twin(forecasters[0], patients, split):
            continue
        examples = examples_of(aligned, patients)
        made = Estimated.without_spread(np.full(len(examples), np.nan))
        for forecaster in forecasters:
            own = forecaster.estimated(examples, aligned, store, patients, cache=cache, exact=exact)
            made = own.where(examples["lab"].isin(forecaster.labs).to_numpy(), made)
        known = examples["lab"].isin([lab for f in forecasters for lab in f.labs]).to_numpy()
        rows = _rows(examples.loc[known], made.value[known], method, split, forecasters[0].seed)
        if np.isfinite(made.spread).any():
            rows = rows.assign(**made.columns.loc[known].reset_index(drop=True))
        parts.append(rows)
    return _joined(parts)


def score_estimator(
    method: str,
    estimate: Callable[[pd.DataFrame], np.ndarray],
    aligned: AlignedCohort,
    splits: Splits,
    *,
    splits_to_score: Sequence[str] = SCORED_SPLITS,
    seed: int = 0,
) -> pd.DataFrame:
    """Score a method without weights (LOCF and its kin): `estimate` maps examples to clinical values."""
    parts = []
    for split in splits_to_score:
        examples = examples_of(aligned, patients_of(aligned, splits, split))
        values = np.asarray(estimate(examples), dtype=np.float64)
        parts.append(_rows(examples, values, method, split, seed))
    return _joined(parts)


def forecasters_of(
    checkpoint_dir: Path | str, store: WindowStore, splits: Splits, device: str
) -> tuple[str, list[AnyForecaster]]:
    """Load a trained method: its name, and one model or (st_pcs) one a lab.

    Raises
    ------
    CheckpointError : no checkpoint, or one that does not fit its config or the store's encoder
    LeakError : the checkpoint's lab scaling was fitted under another division of the patients
    """
    chosen = pick_device(device)
    models = [load_model(folder, chosen) for folder in checkpoint_folders(checkpoint_dir)]
    for loaded in models:
        loaded.scaler.check(splits)
        check_encoder(loaded, store)
    return models[0].method, [forecaster_of(loaded, chosen) for loaded in models]


def lacks_a_twin(forecaster: AnyForecaster, patients: Sequence[str], split: str) -> bool:
    """Tell whether the method is the twin and the split has nobody else's waveform for its only patient."""
    if not forecaster.twin or len(patients) != 1:
        return False
    logger.warning("the twin's %s split has one patient, who has no twin; it is not scored", split)
    return True


def examples_of(aligned: AlignedCohort, patients: Sequence[str]) -> pd.DataFrame:
    """Return the examples of `patients`, all methods' common rows."""
    return aligned.examples.loc[aligned.examples["patient_id"].isin(patients)].reset_index(drop=True)


def patients_of(aligned: AlignedCohort, splits: Splits, split: str) -> list[str]:
    """Return the patients of a split who have sequences, in the cohort's order."""
    members = set(splits.patients(split))
    return [p for p in dict.fromkeys(aligned.sequences["patient_id"]) if p in members]


def _rows(examples: pd.DataFrame, estimate: np.ndarray, method: str, split: str, seed: int) -> pd.DataFrame:
    times = {name: examples[f"{name}_us"].to_numpy().astype("datetime64[us]")
             for name in ("sampled_at", "t0", "prediction_window_end")}  # fmt: skip
    return pd.DataFrame(
        {
            "method": method,
            "protocol": examples["protocol"].to_numpy(),
            "scoring": "measured",
            "seed": seed,
            "split": split,
            "patient": examples["patient_id"].to_numpy(),
            "sequence": examples["sequence_id"].to_numpy(),
            "lab": examples["lab"].to_numpy(),
            **times,
            "estimate": estimate,
            "lower": np.nan,
            "upper": np.nan,
            "truth": examples["truth"].to_numpy(dtype=np.float64),
            "last_lab": examples["last_lab"].to_numpy(dtype=np.float64),
            "hours_since_last_lab": examples["hours_since_last_lab"].to_numpy(dtype=np.float64),
        }
    ).loc[:, list(PREDICTION_COLUMNS)]


def _joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
    filled = [part for part in parts if len(part)]
    return pd.concat(filled or parts or [pd.DataFrame(columns=list(PREDICTION_COLUMNS))], ignore_index=True)
