"""The few windows around a draw that the LSTM baseline sees: no history, only the latest minutes."""

import numpy as np
from jaxtyping import Bool, Float32, Int

from models.regressor.window_reader import N_WINDOWS
from pipeline.cohort.base import PatientWindows
from pipeline.cohort.targets import StepGrid


def trailing_windows(
    windows: PatientWindows, grid: StepGrid, steps: Int[np.ndarray, " n"], *, centred: bool = False
) -> tuple[Float32[np.ndarray, "n ten width"], Bool[np.ndarray, "n ten"]]:
    """Read the ten windows that end with each step of one sequence; zeros and False where none is usable.

    Parameters
    ----------
    windows : the patient's, from the store
    grid : of the sequence
    steps : of the sequence (not of a piece)
    centred : five of the ten windows lie after the step: looks 2.5 minutes ahead (the paper's; marked
        where used)
    """
    offsets = np.arange(1 - N_WINDOWS, 1) + (N_WINDOWS // 2 if centred else 0)
    wanted = steps[:, None] + offsets
    inside = (wanted >= 0) & (wanted < len(grid.usable))
    wanted = np.where(inside, wanted, 0)
    mask = inside & grid.usable[wanted] if len(grid.usable) else inside
    values = np.zeros((len(steps), N_WINDOWS, windows.width), dtype=np.float32)
    if mask.any():
        rows = np.searchsorted(windows.start_us, grid.start_us[wanted[mask]])
        first, last = int(rows.min()), int(rows.max())
        values[mask] = np.asarray(windows.embeddings[first : last + 1], dtype=np.float32)[rows - first]
    return values, mask
