import numpy as np
import pytest

from pipeline.cohort.targets import StepGrid
from pipeline.foundation.schema import QUALITY_COLUMNS, WINDOW_US
from pipeline.testing.cohort import ORIGIN_US, MemoryWindows
from pipeline.training.trailing import trailing_windows

USABLE = np.array([True, True, False, True, True, True, True, True, True, True, True, True, False, True])
GRID = StepGrid(start_us=ORIGIN_US + np.arange(14, dtype=np.int64) * WINDOW_US, usable=USABLE)
STEPS = np.flatnonzero(USABLE)
WINDOWS = MemoryWindows(
    start_us=GRID.start_us[STEPS],
    embeddings=np.repeat(STEPS[:, None], 2, axis=1).astype(np.float16),  # a window's embedding is its step
    quality=np.ones((len(STEPS), len(QUALITY_COLUMNS)), np.float32),
)


def seen(step, centred=False):
    values, mask = trailing_windows(WINDOWS, GRID, np.array([step]), centred=centred)
    assert not values[~mask].any()
    return [int(v) if m else None for v, m in zip(values[0, :, 0], mask[0], strict=True)]


def test_the_ten_windows_end_with_the_step():
    assert seen(11) == [None, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert seen(13) == [4, 5, 6, 7, 8, 9, 10, 11, None, 13]


def test_before_the_sequence_there_is_nothing():
    assert seen(1) == [None] * 8 + [0, 1]


def test_centred_windows_look_ahead_and_stop_at_the_end():
    assert seen(7, centred=True) == [3, 4, 5, 6, 7, 8, 9, 10, 11, None]
    assert seen(11, centred=True) == [7, 8, 9, 10, 11, None, 13, None, None, None]


@pytest.mark.parametrize("n", [0, 3])
def test_a_patient_without_a_usable_window_sees_nothing(n):
    grid = StepGrid(start_us=GRID.start_us[:n], usable=np.zeros(n, dtype=bool))
    values, mask = trailing_windows(WINDOWS.keep(np.arange(0)), grid, np.array([0]))
    assert values.shape == (1, 10, 2)
    assert not mask.any()
