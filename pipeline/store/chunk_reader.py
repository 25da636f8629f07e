"""Reads rows of an uncompressed local Zarr array straight from its chunk files.

Zarr reads whole chunks through several layers; a slice of a day costs nine times a memory-mapped ``.npy``.
The chunks of our store are plain little-endian rows, so a slice is one ``readinto`` per chunk touched.
"""

import math
import mmap
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.foundation.errors import StoreError
from pipeline.store.finite import require_finite


class ChunkFiles:
    """An array in chunks of whole rows, read when asked for, embeddings only if finite; safe to share and to pickle.

    Index it with an int, a slice, an array of row numbers or a mask; the result is always a fresh array.

    Parameters
    ----------
    folder : the Zarr array's folder
    shape : rows, and what one row holds
    chunk_rows : rows of one chunk; the last chunk is padded to full size
    dtype : as stored
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], chunk_rows: int, dtype: str) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self._folder = folder
        self._chunk_rows = chunk_rows
        self._row_bytes = math.prod(shape[1:]) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            return require_finite(
                self._slice(start, max(start, stop))
                if step == 1
                else self._pick(np.arange(start, stop, step)),
                self._folder,
            )
        chosen = np.asarray(rows)
        if chosen.dtype == bool:
            chosen = np.flatnonzero(chosen)
        picked = require_finite(self._pick(np.atleast_1d(chosen.astype(np.int64))), self._folder)
        return picked if chosen.ndim else picked[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype)

    def _slice(self, start: int, stop: int) -> np.ndarray:
        block = np.empty((stop - start, *self.shape[1:]), self.dtype)
        row = start
        while row < stop:
            chunk, offset = divmod(row, self._chunk_rows)
            rows = min(self._chunk_rows - offset, stop - row)
            self._read_into(block[row - start : row - start + rows], chunk, offset)
            row += rows
        return block

    def _pick(self, rows: np.ndarray) -> np.ndarray:
        rows = np.where(rows < 0, rows + len(self), rows)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"row numbers must lie within 0..{len(self) - 1}")
        block = np.empty((len(rows), *self.shape[1:]), self.dtype)
        chunks, offsets = np.divmod(rows, self._chunk_rows)
        for chunk in np.unique(chunks).tolist():
            here = np.flatnonzero(chunks == chunk)
            block[here] = self._mapped(chunk)[offsets[here]]
        return block

    def _mapped(self, chunk: int) -> np.ndarray:
        """Return a whole chunk without reading it; `np.memmap` does the same at several times the cost."""
        size = self._chunk_rows * self._row_bytes
        try:
            with self._path(chunk).open("rb", buffering=0) as file:
                mapped = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ)
        except (FileNotFoundError, ValueError) as error:  # ValueError: the file is shorter
            raise self._lost() from error
        return np.frombuffer(mapped, self.dtype).reshape(self._chunk_rows, *self.shape[1:])

    def _read_into(self, block: np.ndarray, chunk: int, offset: int) -> None:
        target = block.view(np.uint8).data
        try:
            with self._path(chunk).open("rb", buffering=0) as file:
                file.seek(offset * self._row_bytes)
                read = file.readinto(target)
        except FileNotFoundError as error:
            raise self._lost() from error
        if read != target.nbytes:
            raise self._lost()

    def _path(self, chunk: int) -> Path:
        return self._folder.joinpath("c", str(chunk), *["0"] * (len(self.shape) - 1))

    def _lost(self) -> StoreError:
        return StoreError(
            "a chunk of the embedding store is missing or cut short: it was collected while in use, or the "
            "disk lost it; open the patient again, and if that fails run: python -m pipeline store verify"
        )
