"""Bring labs and windows together: pieces with their histories, and the draws that every method is scored on.

``start``: one piece a sequence, t0 = end of its first windows, and the model sees no later lab.
``anchored``: the sequence is cut wherever a result becomes available; a draw is served by the last cut
strictly before it.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.cohort.aligned import AlignedCohort, series_by_patient, step_grid
from pipeline.cohort.alignment_config import AlignmentConfig
from pipeline.cohort.base import WindowStore
from pipeline.cohort.sequences import Sequences
from pipeline.cohort.splits import Splits
from pipeline.cohort.targets import StepGrid, window_of_draw
from pipeline.foundation.errors import StoreError
from pipeline.foundation.progress import tracked
from pipeline.foundation.schema import (
    EXAMPLE_COLUMNS,
    HISTORY_FEATURES,
    HOUR_US,
    LAB_EVENT_COLUMNS,
    LAB_NAMES,
    MINUTE_US,
    PIECE_COLUMNS,
    QUALITY_COLUMNS,
    WINDOW_US,
)
from pipeline.labs.cleaning import LabEvents
from pipeline.labs.history import LabHistory, LabSeries, lab_history, last_available_before
from pipeline.labs.versions import final_results

_NO_SERIES = LabSeries(
    value=np.empty(0), sampled_us=np.empty(0, np.int64), available_us=np.empty(0, np.int64)
)


@dataclass(frozen=True, kw_only=True)
class _Sequence:
    """One sequence with its steps, its windows' quality, and its patient's labs."""

    sequence_id: str
    patient_id: str
    span_us: tuple[int, int]
    grid: StepGrid
    concentration: np.ndarray  # (steps,) float32, NaN where masked
    series: dict[str, LabSeries]


@dataclass(frozen=True, kw_only=True)
class _Draws:
    """Draws of all labs inside a sequence's span, by time."""

    lab: np.ndarray  # (n,) index into LAB_NAMES
    value: np.ndarray  # (n,)
    sampled_us: np.ndarray  # (n,) int64
    step: np.ndarray  # (n,) model step of the draw as a target, or -1
    window: np.ndarray  # (n,) model step of the last usable window, the prediction's, or -1


@dataclass(frozen=True, kw_only=True)
class _Pieces:
    """Pieces of one sequence and protocol, and the history at each one's t0."""

    t0_us: np.ndarray  # (pieces,) int64
    first_step: np.ndarray  # (pieces,)
    history: tuple[LabHistory, ...]  # one a lab


def align(
    sequences: Sequences,
    lab_events: LabEvents,
    store: WindowStore,
    config: AlignmentConfig = AlignmentConfig(),  # noqa: B008 - frozen
    splits: Splits | None = None,
) -> AlignedCohort:
    """Cut pieces, take their histories and list the scored draws of every sequence.

    Every draw of a patient with sequences is either an example or counted once for each protocol under its
    reason. With `splits`, a patient who is in no split is refused at once instead of during training.
    """
    frame = sequences.frame
    patients = sorted(set(frame["patient_id"]))
    if splits is not None:
        for patient in patients:
            splits.split_of(patient)
    known = lab_events.frame["patient_id"].isin(patients)
    draws = lab_events.frame.loc[known, list(LAB_EVENT_COLUMNS)].reset_index(drop=True)
    exclusions: Counter[str] = Counter()
    n_draws = len(final_results(draws))
    exclusions["lab result of a patient without a sequence"] = len(
        final_results(lab_events.frame.loc[~known])
    )
    tables: dict[str, list] = {"usable": [], "pieces": [], "history": [], "present": [], "examples": []}
    inside = 0
    for sequence, usable in _sequences(frame, series_by_patient(draws), store, config):
        found = _draws_in_span(sequence, config)
        inside += len(found.lab)
        tables["usable"].append(usable)
        for protocol in config.protocols:
            _align_sequence(sequence, found, protocol, config, exclusions, tables)
    for protocol in config.protocols:
        exclusions[f"{protocol}: draw outside every sequence"] += n_draws - inside
    return _cohort(frame, draws, tables, config, exclusions + Counter())


