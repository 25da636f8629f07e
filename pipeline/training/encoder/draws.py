"""Measured draws of some patients, and the windows just before each: what an encoder is fine-tuned on."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from pipeline.cohort.aligned import AlignedCohort
from pipeline.foundation.schema import LAB_NAMES, MINUTE_US, WINDOW_US
from pipeline.training.encoder.config import EncoderTrainingConfig

WITHOUT_WINDOW = "draw without a usable window shortly before it"
TOO_MANY = "draw beyond encoder_training.most_windows"


@dataclass(frozen=True, kw_only=True)
class EncoderDraws:
    """Draws in order of patient and time; results of one moment are one draw.

    Attributes
    ----------
    patients : ids, in order; never shown
    patient : row of each draw's patient in `patients`
    sampled_us : time of each draw
    target : clinical units, NaN where the draw has no value of that lab
    window : rows of its windows in `start_us`, the latest first; -1 where it has fewer
    start_us, owner : start of each window that some draw needs, and the row of its patient; each window once
    """

    patients: tuple[str, ...]
    patient: Int[np.ndarray, " draws"]
    sampled_us: Int[np.ndarray, " draws"]
    target: Float[np.ndarray, "draws labs"]
    window: Int[np.ndarray, "draws latest"]
    start_us: Int[np.ndarray, " windows"]
    owner: Int[np.ndarray, " windows"]

    def __repr__(self) -> str:
        """Show counts, never identifiers."""
        return f"EncoderDraws({len(self.patients)} patients, {len(self.patient)} draws, {len(self.owner)} windows)"

    def fingerprint(self) -> str:
        """Return the hash of everything here."""
        digest = hashlib.sha256("\n".join(self.patients).encode())
        for array in (self.patient, self.sampled_us, self.target, self.window, self.start_us, self.owner):
            digest.update(f"{array.shape}|".encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def draws_with_windows(
    aligned: AlignedCohort,
    patients: Sequence[str],
    config: EncoderTrainingConfig,
    most_windows: int,
    exclusions: Counter[str],
) -> EncoderDraws:
    """Find the draws of `patients` that have windows, and these windows.

    Parameters
    ----------
    aligned : says which windows are usable, by sequence, and holds the draws
    most_windows : of all draws together; beyond it every patient keeps at most so many draws as fit, evenly in time
    exclusions : counts draws left out, by reason

    Returns
    -------
    Patients without a draw are left out. What is found of one patient depends on that patient alone, but for the
    number of draws that `most_windows` leaves to each.
    """
    everyone = sorted(set(patients))
    sequences = {str(p): list(ids) for p, ids in aligned.sequences.groupby("patient_id")["sequence_id"]}
    found = [_of_patient(aligned, one, sequences.get(one, []), config, exclusions) for one in everyone]
    kept = [(patient, *rows) for patient, rows in zip(everyone, found, strict=True) if len(rows[0])]
    limit = _draws_a_patient([len(rows[1]) for rows in kept], most_windows // config.windows_a_draw)
    parts = []
    for number, (_, sampled, target, windows) in enumerate(kept):
        rows = np.unique(np.linspace(0, len(sampled) - 1, min(limit, len(sampled))).round().astype(int))
        exclusions[TOO_MANY] += len(sampled) - len(rows)
        parts.append((np.full(len(rows), number), sampled[rows], target[rows], windows[rows]))
    none = (np.empty(0, int), np.empty(0, np.int64), np.empty((0, len(LAB_NAMES))))
    none += (np.empty((0, config.windows_a_draw), np.int64),)
    owner, sampled, target, windows = (np.concatenate(column) for column in zip(none, *parts, strict=True))
    exclusions += Counter()  # without zeros
    return _numbered(tuple(patient for patient, *_ in kept), owner, sampled, target, windows)


def _of_patient(
    aligned: AlignedCohort,
    patient: str,
    sequences: Sequence[str],
    config: EncoderTrainingConfig,
    exclusions: Counter[str],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return times, targets and window starts (-1 where there is none) of one patient's draws with windows."""
    sampled, target = _panel(aligned, patient)
    start_us = _usable_starts(aligned, sequences)
    last = np.searchsorted(start_us + WINDOW_US, sampled, side="right")  # windows that have ended by then
    rows = last[:, None] - 1 - np.arange(config.windows_a_draw)
    starts = np.append(start_us, np.int64(-1))[np.where(rows >= 0, rows, len(start_us))]
    early = starts + WINDOW_US <= sampled[:, None] - round(config.minutes_before * MINUTE_US)
    starts = np.where((rows < 0) | early, np.int64(-1), starts)
    kept = starts[:, 0] >= 0
    exclusions[WITHOUT_WINDOW] += int((~kept).sum())
    return sampled[kept], target[kept], starts[kept]


def _panel(aligned: AlignedCohort, patient: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the times of a patient's draws, in order, and their final values by lab."""
    series = {lab: one.final for lab, one in aligned.series.get(patient, {}).items()}
    times = [one.sampled_us for one in series.values()]
    sampled = np.unique(np.concatenate([np.empty(0, np.int64), *times]))
    target = np.full((len(sampled), len(LAB_NAMES)), np.nan)
    for lab, one in series.items():
        target[np.searchsorted(sampled, one.sampled_us), LAB_NAMES.index(lab)] = one.value
    return sampled, target


def _usable_starts(aligned: AlignedCohort, sequences: Sequence[str]) -> np.ndarray:
    """Return when the usable windows of all sequences of a patient start, in order."""
    grids = (aligned.grid(sequence) for sequence in sequences)
    starts = [grid.start_us[grid.usable] for grid in grids]
    return np.unique(np.concatenate([np.empty(0, np.int64), *starts]))


def _draws_a_patient(counts: Sequence[int], most: int) -> int:
    """Return the largest number of draws a patient with which at most `most` are kept; at least one."""
    low, high = 1, max([1, *counts])
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sum(min(n, middle) for n in counts) <= most else (low, middle - 1)
    return low


def _numbered(
    patients: tuple[str, ...], owner: np.ndarray, sampled: np.ndarray, target: np.ndarray, windows: np.ndarray
) -> EncoderDraws:
    """Give the windows numbers, by patient and start, so that neighbouring draws share theirs."""
    wanted = np.stack([np.repeat(owner, windows.shape[1]), windows.ravel()], axis=1)
    there = wanted[:, 1] >= 0
    unique, place = np.unique(wanted[there], axis=0, return_inverse=True)
    rows = np.full(len(wanted), -1)
    rows[there] = place.ravel()
    return EncoderDraws(
        patients=patients, patient=owner, sampled_us=sampled, target=target, window=rows.reshape(windows.shape),
        start_us=unique[:, 1], owner=unique[:, 0],
    )  # fmt: skip
