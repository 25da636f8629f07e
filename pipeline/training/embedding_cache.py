"""Embeddings of the patients read last, in memory, with sums that make the mean over a stretch cheap."""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float16, Float32, Int

from pipeline.cohort.base import WindowStore
from pipeline.foundation.memory import available_memory_bytes
from pipeline.foundation.ranks import processes_on_this_machine
from pipeline.foundation.schema import DAY_US, WINDOW_US

MAX_POOLED_AGE_US = 30 * DAY_US
FREE_SHARE = 0.25
"""Of the free memory: other trainings, and what the system caches of files, need theirs (our decision)."""
_BLOCK = 256


@dataclass(frozen=True, kw_only=True)
class CachedPatient:
    """One patient's windows.

    Attributes
    ----------
    start_us : (n,) int64, in time order
    embeddings : (n, width) float16
    block_sums : (blocks + 1, width) float64, sum of the first k * 256 rows. Half-precision numbers are
        multiples of 2^-24, so these sums are exact for any embedding met in practice and depend on no
        grouping.
    """

    start_us: Int[np.ndarray, " n"]
    embeddings: Float16[np.ndarray, "n width"]
    block_sums: Float[np.ndarray, "blocks width"]

    @property
    def n_bytes(self) -> int:
        """Memory held."""
        return self.start_us.nbytes + self.embeddings.nbytes + self.block_sums.nbytes

    def rows_known_at(self, t0_us: int) -> tuple[int, int]:
        """Return the rows [first, stop) of windows that end at or before t0, at most 30 days before it."""
        bounds = np.array([t0_us - MAX_POOLED_AGE_US - WINDOW_US, t0_us - WINDOW_US + 1])
        first, stop = np.searchsorted(self.start_us, bounds)
        return int(first), int(stop)

    def take(self, rows: Int[np.ndarray, " rows"]) -> Float32[np.ndarray, "rows width"]:
        """Return the embeddings of `rows`, counted around the end (a twin may have fewer windows)."""
        return self.embeddings[rows % len(self.start_us)].astype(np.float32)

    def mean(self, first: int, stop: int) -> Float32[np.ndarray, " width"]:
        """Return the mean of the rows [first, stop), counted around the end."""
        return ((self._sum(stop) - self._sum(first)) / (stop - first)).astype(np.float32)

    def _sum(self, stop: int) -> np.ndarray:
        """Sum of the rows [0, stop), counted around the end."""
        rounds, rest = divmod(stop, len(self.start_us))
        total = self._sum_within(rest)
        return total + rounds * self._sum_within(len(self.start_us)) if rounds else total

    def _sum_within(self, stop: int) -> np.ndarray:
        block = stop // _BLOCK
        return self.block_sums[block] + self.embeddings[block * _BLOCK : stop].sum(axis=0, dtype=np.float64)


class EmbeddingCache:
    """Reads patients from a store and keeps the latest ones, up to a number of bytes; for one thread at a time.

    Parameters
    ----------
    max_bytes : None: `FREE_SHARE` of the memory that is free now, shared by the processes of this machine
    """

    def __init__(self, store: WindowStore, max_bytes: int | None = None) -> None:
        if max_bytes is None:
            max_bytes = int(FREE_SHARE * available_memory_bytes() / processes_on_this_machine())
        if max_bytes < 0:
            raise ValueError(f"max_bytes must not be negative, not {max_bytes}")
        self._store, self.max_bytes, self._held = store, max_bytes, 0
        self._patients: OrderedDict[str, CachedPatient] = OrderedDict()

    def get(self, patient_id: str) -> CachedPatient:
        """Return one patient's windows.

        Raises
        ------
        StoreError
            The store holds nothing of this patient.
        """
        if patient_id in self._patients:
            self._patients.move_to_end(patient_id)
            return self._patients[patient_id]
        patient = _read(self._store, patient_id)
        self._patients[patient_id] = patient
        self._held += patient.n_bytes
        while self._held > self.max_bytes and len(self._patients) > 1:
            _, oldest = self._patients.popitem(last=False)
            self._held -= oldest.n_bytes
        return patient


def _read(store: WindowStore, patient_id: str) -> CachedPatient:
    windows = store.read(patient_id)
    embeddings = np.asarray(windows.embeddings[:], dtype=np.float16)
    starts = np.arange(0, len(embeddings), _BLOCK)
    sums = [embeddings[i : i + _BLOCK].sum(axis=0, dtype=np.float64) for i in starts]
    none = np.zeros(windows.width)
    block_sums = np.cumsum(np.stack([none, *sums]), axis=0)
    return CachedPatient(start_us=np.asarray(windows.start_us), embeddings=embeddings, block_sums=block_sums)
