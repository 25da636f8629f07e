"""A tiny cohort in memory, for tests: windows, labs, division, scaling, alignment, in milliseconds.

A slow latent value per patient moves both the embeddings and the labs, so that a model has something to
learn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.alignment import align
from pipeline.cohort.alignment_config import AlignmentConfig
from pipeline.cohort.normalization import LabScaler, fit_lab_scaler
from pipeline.cohort.sequences import Sequences, cut_sequences
from pipeline.cohort.splits import SplitConfig, Splits, split_subjects
from pipeline.foundation.errors import StoreError
from pipeline.foundation.schema import ADMISSION_COLUMNS, HOUR_US, LAB_NAMES, QUALITY_COLUMNS, WINDOW_US
from pipeline.labs.cleaning import LabEvents

ORIGIN_US = 4_500_000_000 * 1_000_000
"""A date in 2112, on the grid of 30 s."""
CENTRES = {"potassium": 4.1, "calcium": 8.4, "sodium": 139.0, "glucose": 140.0, "lactate": 2.1}
SPREADS = {"potassium": 0.5, "calcium": 0.6, "sodium": 4.0, "glucose": 40.0, "lactate": 0.6}
TINY_MODEL: Mapping[str, float] = {
    "d_model": 8, "n_blocks": 1, "d_state": 2, "trunk_width": 8, "hidden": 8, "dropout": 0.1,
}  # fmt: skip
"""Sizes of models that train in a second, for `training.train`."""


@dataclass(frozen=True, kw_only=True)
class MemoryWindows:
    """One patient's windows, as a store returns them."""

    start_us: np.ndarray
    embeddings: np.ndarray
    quality: np.ndarray

    @property
    def width(self) -> int:
        """Width of an embedding."""
        return int(self.embeddings.shape[1])

    def keep(self, rows: np.ndarray) -> "MemoryWindows":
        """Return the windows of `rows` (a mask or indices) alone."""
        return MemoryWindows(
            start_us=self.start_us[rows], embeddings=self.embeddings[rows], quality=self.quality[rows]
        )


@dataclass(frozen=True, kw_only=True)
class MemoryStore:
    """Windows by patient."""

    windows: Mapping[str, MemoryWindows]

    def read(self, patient_id: str) -> MemoryWindows:
        """Return one patient's windows, or raise StoreError where there are none."""
        if patient_id not in self.windows:
            raise StoreError("the store holds nothing of this patient")
        return self.windows[patient_id]


@dataclass(frozen=True, kw_only=True)
class TinyCohort:
    """Everything that training, scoring and prediction ask for."""

    store: MemoryStore
    labs: pd.DataFrame
    splits: Splits
    scaler: LabScaler
    sequences: Sequences
    aligned: AlignedCohort
    config: AlignmentConfig

    def with_windows(self, windows: Mapping[str, MemoryWindows]) -> "TinyCohort":
        """Return the cohort with other windows, cut and aligned again, everything fitted as before."""
        return _aligned(MemoryStore(windows=windows), self.labs, self.splits, self.scaler, self.config)

    def with_labs(self, labs: pd.DataFrame) -> "TinyCohort":
        """Return the cohort with other lab events, aligned again, everything fitted as before."""
        return _aligned(self.store, labs.reset_index(drop=True), self.splits, self.scaler, self.config)


def tiny_cohort(
    *,
    n_patients: int = 10,
    hours: float = 4.0,
    width: int = 6,
    draws: int = 6,
    seed: int = 0,
    config: AlignmentConfig = AlignmentConfig(),  # noqa: B008 - frozen
    labs: Sequence[str] = LAB_NAMES,
) -> TinyCohort:
    """Make a cohort: about `hours` of windows a patient (one in eight missing), `draws` of each lab."""
    rng = np.random.default_rng(seed)
    patients = [f"{10_000 + 37 * i}" for i in range(n_patients)]
    made = {patient: _patient(rng, patient, hours, width, draws, labs) for patient in patients}
    events = pd.concat([frame for _, frame in made.values()], ignore_index=True)
    splits = split_subjects(patients, SplitConfig(seed=seed, fractions=(0.4, 0.4, 0.2)))
    store = MemoryStore(windows={patient: windows for patient, (windows, _) in made.items()})
    return _aligned(store, events, splits, fit_lab_scaler(events, splits), config)


def _aligned(
    store: MemoryStore, labs: pd.DataFrame, splits: Splits, scaler: LabScaler, config: AlignmentConfig
) -> TinyCohort:
    sequences = cut_sequences(store, list(store.windows), pd.DataFrame(columns=list(ADMISSION_COLUMNS)))
    aligned = align(sequences, LabEvents(frame=labs), store, config)
    return TinyCohort(
        store=store,
        labs=labs,
        splits=splits,
        scaler=scaler,
        sequences=sequences,
        aligned=aligned,
        config=config,
    )


def _patient(
    rng: np.random.Generator, patient: str, hours: float, width: int, draws: int, labs: Sequence[str]
) -> tuple[MemoryWindows, pd.DataFrame]:
    n = int(hours * 120 * rng.uniform(0.8, 1.2))
    latent = rng.normal() + np.cumsum(rng.normal(size=n)) / np.sqrt(n)
    embeddings = latent[:, None] * np.linspace(-1, 1, width) + 0.1 * rng.normal(size=(n, width))
    usable = rng.random(n) > 1 / 8
    usable[0] = True
    start_us = ORIGIN_US + np.arange(n, dtype=np.int64) * WINDOW_US
    windows = MemoryWindows(
        start_us=start_us,
        embeddings=embeddings.astype(np.float16),
        quality=np.full((n, len(QUALITY_COLUMNS)), 0.5, np.float32),
    ).keep(np.flatnonzero(usable))
    rows = []
    for lab in labs:
        steps = np.sort(rng.integers(-120, n, size=draws))
        steps[0] = -30 - int(rng.integers(90))  # one from before the recording
        values = CENTRES[lab] + SPREADS[lab] * (latent[np.maximum(steps, 0)] + 0.1 * rng.normal(size=draws))
        sampled = ORIGIN_US + steps.astype(np.int64) * WINDOW_US + int(rng.integers(WINDOW_US))
        rows += [
            (patient, lab, float(max(v, 0.2)), int(t), int(t)) for v, t in zip(values, sampled, strict=True)
        ]
    frame = pd.DataFrame(rows, columns=["patient_id", "lab", "value", "sampled_at_us", "available_at_us"])
    frame["source_code"] = "test"
    return windows, frame.drop_duplicates(["lab", "sampled_at_us"]).reset_index(drop=True)


def delayed(labs: pd.DataFrame, hours: float) -> pd.DataFrame:
    """Return the lab events with every result available `hours` after its draw."""
    return labs.assign(available_at_us=labs["sampled_at_us"] + int(hours * HOUR_US))
