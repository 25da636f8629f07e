"""Training batches of the LSTM: measured draws, each with the ten windows before it."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64

from models.regressor.window_reader import N_WINDOWS
from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.base import WindowStore
from pipeline.cohort.normalization import LabScaler
from pipeline.foundation.schema import LAB_NAMES
from pipeline.training.base import MicroBatch, WindowInputs
from pipeline.training.batches import (
    SAMPLED_PIECES,
    SAMPLED_STEPS,
    embedding_width,
    mean_scaled,
)
from pipeline.training.trailing import trailing_windows


class DrawSource:
    """Measured draws of training patients and the windows before them; one in both protocols counts once."""

    def __init__(
        self,
        aligned: AlignedCohort,
        store: WindowStore,
        scaler: LabScaler,
        *,
        patients: Sequence[str],
        protocols: Sequence[str],
        centred: bool = False,
    ) -> None:
        self.labs = LAB_NAMES
        draws = _measured_draws(aligned, set(patients), set(protocols))
        parts = [_windows_of(aligned, store, *key, list(steps), centred) for key, steps in draws.items()]
        values = np.array([row for steps in draws.values() for row in steps.values()]).reshape(
            -1, len(LAB_NAMES)
        )
        width = embedding_width(store, patients)
        self._embeddings = np.concatenate(
            [e for e, _ in parts] or [np.zeros((0, N_WINDOWS, width), np.float16)]
        )
        self._mask = np.concatenate([mask for _, mask in parts] or [np.zeros((0, N_WINDOWS), bool)])
        self._weights = np.isfinite(values).astype(np.float32)
        self._targets = np.nan_to_num(scaler.scale(values)).astype(np.float32)
        self._means = mean_scaled([[c[np.isfinite(c)] for c in values.T]], scaler, self.labs)
        self.group_sizes = [len(values)]

    def lengths(self, group: int, items: Sequence[int]) -> list[int]:
        """Return ten steps for every draw."""
        return [N_WINDOWS] * len(items)

    def weight_sums(self, group: int, items: Sequence[int]) -> Float64[np.ndarray, " labs"]:
        """Return the number of targets of `items` per lab."""
        return self._weights[list(items)].sum(axis=0, dtype=np.float64)

    def load(self, group: int, items: Sequence[int], epoch: int) -> MicroBatch:
        """Return the windows of `items`."""
        chosen = np.array(items)
        return MicroBatch(
            inputs=self._inputs(chosen),
            targets=torch.from_numpy(self._targets[chosen]),
            weights=torch.from_numpy(self._weights[chosen]),
        )

    def sample(self, seed: int) -> WindowInputs:
        """Return the windows of a bounded number of draws."""
        n_draws = len(self._mask)
        drawn = np.random.default_rng(seed).permutation(n_draws)[
            : SAMPLED_PIECES * SAMPLED_STEPS // N_WINDOWS
        ]
        return self._inputs(np.sort(drawn))

    def _inputs(self, rows: np.ndarray) -> WindowInputs:
        return WindowInputs(
            embeddings=torch.from_numpy(self._embeddings[rows].astype(np.float32)),
            mask=torch.from_numpy(self._mask[rows]),
        )

    def target_means(self) -> Float64[np.ndarray, " labs"]:
        """Return the mean scaled measured target per lab."""
        return self._means

    def counts(self) -> dict[str, int]:
        """Return draws and targets per lab; a "piece" is the ten windows before one or several draws."""
        per_lab = self._weights.sum(axis=0).astype(int).tolist()
        return {
            "pieces": len(self._weights),
            "pieces_without_window": int((~self._mask.any(axis=1)).sum()),
            "targets_measured": sum(per_lab),
            **{f"targets_measured_{lab}": n for lab, n in zip(self.labs, per_lab, strict=True)},
        }


def _measured_draws(
    aligned: AlignedCohort, patients: set[str], protocols: set[str]
) -> dict[tuple[str, str], dict[int, np.ndarray]]:
    """Return, by (patient, sequence) and step of the sequence, the values drawn (labs,), NaN where none."""
    draws: dict[tuple[str, str], dict[int, np.ndarray]] = {}
    columns = (aligned.pieces[n] for n in ("patient_id", "sequence_id", "protocol", "first_step"))
    for row, (patient, sequence, protocol, first) in enumerate(zip(*columns, strict=True)):
        if patient in patients and protocol in protocols:
            targets = aligned.piece_targets(row)
            for step in np.flatnonzero(targets.measured.any(axis=1)):
                value = np.where(targets.measured[step], targets.value[step], np.nan)
                draws.setdefault((patient, sequence), {})[int(first) + int(step)] = value
    return draws


def _windows_of(
    aligned: AlignedCohort, store: WindowStore, patient: str, sequence: str, steps: list[int], centred: bool
) -> tuple[np.ndarray, np.ndarray]:
    values, mask = trailing_windows(
        store.read(patient), aligned.grid(sequence), np.array(steps, dtype=np.int64), centred=centred
    )
    return values.astype(np.float16), mask  # as they lie in the store: half the memory