def _sequences(
    frame: pd.DataFrame, series: dict[str, dict[str, LabSeries]], store: WindowStore, config: AlignmentConfig
) -> Iterator[tuple[_Sequence, np.ndarray]]:
    """Yield each sequence and which of its grid steps are usable."""
    columns = ("sequence_id", "patient_id", "origin_us", "n_steps", "n_windows")
    rows = list(zip(*(frame[c] for c in columns), strict=True))
    for name, patient, origin_us, n_steps, n_windows in tracked(rows, "aligning", "sequences"):
        windows = store.read(patient)
        start_us = np.asarray(windows.start_us)
        end_us = origin_us + n_steps * WINDOW_US
        rows = slice(*np.searchsorted(start_us, [origin_us, end_us]))
        steps = (start_us[rows] - origin_us) // WINDOW_US
        if len(steps) != n_windows:
            raise StoreError(
                f"A sequence was cut from {n_windows} windows, but the store holds {len(steps)} in "
                "its span: the store has changed. Cut the sequences again."
            )
        usable = np.zeros(n_steps, bool)
        usable[steps] = True
        quality = np.asarray(windows.quality)[rows, QUALITY_COLUMNS.index("spectral_concentration")]
        concentration = np.full(n_steps, np.nan, np.float32)
        concentration[steps] = quality
        grid = step_grid(int(origin_us), usable, config)
        yield (
            _Sequence(
                sequence_id=name,
                patient_id=patient,
                span_us=(int(origin_us), int(end_us)),
                grid=grid,
                concentration=concentration if config.steps == "grid" else quality,
                series=series.get(patient, {}),
            ),
            usable,
        )


def _draws_in_span(sequence: _Sequence, config: AlignmentConfig) -> _Draws:
    """Return the draws with origin < sampled_at <= end of the last window."""
    low, high = sequence.span_us
    found = [sequence.series.get(lab, _NO_SERIES).final for lab in LAB_NAMES]
    parts = [
        (np.full(len(series.value), i), series.value, series.sampled_us) for i, series in enumerate(found)
    ]
    lab, value, sampled = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(sampled, kind="stable")
    order = order[(sampled[order] > low) & (sampled[order] <= high)]
    sampled = sampled[order]
    grid = sequence.grid
    usable = np.flatnonzero(grid.usable)
    last = window_of_draw(grid.start_us[usable], sampled, config.draw_window)
    return _Draws(
        lab=lab[order],
        value=value[order],
        sampled_us=sampled,
        step=window_of_draw(grid.start_us, sampled, config.draw_window),
        window=np.where(last >= 0, np.append(usable, -1)[last], -1),
    )


def _cuts(sequence: _Sequence, protocol: str, config: AlignmentConfig) -> np.ndarray:
    """Return every t0: the start's, then (anchored) each later time at which a result becomes available."""
    start = sequence.span_us[0] + config.start_history_windows * WINDOW_US
    if protocol == "start":
        return np.array([start], np.int64)
    available = np.concatenate([series.available_us for series in sequence.series.values()] or [[]])
    later = np.unique(available[(available > start) & (available < sequence.span_us[1])])
    return np.append(np.int64(start), later).astype(np.int64)


def _align_sequence(
    sequence: _Sequence,
    draws: _Draws,
    protocol: str,
    config: AlignmentConfig,
    exclusions: Counter[str],
    tables: dict[str, list],
) -> None:
    """Add one sequence's pieces, histories and examples of one protocol to `tables`."""
    t0_us = _cuts(sequence, protocol, config)
    history = tuple(
        lab_history(sequence.series.get(lab, _NO_SERIES), t0_us, config.history) for lab in LAB_NAMES
    )
    first_step = np.searchsorted(sequence.grid.start_us, t0_us, side="left")
    pieces = _Pieces(t0_us=t0_us, first_step=first_step, history=history)
    piece = np.searchsorted(t0_us, draws.sampled_us, side="left") - 1  # the last cut strictly before the draw
    n_steps = np.zeros(len(t0_us), np.int64)
    served = piece >= 0
    last = np.maximum(draws.step, draws.window)[served] + 1 - first_step[piece[served]]
    np.maximum.at(n_steps, piece[served], last)
    kept = np.flatnonzero(n_steps > 0)
    names = np.array([f"{sequence.sequence_id}-{protocol[0]}{index:04d}" for index in range(len(t0_us))])
    columns = (names[kept], sequence.sequence_id, sequence.patient_id, protocol)
    columns += (t0_us[kept], first_step[kept], n_steps[kept])
    tables["pieces"].append(dict(zip(PIECE_COLUMNS, columns, strict=True)))
    tables["history"].append(np.stack([h.features[kept] for h in history], axis=1).astype(np.float32))
    tables["present"].append(np.stack([h.present[kept] for h in history], axis=1))
    scored = _scored(sequence, draws, piece, pieces, protocol, config, exclusions)
    examples = _examples(sequence, draws, scored, piece[scored], pieces)
    tables["examples"].append(examples | {"protocol": protocol, "piece_id": names[piece[scored]]})


