"""What was known about a patient's labs at a time t0: features for the model, and the values carried forward.

Only results with ``available_at`` <= t0 that were drawn at most 30 days before t0 count. Ages are taken from
the draw, because the value describes the patient then.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from pipeline.foundation.schema import DAY_US, HISTORY_FEATURES, HOUR_US


@dataclass(frozen=True, kw_only=True)
class HistoryConfig:
    """Which history a piece sees."""

    features: Literal["default", "paper", "authors"] = "default"
    """``default``: all of ``schema.HISTORY_FEATURES``; ``paper``: plain mean and presence; ``authors``: mean
    weighted by exp(-3 age / oldest age) and presence. Features not in use are zero where the lab is
    present."""
    decay_hours: float = 24.0
    """Time constant of the decayed mean, hours. Our decision."""
    max_age_days: float = 30.0
    """Oldest draw that counts, days before t0."""

    def __post_init__(self):
        if self.features not in ("default", "paper", "authors"):
            raise ValueError(f"features must be default, paper or authors, not {self.features!r}")
        if self.decay_hours <= 0:
            raise ValueError(f"decay_hours must be positive, not {self.decay_hours}")
        if self.max_age_days <= 0:
            raise ValueError(f"max_age_days must be positive, not {self.max_age_days}")


@dataclass(frozen=True, kw_only=True)
class LabSeries:
    """Clean results of one lab of one patient, in order of draw and of when they were known.

    Attributes
    ----------
    value : (n,) clinical units; NaN from when a draw was withdrawn
    sampled_us, available_us : (n,) int64 microseconds; a corrected draw has several rows (``versions``)
    source_code : (n,) of the assay; None: not told
    """

    value: Float[np.ndarray, " n"]
    sampled_us: Int[np.ndarray, " n"]
    available_us: Int[np.ndarray, " n"]
    source_code: Shaped[np.ndarray, " n"] | None = None

    @property
    def final(self) -> "LabSeries":
        """The last version of every draw, withdrawn ones left out: what is estimated, never an input."""
        last = np.append(self.sampled_us[1:] != self.sampled_us[:-1], True)[: len(self.value)]
        kept = last & ~np.isnan(self.value)
        return LabSeries(
            value=self.value[kept], sampled_us=self.sampled_us[kept], available_us=self.available_us[kept],
            source_code=None if self.source_code is None else self.source_code[kept],
        )  # fmt: skip

    @property
    def codes(self) -> list[str]:
        """Source code of each result, "" where none is told."""
        return (
            [""] * len(self.value) if self.source_code is None else [str(code) for code in self.source_code]
        )

    def standing(self, time_us: Int[np.ndarray, " times"]) -> Bool[np.ndarray, "times n"]:
        """Which versions stand at each time: known by then, not yet corrected, not withdrawn."""
        corrected_us = np.full(len(self.value), np.iinfo(np.int64).max)
        again = self.sampled_us[1:] == self.sampled_us[:-1]
        corrected_us[:-1][again] = self.available_us[1:][again]
        known = (self.available_us[None] <= time_us[:, None]) & (time_us[:, None] < corrected_us[None])
        return known & ~np.isnan(self.value)[None]


@dataclass(frozen=True, kw_only=True)
class LabHistory:
    """History of one lab at several times.

    Attributes
    ----------
    features : (times, len(HISTORY_FEATURES)) clinical units, hours and counts under log1p; NaN where absent
    present : (times,) whether any result counts
    last_value, last_sampled_us : (times,) the latest draw that counts; NaN and 0 where absent
    mean : (times,) plain mean; NaN where absent
    """

    features: Float[np.ndarray, "times features"]
    present: Bool[np.ndarray, " times"]
    last_value: Float[np.ndarray, " times"]
    last_sampled_us: Int[np.ndarray, " times"]
    mean: Float[np.ndarray, " times"]


def lab_history(series: LabSeries, t0_us: Int[np.ndarray, " times"], config: HistoryConfig) -> LabHistory:
    """Summarise what was known of one lab at each t0; a result that came later changes nothing."""
    age_us = t0_us[:, None] - series.sampled_us[None]
    known = series.standing(t0_us) & (age_us <= config.max_age_days * DAY_US)
    present: np.ndarray = np.asarray(known.any(axis=1))
    last = _last_true(known)
    age_hours = np.where(known, age_us / HOUR_US, np.inf)
    count = known.sum(axis=1)
    mean = _weighted_mean(series.value, known.astype(float))
    last_value = _take(series.value, last, np.nan)
    features = np.zeros((len(t0_us), len(HISTORY_FEATURES)))
    if config.features == "default":
        features[:, 0] = _weighted_mean(series.value, _decay(age_hours, present, config.decay_hours))
        features[:, 1] = last_value
        features[:, 2] = np.log1p(_take_rows(age_hours, last))
        features[:, 3] = np.log1p(count)
    elif config.features == "paper":
        features[:, 0] = mean
    else:
        features[:, 0] = _weighted_mean(series.value, _authors_weight(age_hours, present))
    features[~present] = np.nan
    return LabHistory(
        features=features,
        present=present,
        last_value=last_value,
        last_sampled_us=_take(series.sampled_us, last, 0),
        mean=mean,
    )


def last_available_before(
    series: LabSeries, time_us: Int[np.ndarray, " times"]
) -> Float[np.ndarray, " times"]:
    """Return the latest draw's value with ``available_at`` strictly before each time, NaN without one."""
    return _take(series.value, _last_true(series.standing(time_us - 1)), np.nan)


