"""What the cohort, and every room above it, reads of embeddings: a store in a folder, in memory, or changed."""

from typing import Any, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class PatientWindows(Protocol):
    """What the store returns of one patient; see ``pipeline.store.embeddings.PatientEmbeddings``.

    ``start_us`` (n,) int64 in time order, ``quality`` (n, len(QUALITY_COLUMNS)), ``embeddings`` (n, width)
    sliceable, ``width``.
    """

    @property
    def start_us(self) -> np.ndarray:
        """Start of each usable window, int64 microseconds."""
        ...

    @property
    def quality(self) -> np.ndarray:
        """One row of ``schema.QUALITY_COLUMNS`` a window."""
        ...

    @property
    def embeddings(self) -> Any:
        """One row a window, float16, read when sliced."""
        ...

    @property
    def width(self) -> int:
        """Columns of the embeddings."""
        ...


@runtime_checkable
class WindowStore(Protocol):
    """The part of the embedding store that sequences, alignment and data sets read."""

    def read(self, patient_id: str) -> PatientWindows:
        """Return one patient's windows, or raise StoreError where there are none."""
        ...
