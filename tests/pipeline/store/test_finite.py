"""What is read of an embedding is a number: the check itself over all of float16, and every way of reading."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from pipeline.foundation.errors import StoreError
from pipeline.store.chunk_reader import ChunkFiles
from pipeline.store.finite import require_finite
from pipeline.store.object_storage import ObjectRows

ROWS, WIDTH = 10, 3


def test_of_all_half_precision_numbers_those_that_are_not_finite_are_refused() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = np.isfinite(every)
    assert require_finite(every[finite], "here").sum() == 0
    for number in every[~finite]:
        with pytest.raises(StoreError, match="here is not finite in 1 of the 2 rows"):
            require_finite(np.array([1.0, number], np.float16), "here")


def test_other_types_and_nothing_may_be_anything() -> None:
    quality = np.array([[np.nan, 1.0]], np.float32)
    assert require_finite(quality, "here") is quality
    assert not require_finite(np.empty((0, 4), np.float16), "here").size


def stored(folder: Path, damage: float) -> None:
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    array = group.create_array(
        "embeddings", shape=(ROWS, WIDTH), chunks=(4, WIDTH), dtype="float16", compressors=None, filters=None,
        fill_value=float("nan"),
    )  # fmt: skip
    values = np.arange(ROWS * WIDTH, dtype=np.float16).reshape(ROWS, WIDTH)
    values[5, 2] = damage
    array[...] = values


@pytest.mark.parametrize("damage", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize(
    "rows", [slice(None), slice(4, 6), slice(9, None, -2), 5, [0, 5], np.arange(ROWS) == 5], ids=str
)
def test_a_damaged_row_is_refused_however_it_is_read(
    tmp_path: Path, damage: float, local: bool, rows: Any
) -> None:
    stored(tmp_path, damage)
    array = (
        ChunkFiles(tmp_path / "embeddings", (ROWS, WIDTH), 4, "float16")
        if local
        else ObjectRows(f"file://{tmp_path}/embeddings", (ROWS, WIDTH), "float16")
    )
    np.testing.assert_array_equal(array[[0, 9]], [[0, 1, 2], [27, 28, 29]])
    with pytest.raises(StoreError, match=r"is not finite in 1 of the .* store verify"):
        array[rows]
