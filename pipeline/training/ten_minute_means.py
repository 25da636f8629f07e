"""Ten-minute means of a patient's usable windows, in the directions that last: what a reading is made of.

A mean is known at its block's end. Blocks lie on the wall clock, so that a late record shifts none, and a block's
numbers depend on its own windows alone, to the bit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from models.regressor.slow_features import SlowFeatures
from pipeline.foundation.schema import WINDOW_US
from pipeline.training.embedding_cache import EmbeddingCache

BLOCK_US = 600_000_000
LEAST_WINDOWS = 5
"""A block with fewer usable windows, of twenty, has no reading."""
SAMPLED_BLOCKS = 1500
"""Blocks from which the lasting directions are taken."""


@dataclass(frozen=True, kw_only=True)
class BlockMeans:
    """One patient's blocks in order of time: end (int64 microseconds) and mean of each."""

    end_us: Int[np.ndarray, " blocks"]
    mean: Float[np.ndarray, "blocks features"]

    def latest(self, time_us: int, span_us: int) -> Float[np.ndarray, " features"] | None:
        """Return the mean of the blocks that end in the `span_us` up to a time; None where there is none."""
        first, stop = self.latest_rows(np.asarray(time_us), span_us)
        return self.mean[first:stop].mean(axis=0) if first < stop else None

    def latest_rows(
        self, time_us: Int[np.ndarray, "*times"], span_us: int
    ) -> tuple[Int[np.ndarray, "*times"], Int[np.ndarray, "*times"]]:
        """Return the first and the end of the rows of blocks that end in the `span_us` up to each time."""
        first, stop = (
            np.asarray(np.searchsorted(self.end_us, t, side="right")) for t in (time_us - span_us, time_us)
        )
        return first, stop


@dataclass(frozen=True, kw_only=True)
class WindowRows:
    """The windows of one patient that lie in sequences, and whose embeddings stand in their place."""

    patient_id: str
    rows: Int[np.ndarray, " windows"]
    start_us: Int[np.ndarray, " windows"]
    source_id: str


class BlockReader:
    """Reads block means of patients from a store, their own or (for a twin) another patient's on their own mask.

    Parameters
    ----------
    sequences : ``schema.SEQUENCE_COLUMNS``, which say which windows count
    cache : of the store
    twins : patient -> whose embeddings to take instead; None: their own
    """

    def __init__(
        self, sequences: pd.DataFrame, cache: EmbeddingCache, twins: Mapping[str, str] | None = None
    ) -> None:
        self._cache, self._twins = cache, twins
        self._spans: dict[str, list[tuple[int, int]]] = {}
        columns = (sequences[name] for name in ("patient_id", "origin_us", "n_steps"))
        for patient, origin, steps in zip(*columns, strict=True):
            self._spans.setdefault(str(patient), []).append((int(origin), int(origin + steps * WINDOW_US)))

    def first_us(self, patient_id: str) -> int:
        """Return when the patient's first sequence begins."""
        return min(low for low, _ in self._spans[patient_id])

    @property
    def patients(self) -> list[str]:
        """Those who have a sequence."""
        return sorted(self._spans)

    def embedding_means(self, patient_id: str) -> BlockMeans:
        """Return the means of the embeddings themselves."""
        windows = self._windows(patient_id)
        block, first = np.unique(windows.start_us // BLOCK_US, return_index=True)
        count = np.diff(np.append(first, len(windows.rows)))
        embeddings = self._cache.get(windows.source_id).take(windows.rows).astype(np.float64)
        if not len(block):
            return BlockMeans(end_us=np.zeros(0, np.int64), mean=np.zeros((0, embeddings.shape[1])))
        mean = np.add.reduceat(embeddings, first, axis=0) / count[:, None]  # exact sums: see CachedPatient
        kept = (count >= LEAST_WINDOWS) & np.isfinite(mean).all(
            axis=1
        )  # a block that is not finite says nothing
        return BlockMeans(end_us=(block[kept] + 1) * BLOCK_US, mean=mean[kept])

    def sampled_windows(
        self, patients: Sequence[str]
    ) -> tuple[Float[np.ndarray, "windows width"], Int[np.ndarray, " windows"]]:
        """Return the windows of some `SAMPLED_BLOCKS` whole blocks, evenly over all, and each one's block."""
        lying = [(patient, self._windows(patient)) for patient in patients]
        blocks = [np.unique(windows.start_us // BLOCK_US) for _, windows in lying]
        every = max(1, -(-sum(map(len, blocks)) // SAMPLED_BLOCKS))
        values, numbers, seen = [], [], 0
        for (_, windows), own in zip(lying, blocks, strict=True):
            chosen = own[(np.arange(seen, seen + len(own)) % every) == 0]
            inside = np.isin(windows.start_us // BLOCK_US, chosen)
            values.append(self._cache.get(windows.source_id).take(windows.rows[inside]))
            numbers.append(seen + np.searchsorted(own, windows.start_us[inside] // BLOCK_US))
            seen += len(own)
        return np.concatenate(values), np.concatenate(numbers)

    def _windows(self, patient_id: str) -> WindowRows:
        start_us = self._cache.get(patient_id).start_us
        inside = np.zeros(len(start_us), dtype=bool)
        for low, high in self._spans[patient_id]:
            inside |= (start_us >= low) & (start_us < high)
        rows = np.flatnonzero(inside)
        source = patient_id if self._twins is None else self._twins[patient_id]
        return WindowRows(patient_id=patient_id, rows=rows, start_us=start_us[rows], source_id=source)


@dataclass(frozen=True, kw_only=True)
class LastingDirections:
    """The directions of an embedding that last: features = directions (embedding - mean).

    Found without a label (``models.regressor.slow_features``), with ten-minute blocks in the place of pieces.
    """

    mean: Float[np.ndarray, " width"]
    directions: Float[np.ndarray, "features width"]

    @classmethod
    def fitted(cls, reader: BlockReader, patients: Sequence[str], count: int) -> "LastingDirections":
        """Find `count` directions, or as many as an embedding has, on training patients."""
        values, numbers = reader.sampled_windows(patients)
        found = SlowFeatures(values.shape[1], min(count, values.shape[1]))
        finite = np.isfinite(values).all(axis=1)
        found.fit(torch.from_numpy(values), torch.from_numpy(finite), torch.from_numpy(numbers))
        return cls(mean=found.mean.double().numpy(), directions=found.directions.double().numpy())

    def through(self, weights: Float[np.ndarray, " features"], bias: float) -> tuple[np.ndarray, float]:
        """Return a line through the features as one through the embedding itself: weights (width,) and bias."""
        whole = weights @ self.directions
        return whole, bias - float(whole @ self.mean)

    def of(self, means: BlockMeans) -> BlockMeans:
        """Return the features of block means; block by block, so that none depends on how many there are."""
        features = [self.directions @ (row - self.mean) for row in means.mean]
        return BlockMeans(end_us=means.end_us, mean=np.array(features).reshape(-1, len(self.directions)))
