"""One running sequence of a new patient: where the model starts, afresh or once, and the state of every row."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from models.regressor.lstm import WindowLSTM
from pipeline.cohort.alignment_config import AlignmentConfig
from pipeline.cohort.base import PatientWindows
from pipeline.cohort.targets import StepGrid
from pipeline.foundation.schema import HOUR_US, LAB_NAMES, MINUTE_US, QUALITY_COLUMNS, WINDOW_US
from pipeline.labs.history import LabHistory, LabSeries, lab_history
from pipeline.prediction.config import (
    HISTORY_ONLY,
    NO_HISTORY,
    NO_SIGNAL,
    OK,
    STALE,
    WARMING_UP,
    PredictionConfig,
)
from pipeline.prediction.measured import measured_draws
from pipeline.training.dataset import PieceItem, pack, scale_history
from pipeline.training.embedding_cache import CachedPatient
from pipeline.training.filter_forecaster import PatientFilter
from pipeline.training.forecaster import Forecaster
from pipeline.training.inference import estimate_piece, estimate_windows
from pipeline.training.trailing import trailing_windows


@dataclass(frozen=True, kw_only=True)
class LiveSequence:
    """What is known of one sequence; rows are its steps of 30 s and the silence after it.

    Attributes
    ----------
    windows, known : the patient's windows in the store, and the same in memory
    series : the patient's results by lab
    origin_us, n_steps : first usable window, and steps up to the last one
    until_us : where the next sequence begins, None for the last
    alignment : how the model's cohort was aligned
    protocol : ``anchored``: the model starts afresh at every result; ``start``: once, at the end of the warm-up
    """

    windows: PatientWindows
    known: CachedPatient
    series: dict[str, LabSeries]
    origin_us: int
    n_steps: int
    alignment: AlignmentConfig
    config: PredictionConfig
    protocol: str
    until_us: int | None = None

    @property
    def n_rows(self) -> int:
        """Steps, the silence after the last usable one included."""
        n_rows = self.n_steps + self.config.silent_steps
        if self.until_us is None:
            return n_rows
        return max(self.n_steps, min(n_rows, (self.until_us - self.origin_us) // WINDOW_US))

    @cached_property
    def grid(self) -> StepGrid:
        """Every row's window and whether it is usable."""
        start_us = self.origin_us + np.arange(self.n_rows, dtype=np.int64) * WINDOW_US
        usable = np.isin(start_us, self.known.start_us)
        usable[self.n_steps :] = False
        return StepGrid(start_us=start_us, usable=usable)

    @cached_property
    def last_usable(self) -> Int[np.ndarray, " rows"]:
        """The latest usable step at each row; the first step is usable."""
        return np.maximum.accumulate(np.where(self.grid.usable, np.arange(self.n_rows), 0))

    @cached_property
    def cuts(self) -> tuple["Restart", ...]:
        """Every restart, the warm-up's first, in order of time.

        Those of the warm-up only tell the results known so far; under ``start`` no result restarts the model after it.
        """
        start_us = self.origin_us
        ready_us = start_us + self.alignment.start_history_windows * WINDOW_US
        available = np.concatenate([s.available_us for s in self.series.values()] or [np.empty(0, np.int64)])
        stop_us = ready_us if self.protocol == "start" else int(self.grid.end_us[-1])
        later = available[(available > start_us) & (available < stop_us)]
        t0_us = np.unique(np.append(later, [start_us, ready_us]))
        first = np.searchsorted(self.grid.start_us, t0_us, side="left")
        stops = np.append(first[1:], self.n_rows)
        return tuple(
            Restart(sequence=self, t0_us=int(t0), rows=slice(int(a), int(b)), warming_up=bool(t0 < ready_us))
            for t0, a, b in zip(t0_us, first, stops, strict=True)
            if a < b
        )

    def table(
        self,
        estimate: Float[np.ndarray, "rows labs"],
        spread: Float[np.ndarray, "rows labs"],
        log_scale: Bool[np.ndarray, " labs"],
        reads_waveform: Bool[np.ndarray, " labs"],
    ) -> pd.DataFrame:
        """Return a row per window end and lab, with the state of each.

        Parameters
        ----------
        estimate : clinical units
        spread, log_scale : see ``schema.SPREAD_COLUMNS``
        reads_waveform : whether a lab's estimate changes with the waveform
        """
        config = self.config
        steps = np.arange(self.n_rows)
        held, held_spread = np.empty_like(estimate), np.empty_like(estimate)
        last, sampled_us = np.empty_like(estimate), np.empty(estimate.shape, dtype=np.int64)
        warming_up = np.zeros(self.n_rows, dtype=bool)
        for cut in self.cuts:
            # A restart forgets what came before it: until its first usable window there is no estimate.
            own = self.last_usable[cut.rows] >= cut.rows.start
            held[cut.rows] = np.where(own[:, None], estimate[self.last_usable[cut.rows]], np.nan)
            held_spread[cut.rows] = spread[self.last_usable[cut.rows]]
            last[cut.rows], sampled_us[cut.rows] = cut.last_results
            warming_up[cut.rows] = cut.warming_up
        minutes = (steps - self.last_usable) * WINDOW_US / MINUTE_US
        held[(minutes > config.no_signal_minutes) | warming_up] = np.nan
        hours = np.where(np.isnan(last), np.nan, (self.grid.end_us[:, None] - sampled_us) / HOUR_US)
        silent = (minutes > config.stale_signal_minutes)[:, None] & reads_waveform
        state = np.tile(np.where(reads_waveform, OK, HISTORY_ONLY).astype(object), (self.n_rows, 1))
        state[(hours > config.stale_lab_hours) | silent] = STALE
        state[np.isnan(last)] = NO_HISTORY
        state[np.isnan(held)] = NO_SIGNAL
        state[warming_up] = WARMING_UP
        shown = np.flatnonzero(steps - self.last_usable <= config.silent_steps)
        own = pd.DataFrame(
            {"spread": held_spread[shown].ravel(), "log_scale": np.tile(log_scale, len(shown))}
        )
        return self._long(shown, held, last, hours, state).assign(**own)

    def _long(
        self, shown: np.ndarray, estimate: np.ndarray, last: np.ndarray, hours: np.ndarray, state: np.ndarray
    ) -> pd.DataFrame:
        n_labs = len(LAB_NAMES)
        ends = self.grid.end_us[shown].astype("datetime64[us]")
        draws = measured_draws(self.grid.end_us[shown], self.origin_us, self.series)
        return pd.DataFrame(
            {
                "window_end": np.repeat(ends, n_labs),
                "lab": np.tile(np.array(LAB_NAMES, dtype=object), len(shown)),
                "estimate": estimate[shown].ravel(),
                "last_lab": last[shown].ravel(),
                "hours_since_last_lab": hours[shown].ravel(),
                "signal_quality": np.repeat(self._quality()[shown], n_labs),
                "state": state[shown].ravel(),
                "measured": draws.value.ravel(),
                "measured_at": draws.sampled_at.ravel(),
                "results_reported": draws.reported.ravel(),
            }
        )

    def _quality(self) -> Float[np.ndarray, " rows"]:
        """Spectral concentration of each window, NaN where it is not usable."""
        column = np.asarray(self.windows.quality)[:, QUALITY_COLUMNS.index("spectral_concentration")]
        quality = np.full(self.n_rows, np.nan)
        usable = self.grid.usable
        quality[usable] = column[np.searchsorted(self.known.start_us, self.grid.start_us[usable])]
        return quality


