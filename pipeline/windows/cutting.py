"""30 s windows on the wall clock: cut a patient's records on multiples of 30 s and keep the usable ones.

The grid belongs to the clock, not to a record or an admission, so that a record that arrives late shifts
nothing and embedding needs no clinical table.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from pipeline.foundation.schema import QUALITY_COLUMNS, WINDOW_US
from pipeline.sources.base import Record, Stretch, WaveformSource, in_time_order
from pipeline.windows.quality import window_quality
from pipeline.windows.resample import samples_per_window

MAX_BATCH_WINDOWS = 512
_GRID_SLACK_SAMPLES = 0.01
"""Times are whole microseconds: a first sample that should lie on the grid may seem to lie just before it."""


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """What makes a window unusable.

    Attributes
    ----------
    rail_share_limit : highest share of samples at the rails, 0..1 (our decision)
    flat_share_limit : a window is flat where at least this share of its seconds is flat, 0..1 (our decision)
    flat_tolerance : a second is flat where its range is at most this share of full scale; 0 = perfectly
        constant
    version : name of everything done to a window before the encoder; part of the embedding store's key
    """

    rail_share_limit: float = 0.25
    flat_share_limit: float = 0.9
    flat_tolerance: float = 0.0
    version: str = "windows-1"

    def __post_init__(self) -> None:
        if not 0 <= self.rail_share_limit <= 1:
            raise ValueError(f"rail_share_limit = {self.rail_share_limit}: must lie in 0..1")
        if not 0 < self.flat_share_limit <= 1:
            raise ValueError(f"flat_share_limit = {self.flat_share_limit}: must lie in 0..1, above 0")
        if not 0 <= self.flat_tolerance < 1:
            raise ValueError(f"flat_tolerance = {self.flat_tolerance}: must lie in 0..1, below 1")
        if not self.version:
            raise ValueError("version = '': must name the preprocessing")


@dataclass(frozen=True, kw_only=True)
class RawWindows:
    """Usable windows in time order, all at one rate and from one digital range.

    Attributes
    ----------
    start_us : wall clock, int64 microseconds, multiples of 30 s
    samples : float32 physical units, without NaN; m = whole samples in 30 s
    sampling_rate_hz : rate of `samples`
    rails : physical values of the lowest and highest digital code
    quality : float32, ``schema.QUALITY_COLUMNS``
    """

    start_us: Int[np.ndarray, " n"]
    samples: Float[np.ndarray, "n m"]
    sampling_rate_hz: float
    rails: tuple[float, float]
    quality: Float[np.ndarray, "n q"]


def iterate_windows(
    source: WaveformSource,
    records: Sequence[Record],
    config: WindowConfig,
    exclusions: Counter[str],
    before_record: Callable[[Record], None] | None = None,
) -> Iterator[RawWindows]:
    """Cut one patient's records into usable windows.

    Parameters
    ----------
    source : reads the records, stretch by stretch
    records : of one patient, in any order; where they overlap, the earliest is used
    config : what makes a window unusable
    exclusions : receives one count for each window dropped, by reason, beside what the source skips
    before_record : called with each record just before it is read

    Yields
    ------
    Batches of at most 512 windows, in time order over all records; the bits of a window depend on its samples
    alone.
    """
    free_from_us = None
    for record in in_time_order(records):
        if before_record is not None:
            before_record(record)
        for stretch, starts_us, samples in _grid_windows(source.stretches(record, exclusions), exclusions):
            if free_from_us is not None and starts_us[0] < free_from_us:
                late = starts_us >= free_from_us
                _count(exclusions, "window: overlaps an earlier record", ~late)
                starts_us, samples = starts_us[late], samples[late]
            windows = _usable(starts_us, samples, stretch, config, exclusions)
            if len(windows.start_us):
                free_from_us = int(windows.start_us[-1]) + WINDOW_US
                yield windows


def _count(exclusions: Counter[str], reason: str, dropped: Bool[np.ndarray, " n"]) -> None:
    """Count without leaving zeros behind."""
    if dropped.any():
        exclusions[reason] += int(dropped.sum())


def _usable(
    starts_us: np.ndarray,
    samples: np.ndarray,
    stretch: Stretch,
    config: WindowConfig,
    exclusions: Counter[str],
) -> RawWindows:
    """Score the windows, drop and count the unusable ones; each counts for its first reason alone."""
    quality = window_quality(
        samples, stretch.sampling_rate_hz, stretch.rails, flat_tolerance=config.flat_tolerance
    )
    column = dict(zip(QUALITY_COLUMNS, quality.T, strict=True))
    keep: Bool[np.ndarray, " n"] = np.ones(len(samples), bool)
    for reason, bad in (
        ("window: missing samples", column["missing_share"] > 0),
        ("window: flat", column["flat_share"] >= config.flat_share_limit),
        ("window: at the rails", column["rail_share"] > config.rail_share_limit),
    ):
        _count(exclusions, reason, keep & bad)
        keep &= ~bad
    every = bool(keep.all())
    return RawWindows(
        start_us=starts_us if every else starts_us[keep],
        samples=samples if every else samples[keep],
        sampling_rate_hz=stretch.sampling_rate_hz,
        rails=stretch.rails,
        quality=quality if every else quality[keep],
    )


def _grid_windows(
    stretches: Iterator[Stretch], exclusions: Counter[str]
) -> Iterator[tuple[Stretch, np.ndarray, np.ndarray]]:
    """Complete windows of one record: (stretch they end in, starts, samples), at most 512 at a time.

    Stretches that continue one another at the same rate and digital range are joined, so that a window may
    span a segment's border; any other window that a border cuts is counted as partial, once.
    """
    run: _Run | None = None
    last_partial_cell = None
    for stretch in stretches:
        if len(stretch.samples) == 0:
            continue
        if run is None or not run.continues(stretch):
            last_partial_cell = _count_partial(run, last_partial_cell, exclusions)
            run = _Run(stretch)
        for starts_us, samples in run.append(stretch):
            yield stretch, starts_us, samples
    _count_partial(run, last_partial_cell, exclusions)


class _Run:
    """Joined stretches: where they began, and the samples that no complete window has used up."""

    def __init__(self, first: Stretch) -> None:
        self.start_us = first.start_us
        self.rate = first.sampling_rate_hz
        self.rails = first.rails
        self.window_samples = samples_per_window(self.rate)
        self.length = 0
        slack_us = int(_GRID_SLACK_SAMPLES * 1_000_000 / self.rate)
        self.first_cell = -(-(first.start_us - slack_us) // WINDOW_US)
        """The first grid cell that begins inside the run."""
        self.next_cell = self.first_cell
        self.tail = np.empty(0, np.float32)

    @property
    def end_us(self) -> int:
        return self.start_us + round(self.length * 1_000_000 / self.rate)

    def continues(self, stretch: Stretch) -> bool:
        """Whether `stretch` begins where the run ends (to half a sample), at the same rate and rails."""
        same = (stretch.sampling_rate_hz, stretch.rails) == (self.rate, self.rails)
        return same and abs(stretch.start_us - self.end_us) <= 500_000 / self.rate

    def append(self, stretch: Stretch) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Take the stretch in and yield the windows that it completes."""
        samples = np.concatenate([self.tail, stretch.samples]) if len(self.tail) else stretch.samples
        offset = self.length - len(self.tail)
        self.length += len(stretch.samples)
        last_cell = (self.end_us // WINDOW_US) + 1
        cells = np.arange(self.next_cell, max(last_cell, self.next_cell))
        first_samples = self._first_sample(cells) - offset
        complete = int((first_samples + self.window_samples <= len(samples)).sum())
        self.next_cell += complete
        for block in range(0, complete, MAX_BATCH_WINDOWS):
            rows = slice(block, min(block + MAX_BATCH_WINDOWS, complete))
            view = np.lib.stride_tricks.sliding_window_view(samples, self.window_samples)
            yield cells[rows] * WINDOW_US, view[first_samples[rows]]
        used = int(self._first_sample(np.array([self.next_cell]))[0]) - offset
        self.tail = samples[min(used, len(samples)) :].copy()  # a view would keep the whole chunk alive

    def partial_cells(self) -> list[int]:
        """Grid cells that the run touches without filling them."""
        first_touched = self.start_us // WINDOW_US
        half_sample_us = 500_000 / self.rate
        last_touched = int((self.end_us - half_sample_us) // WINDOW_US)
        return [*range(first_touched, self.first_cell), *range(self.next_cell, last_touched + 1)]

    def _first_sample(self, cells: np.ndarray) -> np.ndarray:
        """Index, from the run's start, of the first sample at or after the start of each grid cell."""
        position = (cells * WINDOW_US - self.start_us) * self.rate / 1_000_000
        return np.ceil(position - _GRID_SLACK_SAMPLES).astype(np.int64)


def _count_partial(run: _Run | None, last_cell: int | None, exclusions: Counter[str]) -> int | None:
    """Count the run's partial windows, but none that the run before has counted; return the last one."""
    cells = [] if run is None else run.partial_cells()
    _count(
        exclusions,
        "window: partial, at a gap or an end",
        np.array([cell != last_cell for cell in cells], bool),
    )
    return cells[-1] if cells else last_cell