def _scored(
    sequence: _Sequence,
    draws: _Draws,
    piece: np.ndarray,
    pieces: _Pieces,
    protocol: str,
    config: AlignmentConfig,
    exclusions: Counter[str],
) -> np.ndarray:
    """Return which draws every method is scored on; count the others by their first reason."""
    present = np.stack([history.present for history in pieces.history], axis=1)
    end_us = sequence.grid.end_us
    recent = draws.sampled_us - end_us[draws.window] <= config.recent_window_minutes * MINUTE_US
    reasons = {
        "draw at or before t0": piece < 0,
        "no usable window close before the draw": (draws.window < 0) | ~recent,
        "no usable window between t0 and the draw": draws.window < pieces.first_step[piece],
        "no earlier result of that lab in the history": ~present[piece, draws.lab],
    }
    left = np.ones(len(piece), bool)
    for reason, bad in reasons.items():
        exclusions[f"{protocol}: {reason}"] += int((left & bad).sum())
        left &= ~bad
    return np.flatnonzero(left)


def _examples(
    sequence: _Sequence, draws: _Draws, scored: np.ndarray, piece: np.ndarray, pieces: _Pieces
) -> dict[str, np.ndarray | str]:
    """Return the scored draws' ``schema.EXAMPLE_COLUMNS``, without piece_id and protocol."""
    lab, sampled, window = draws.lab[scored], draws.sampled_us[scored], draws.window[scored]
    last_value = np.stack([history.last_value for history in pieces.history], axis=1)[piece, lab]
    last_us = np.stack([history.last_sampled_us for history in pieces.history], axis=1)[piece, lab]
    mean = np.stack([history.mean for history in pieces.history], axis=1)[piece, lab]
    live = np.full(len(scored), np.nan)
    for index, name in enumerate(LAB_NAMES):
        here = lab == index
        live[here] = last_available_before(sequence.series.get(name, _NO_SERIES), sampled[here])
    return {
        "sequence_id": sequence.sequence_id,
        "patient_id": sequence.patient_id,
        "lab": np.array(LAB_NAMES)[lab],
        "sampled_at_us": sampled,
        "t0_us": pieces.t0_us[piece],
        "step": window - pieces.first_step[piece],
        "prediction_window_end_us": sequence.grid.end_us[window],
        "truth": draws.value[scored],
        "last_lab": last_value,
        "hours_since_last_lab": (sampled - last_us) / HOUR_US,
        "history_mean": mean,
        "live_last_lab": live,
        "spectral_concentration": sequence.concentration[window],
    }


def _cohort(
    sequences: pd.DataFrame,
    draws: pd.DataFrame,
    tables: dict[str, list],
    config: AlignmentConfig,
    exclusions: Counter[str],
) -> AlignedCohort:
    none = (0, len(LAB_NAMES))
    return AlignedCohort(
        sequences=sequences.reset_index(drop=True),
        pieces=_table(tables["pieces"], PIECE_COLUMNS),
        draws=draws,
        examples=_table(tables["examples"], EXAMPLE_COLUMNS),
        history=np.concatenate([np.empty((*none, len(HISTORY_FEATURES)), np.float32), *tables["history"]]),
        history_present=np.concatenate([np.empty(none, bool), *tables["present"]]),
        usable=np.concatenate([np.empty(0, bool), *tables["usable"]]),
        config=config,
        exclusions=exclusions,
    )


def _table(parts: list[dict[str, np.ndarray | str]], columns: tuple[str, ...]) -> pd.DataFrame:
    """Put dictionaries of columns, scalars repeated, one below the other."""
    text = {"piece_id", "sequence_id", "patient_id", "protocol", "lab"}
    whole = {"t0_us", "first_step", "n_steps", "step", "sampled_at_us", "prediction_window_end_us"}
    frame = {}
    for name in columns:
        kind = object if name in text else np.int64 if name in whole else np.float64
        pieces = [np.broadcast_to(np.asarray(part[name]), _length(part)).astype(kind) for part in parts]
        frame[name] = np.concatenate([np.empty(0, kind), *pieces])
    return pd.DataFrame(frame).astype({name: str for name in columns if name in text})


def _length(part: dict[str, np.ndarray | str]) -> int:
    return next(len(column) for column in part.values() if isinstance(column, np.ndarray))