@dataclass(frozen=True, kw_only=True)
class Restart:
    """From one t0 to the next: rows that share a history.

    Attributes
    ----------
    t0_us : when the history was taken
    rows : of the sequence
    warming_up : whether it lies before the first t0, where the model does not run
    """

    sequence: LiveSequence
    t0_us: int
    rows: slice
    warming_up: bool

    @cached_property
    def histories(self) -> list[LabHistory]:
        """History of every lab as known at t0."""
        return [self._history(self.sequence.series.get(lab)) for lab in LAB_NAMES]

    @property
    def last_results(self) -> tuple[Float[np.ndarray, " labs"], Int[np.ndarray, " labs"]]:
        """Last value (NaN where absent) and its time of draw, per lab, as known at t0."""
        return (
            np.array([history.last_value[0] for history in self.histories]),
            np.array([history.last_sampled_us[0] for history in self.histories], dtype=np.int64),
        )

    def estimates(self, forecaster: Forecaster) -> Float[np.ndarray, "rows labs"]:
        """Return the scaled estimate of every row up to the last usable one; NaN elsewhere."""
        scaled = np.full((self.rows.stop - self.rows.start, len(forecaster.labs)), np.nan)
        usable = np.flatnonzero(self.sequence.grid.usable[self.rows])
        if self.warming_up or not len(usable):
            return scaled
        n_steps = int(usable[-1]) + 1
        if isinstance(forecaster.model, WindowLSTM):
            steps = np.arange(self.rows.start, self.rows.start + n_steps, dtype=np.int64)
            windows, mask = trailing_windows(self.sequence.windows, self.sequence.grid, steps)
            scaled[:n_steps] = estimate_windows(forecaster.model, windows, mask, forecaster.device)
        else:
            inputs = pack([self._item(forecaster, n_steps)]).inputs
            scaled[:n_steps] = estimate_piece(forecaster.model, inputs, forecaster.device)
        return scaled

    def _item(self, forecaster: Forecaster, n_steps: int) -> PieceItem:
        known, grid = self.sequence.known, self.sequence.grid
        steps = slice(self.rows.start, self.rows.start + n_steps)
        mask = grid.usable[steps]
        embeddings = np.zeros((n_steps, known.embeddings.shape[1]), dtype=np.float32)
        embeddings[mask] = known.take(np.searchsorted(known.start_us, grid.start_us[steps][mask]))
        features = np.stack([history.features[0] for history in self.histories]).astype(np.float32)
        first, stop = known.rows_known_at(self.t0_us)
        return PieceItem(
            piece_id="",
            embeddings=embeddings,
            step_mask=mask,
            history=scale_history(features, forecaster.scaler),
            history_present=np.array([bool(history.present[0]) for history in self.histories]),
            pooled=known.mean(first, stop) if first < stop else np.zeros(embeddings.shape[1], np.float32),
            pooled_present=first < stop,
            targets=np.zeros((n_steps, len(forecaster.labs)), dtype=np.float32),
            weights=np.zeros((n_steps, len(forecaster.labs)), dtype=np.float32),
        )

    def _history(self, series: LabSeries | None) -> LabHistory:
        """Summarise what is known at t0 alone: a sum's rounding depends on how many numbers it runs over."""
        known = np.flatnonzero(series.available_us <= self.t0_us) if series else np.empty(0, dtype=int)
        past = LabSeries(
            value=series.value[known] if series else np.empty(0),
            sampled_us=series.sampled_us[known] if series else np.empty(0, np.int64),
            available_us=series.available_us[known] if series else np.empty(0, np.int64),
        )
        return lab_history(past, np.array([self.t0_us], dtype=np.int64), self.sequence.alignment.history)


def answers(
    sequence: LiveSequence, patient: PatientFilter
) -> tuple[Float[np.ndarray, "rows labs"], Float[np.ndarray, "rows labs"]]:
    """Return what a patient's filters say at every usable row after the warm-up, and the spreads; NaN elsewhere.

    All rows are asked at once, each with the results known at its restart, so that the filters run once.
    """
    shape = sequence.n_rows, len(patient.model.config.task_labs)
    value, spread = np.full(shape, np.nan), np.full(shape, np.nan)
    known_us = np.full(sequence.n_rows, -1, np.int64)
    for cut in restarts(sequence):
        known_us[cut.rows] = cut.t0_us
    asked = np.flatnonzero(sequence.grid.usable & (known_us >= 0))
    if len(asked):
        found = patient.at(sequence.grid.end_us[asked], known_us[asked])
        value[asked], spread[asked] = found.median, found.draw_spread
    return value, spread


def restarts(sequence: LiveSequence) -> Iterator[Restart]:
    """Yield the restarts at which the model runs, in order of time."""
    return (cut for cut in sequence.cuts if not cut.warming_up)
