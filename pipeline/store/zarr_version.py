"""One version of one patient as a Zarr group: how it is written, streaming, and how it is read, lazily.

``embeddings`` float16 (n, width) in chunks of 2016 rows, ``start_us`` int64 (n,), ``quality`` float32 (n, q),
all raw, uncompressed and little-endian; ``entry.json`` is written last and holds the entry for the manifest.
On object storage all chunks of ``embeddings`` lie in one object, a shard. The only module that writes with
zarr; `object_storage` reads with it.
"""

import hashlib
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import zarr
from jaxtyping import Float, Int

from pipeline.foundation.atomic import explained_os_errors
from pipeline.foundation.errors import StoreError
from pipeline.foundation.schema import QUALITY_COLUMNS, WINDOW_US
from pipeline.store.base import ENTRY_FILE, Storage
from pipeline.store.chunk_reader import ChunkFiles
from pipeline.store.manifest import EmbeddingKey, ManifestEntry, entry_to_json
from pipeline.store.object_storage import ObjectRows, object_group

log = logging.getLogger(__name__)

CHUNK_WINDOWS = 2016
QUALITY_BINS = 10
FLOAT16_LIMIT = 65504


@dataclass(frozen=True, kw_only=True)
class PatientEmbeddings:
    """One patient's version as it was committed; arrays are read when first used.

    Attributes
    ----------
    width : columns of ``embeddings``
    embeddings : (n, width) float16, rows read when indexed
    start_us : (n,) int64 starts of the usable windows, ascending
    quality : (n, len(QUALITY_COLUMNS)) float32
    """

    entry: ManifestEntry
    location: Path | str

    def __len__(self) -> int:
        return self.entry.n_windows

    @property
    def width(self) -> int:
        """Columns of ``embeddings``."""
        return self.entry.width

    # Properties over cached ones: type checkers take a cached_property for no match of a protocol's property.
    @property
    def embeddings(self) -> ChunkFiles | ObjectRows:
        """Rows on disk, (n, width) float16: index it with a slice, an int, row numbers or a mask."""
        return self._embeddings

    @property
    def start_us(self) -> np.ndarray:
        """Starts of the usable windows, (n,) int64 microseconds wall clock, strictly ascending."""
        return self._start_us

    @property
    def quality(self) -> np.ndarray:
        """Quality scores, (n, len(QUALITY_COLUMNS)) float32."""
        return self._quality

    @cached_property
    def _embeddings(self) -> ChunkFiles | ObjectRows:
        return self._array("embeddings", (self.width,), CHUNK_WINDOWS, "float16")

    @cached_property
    def _start_us(self) -> np.ndarray:
        return self._array("start_us", (), max(1, len(self)), "int64")[:]

    @cached_property
    def _quality(self) -> np.ndarray:
        return self._array("quality", (len(QUALITY_COLUMNS),), max(1, len(self)), "float32")[:]

    def _array(
        self, name: str, columns: tuple[int, ...], chunk_rows: int, dtype: str
    ) -> ChunkFiles | ObjectRows:
        shape = (len(self), *columns)
        if isinstance(self.location, Path):
            return ChunkFiles(self.location / name, shape, chunk_rows, dtype)
        return ObjectRows(f"{self.location}/{name}", shape, dtype)