def _last_true(mask: Bool[np.ndarray, "times n"]) -> Int[np.ndarray, " times"]:
    """Index of the last True in each row, or -1."""
    if not mask.shape[1]:
        return np.full(len(mask), -1)
    return np.where(mask.any(axis=1), mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1), -1)


def _take(values: np.ndarray, index: np.ndarray, absent: float | int) -> np.ndarray:
    if not len(values):
        return np.full(len(index), absent, values.dtype)
    return np.where(index < 0, np.asarray(absent, values.dtype), values[index])


def _take_rows(table: np.ndarray, index: np.ndarray) -> np.ndarray:
    """One entry of each row; 0 where the index is -1."""
    if not table.shape[1]:
        return np.zeros(len(index))
    return np.where(index < 0, 0.0, np.take_along_axis(table, index[:, None], axis=1)[:, 0])


def _decay(age_hours: np.ndarray, present: np.ndarray, decay_hours: float) -> np.ndarray:
    """exp(-age / decay), relative to the youngest so that a history of weeks does not underflow."""
    youngest = np.where(present, age_hours.min(axis=1, initial=np.inf), 0.0)
    return np.exp(-(age_hours - youngest[:, None]) / decay_hours)


def _authors_weight(age_hours: np.ndarray, present: np.ndarray) -> np.ndarray:
    """exp(-3 age / oldest age) over the results that count."""
    known = np.isfinite(age_hours)
    oldest = np.where(known, age_hours, 0.0).max(axis=1, initial=0.0)
    relative = np.where(known, age_hours, 0.0) / np.where(present & (oldest > 0), oldest, 1.0)[:, None]
    return np.where(known, np.exp(-3.0 * relative), 0.0)


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over the last axis; NaN where no weight is."""
    total = _running_sum(weights)
    given = np.where(np.isnan(values), 0.0, values)  # a withdrawn draw weighs nothing
    return np.where(total > 0, _running_sum(weights * given) / np.where(total > 0, total, 1.0), np.nan)


def _running_sum(table: np.ndarray) -> np.ndarray:
    """Sum each row from left to right.

    numpy's own sum groups its terms by their number, so that a later
    result of weight zero would change the last bit of an earlier history.
    """
    return table.cumsum(axis=1)[:, -1] if table.shape[1] else np.zeros(len(table))
