"""Steps of a sequence, the step of a draw, and training targets on the steps between draws."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from pipeline.cohort.alignment_config import AlignmentConfig
from pipeline.foundation.schema import HOUR_US, WINDOW_US
from pipeline.labs.history import LabSeries

_SIXTY_SECONDS_US = 60_000_000


@dataclass(frozen=True, kw_only=True)
class StepGrid:
    """Model steps of one sequence.

    Attributes
    ----------
    start_us : (n,) start of each step's window, int64 microseconds, ascending
    usable : (n,) whether the window is in the store; the others are masked
    """

    start_us: Int[np.ndarray, " n"]
    usable: Bool[np.ndarray, " n"]

    @property
    def end_us(self) -> Int[np.ndarray, " n"]:
        """End of each step's window."""
        return self.start_us + WINDOW_US


@dataclass(frozen=True, kw_only=True)
class LabTargets:
    """Targets of one lab on consecutive steps: clinical units (NaN without one), weight, whether drawn."""

    value: Float[np.ndarray, " steps"]
    weight: Float[np.ndarray, " steps"]
    measured: Bool[np.ndarray, " steps"]

    @classmethod
    def none(cls, n_steps: int) -> "LabTargets":
        """Return no target at all."""
        return cls(value=np.full(n_steps, np.nan), weight=np.zeros(n_steps), measured=np.zeros(n_steps, bool))


def window_of_draw(
    start_us: Int[np.ndarray, " n"], sampled_us: Int[np.ndarray, " draws"], rule: str
) -> Int[np.ndarray, " draws"]:
    """Return the index of each draw's window among windows in time order, or -1.

    ``ends_before``: the last window that ends at or before the draw. ``starts_within_60s``: the last window
    with 0 < draw - start <= 60 s, as in the authors' code.
    """
    if rule == "ends_before":
        return np.searchsorted(start_us + WINDOW_US, sampled_us, side="right") - 1
    index = np.searchsorted(start_us, sampled_us, side="left") - 1
    if not len(start_us):
        return index
    return np.where(sampled_us - start_us[index] <= _SIXTY_SECONDS_US, index, -1)


def lab_targets(series: LabSeries, grid: StepGrid, steps: slice, config: AlignmentConfig) -> LabTargets:
    """Return one lab's targets on `steps` of a sequence.

    A draw is the target of its own step with weight 1, even if that step is masked; unmasked steps between
    two draws get the value on the line between them. Outside the first and the last draw there is none.
    """
    series = series.final
    targets = LabTargets.none(steps.stop - steps.start)
    inside = series.sampled_us <= grid.end_us[-1]
    step = window_of_draw(grid.start_us, series.sampled_us, config.draw_window)
    step = np.where(inside, step, -1)
    value, between = _line(series, grid, steps, step, config)
    joined = between & grid.usable[steps]
    targets.value[joined] = value[joined]
    targets.weight[joined] = config.interpolated_weight
    here = (step >= steps.start) & (step < steps.stop)
    at = step[here] - steps.start
    targets.value[at], targets.weight[at], targets.measured[at] = series.value[here], 1.0, True
    targets.value[targets.weight == 0] = np.nan
    return targets


def _line(
    series: LabSeries, grid: StepGrid, steps: slice, step: np.ndarray, config: AlignmentConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Return the value on the line between draws at each step, and whether the step lies between two."""
    if config.interpolation == "step":
        # The last draw in a window stands for it.
        where, last = np.unique(step[step >= 0][::-1], return_index=True)
        value = series.value[step >= 0][::-1][last]
        position = np.arange(steps.start, steps.stop)
        time = series.sampled_us[step >= 0][::-1][last]
    else:
        where, value, time = series.sampled_us - grid.start_us[0], series.value, series.sampled_us
        position = grid.end_us[steps] - grid.start_us[0]
    after = np.searchsorted(where, position, side="left")
    between = (after > 0) & (after < len(where))
    if config.interpolation_cap_hours is not None:
        gap = np.diff(time) <= config.interpolation_cap_hours * HOUR_US
        between &= np.append(gap, False)[np.clip(after - 1, 0, max(len(gap), 0))]
    line = np.interp(position, where, value) if len(where) else np.full(len(position), np.nan)
    return line, between