class PatientWriter:
    """Takes one patient's windows in time order and turns them into a version folder; made by `stage`."""

    def __init__(
        self, storage: Storage, patient: str, key: EmbeddingKey, width: int, provenance: str
    ) -> None:
        self._storage = storage
        self._patient = patient
        self._key = key
        self._width = width
        self._provenance = provenance
        self._folder = storage.new_staging_folder()
        self._group = zarr.create_group(self._folder)
        self._embeddings: zarr.Array | None = None
        self._pending: list[np.ndarray] = []
        self._n_pending = 0
        self._start_us: list[np.ndarray] = []
        self._quality: list[np.ndarray] = []
        self._hash = hashlib.blake2b(digest_size=16)

    def append(
        self,
        start_us: Int[np.ndarray, " n"],
        embeddings: Float[np.ndarray, "n width"],
        quality: Float[np.ndarray, "n q"],
    ) -> None:
        """Add the next windows.

        Raises
        ------
        StoreError : an embedding that is not finite or does not fit float16; disk full
        ValueError : shapes disagree, or the windows are not in time order on the 30 s grid
        """
        if embeddings.shape != (len(start_us), self._width) or quality.shape != (
            len(start_us),
            len(QUALITY_COLUMNS),
        ):
            raise ValueError(f"shapes disagree: {start_us.shape}, {embeddings.shape}, {quality.shape}")
        self._check_times(start_us)
        self._pending.append(_to_float16(embeddings))
        self._start_us.append(np.asarray(start_us, np.int64))
        self._quality.append(np.asarray(quality, np.float32))
        self._n_pending += len(start_us)
        if self._n_pending >= CHUNK_WINDOWS and not self._storage.one_object_per_array:
            self._flush(self._n_pending - self._n_pending % CHUNK_WINDOWS)

    def finish(
        self, exclusions: Mapping[str, int] | None = None, *, source_hash: str | None = None
    ) -> ManifestEntry:
        """Flush everything, rename the version folder into place and return what `commit` needs.

        Parameters
        ----------
        source_hash : of the records, where it was not known before they were read
        """
        key = self._key if source_hash is None else self._key.for_source(source_hash)
        if not key.source_hash:
            raise ValueError("a version needs the hash of its source")
        self._flush(self._n_pending)
        start_us = np.concatenate([np.empty(0, np.int64), *self._start_us])
        quality = np.concatenate([np.empty((0, len(QUALITY_COLUMNS)), np.float32), *self._quality])
        self._hash.update(start_us.tobytes() + quality.tobytes())
        entry = ManifestEntry(
            patient=self._patient,
            path=f"{self._patient}/{key.content_hash}",
            key=key,
            width=self._width,
            n_windows=len(start_us),
            data_hash=self._hash.hexdigest(),
            exclusions=dict(sorted((exclusions or {}).items())),
            quality_histogram=_histogram(quality),
            provenance=self._provenance,
        )
        with explained_os_errors(self._folder):
            for name, values in (("start_us", start_us), ("quality", quality)):
                array = _create(self._group, name, values.shape, max(1, len(values)), values.dtype.name, 0)
                array[...] = values
            self._group.update_attributes({"content_hash": key.content_hash})
            (self._folder / ENTRY_FILE).write_bytes(entry_to_json(entry))
        if not self._storage.publish(self._folder, entry.path):
            log.debug("a version with the same key was there already")
        return entry

    def discard(self) -> None:
        """Remove what was staged; nothing happens after `finish`."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _check_times(self, start_us: np.ndarray) -> None:
        previous = self._start_us[-1][-1:] if self._start_us else start_us[:0]
        times = np.concatenate([previous, start_us])
        if (np.diff(times) < WINDOW_US).any() or (start_us % WINDOW_US != 0).any():
            raise ValueError("windows must come in time order, on multiples of 30 s of the wall clock")

    def _flush(self, rows: int) -> None:
        pending = np.concatenate([np.empty((0, self._width), np.float16), *self._pending])
        with explained_os_errors(self._folder):
            if self._embeddings is None:
                shards = _whole_chunks(rows) if self._storage.one_object_per_array else None
                layout = (CHUNK_WINDOWS, "float16", float("nan"), shards)
                self._embeddings = _create(self._group, "embeddings", (0, self._width), *layout)
            done = int(self._embeddings.shape[0])
            self._embeddings.resize((done + rows, self._width))
            self._embeddings[done : done + rows] = pending[:rows]
        self._hash.update(pending[:rows].tobytes())
        self._pending = [pending[rows:]]
        self._n_pending -= rows


def _create(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    chunk_rows: int,
    dtype: str,
    fill_value: float | int,
    shard_rows: int | None = None,
) -> zarr.Array:
    """Create an array of raw little-endian rows; every chunk is written, so that a missing one is a loss."""
    return group.create_array(
        name,
        shape=shape,
        chunks=(chunk_rows, *shape[1:]),
        shards=None if shard_rows is None else (shard_rows, *shape[1:]),
        dtype=dtype,
        compressors=None,
        filters=None,
        fill_value=fill_value,
        config={"write_empty_chunks": True},
    )


def _whole_chunks(rows: int) -> int:
    """Return `rows` rounded up to whole chunks, at least one."""
    return max(1, -(-rows // CHUNK_WINDOWS)) * CHUNK_WINDOWS


def _to_float16(embeddings: np.ndarray) -> np.ndarray:
    if not np.isfinite(embeddings).all():
        raise StoreError("the encoder returned NaN or infinity: check its weights; nothing was stored")
    with np.errstate(over="ignore"):
        stored = embeddings.astype(np.float16)
    if not np.isfinite(stored).all():
        raise StoreError(
            f"an embedding exceeds {FLOAT16_LIMIT}, the largest float16: scale the encoder's output; "
            "nothing was stored"
        )
    return stored


def _histogram(quality: np.ndarray) -> tuple[int, ...]:
    scores = quality[:, QUALITY_COLUMNS.index("spectral_concentration")]
    counts, _ = np.histogram(scores[np.isfinite(scores)], bins=QUALITY_BINS, range=(0.0, 1.0))
    return tuple(int(count) for count in counts)


def check_layout(patient: PatientEmbeddings) -> None:
    """Compare the Zarr metadata of a version with its manifest entry.

    Raises
    ------
    StoreError : metadata missing or damaged, or not the shape, type, chunks or codec that `ChunkFiles` reads
    """
    expected = {
        "embeddings": ((len(patient), patient.width), (CHUNK_WINDOWS, patient.width), "float16"),
        "start_us": ((len(patient),), (max(1, len(patient)),), "int64"),
        "quality": (
            (len(patient), len(QUALITY_COLUMNS)), (max(1, len(patient)), len(QUALITY_COLUMNS)), "float32",
        ),
    }  # fmt: skip
    try:
        where = patient.location
        group = zarr.open_group(
            where if isinstance(where, Path) else object_group(where), mode="r", zarr_format=3
        )
        for name, layout in expected.items():
            array = group[name]
            if not isinstance(array, zarr.Array):
                raise StoreError(f"{name} is not an array")
            found = (array.shape, array.chunks, array.dtype.name)
            if found != layout or array.compressors:
                raise StoreError(
                    f"{name} has shape, chunks, type {found} and should have {layout}, uncompressed"
                )
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise StoreError(f"Zarr metadata is missing or damaged ({type(error).__name__})") from error
