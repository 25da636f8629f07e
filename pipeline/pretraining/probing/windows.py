"""Windows with something known about each: BIDMC's numerics, or the truth behind synthetic PPG."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int

from models.encoders.base import Encoder
from pipeline.embedding.encoders import prepare_for
from pipeline.emulation.rendered import BurstPlan, rendered_patient
from pipeline.foundation.errors import ConfigError, RecordError
from pipeline.foundation.progress import tracked
from pipeline.foundation.schema import QUALITY_COLUMNS, WINDOW_SECONDS
from pipeline.foundation.workers import worker_pool
from pipeline.sources.base import UNKNOWN_RAILS
from pipeline.sources.bidmc import NUMERICS, Bidmc
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.ppg import BLOCK_SAMPLES, SAMPLING_RATE_HZ
from pipeline.windows.cutting import WindowConfig, iterate_windows
from pipeline.windows.quality import window_quality
from pipeline.windows.resample import replace_rails

TARGETS = dict(zip(("heart_rate", "respiration_rate"), NUMERICS, strict=True))
"""Columns of the monitor's numerics, both per minute."""
RESPIRATION_BAND_HZ = (0.1, 0.6)
FEWEST_SECONDS = WINDOW_SECONDS // 2
"""A window's rate is the mean of at least so many of its 30 numerics."""
HALVES = ("all", "choose", "judge")
FEWEST_PATIENTS = 4
"""Two folds of patients, each with two parts to choose the penalty on."""
_GROUP = 16
"""Patients that one task renders."""
_Planted = tuple[np.ndarray, np.ndarray, np.ndarray, Counter[str]]
"""Samples, patients, the emulator's inputs, and windows dropped by reason."""


@dataclass(frozen=True, kw_only=True)
class ProbeWindows:
    """Windows with a known rate.

    Attributes
    ----------
    samples : (n, m) float32, physical units
    sampling_rate_hz : rate of `samples`
    patients : (n,) a number for each patient
    targets : for each of `TARGETS`, (n,) the mean of the monitor's values, NaN where it has too few
    exclusions : windows dropped, by reason
    """

    samples: Float[np.ndarray, "n m"]
    sampling_rate_hz: float
    patients: Int[np.ndarray, " n"]
    targets: Mapping[str, Float[np.ndarray, " n"]]
    exclusions: Mapping[str, int]

    def embedded(self, encoder: Encoder) -> Float[np.ndarray, "n width"]:
        """Return the encoder's frozen embedding of each window."""
        return self.timed_embedding(encoder)[0]

    def timed_embedding(self, encoder: Encoder) -> tuple[Float[np.ndarray, "n width"], float]:
        """Return the encoder's frozen embedding of each window, and how many seconds it took without preparation."""
        prepared = prepare_for(encoder)(self.samples, self.sampling_rate_hz, UNKNOWN_RAILS)
        windows = torch.from_numpy(np.ascontiguousarray(prepared))
        encoder.embed(windows[:1])  # what is made once is no window's time
        start = time.perf_counter()
        embedding = encoder.embed(windows).float().cpu().numpy()
        return embedding, time.perf_counter() - start

    def of(self, rows: Bool[np.ndarray, " n"]) -> "ProbeWindows":
        """Return some of the windows."""
        return replace(
            self, samples=self.samples[rows], patients=self.patients[rows],
            targets={name: values[rows] for name, values in self.targets.items()},
        )  # fmt: skip

    def half(self, which: str) -> "ProbeWindows":
        """Return the windows of every other patient: to "choose" by, or to "judge" by; "all" of them.

        Raises
        ------
        ConfigError : no such half, or one of fewer than `FEWEST_PATIENTS`
        """
        if which not in HALVES:
            raise ConfigError(f"half = {which!r} must be one of {', '.join(HALVES)}")
        place = np.unique(self.patients, return_inverse=True)[1]
        chosen = self.of(np.ones(len(place), bool) if which == "all" else place % 2 == (which == "judge"))
        found = len(np.unique(chosen.patients))
        if found < FEWEST_PATIENTS:
            raise ConfigError(
                f"half = {which!r} holds {found} patients; the penalty of a read-out is chosen on patients left out, "
                f"and that needs {FEWEST_PATIENTS}: use a folder with more, or half = 'all'"
            )
        return chosen

    def spectral_peaks(self) -> dict[str, Float[np.ndarray, " n"]]:
        """Return the rates per minute at the highest peaks of each window's own spectrum: no training."""
        quality = window_quality(self.samples, self.sampling_rate_hz, UNKNOWN_RAILS)
        heart = quality[:, QUALITY_COLUMNS.index("spectral_peak_hz")].astype(np.float64)
        n = self.samples.shape[1]
        centred = self.samples - self.samples.mean(axis=1, keepdims=True)
        power = np.abs(np.fft.rfft(centred * np.hanning(n), n=4 * n, axis=1)) ** 2
        hertz = np.fft.rfftfreq(4 * n, 1 / self.sampling_rate_hz)
        band = (hertz >= RESPIRATION_BAND_HZ[0]) & (hertz <= RESPIRATION_BAND_HZ[1])
        respiration = hertz[band][power[:, band].argmax(axis=1)]
        return {"heart_rate": 60 * heart, "respiration_rate": 60 * respiration}


def bidmc_windows(root: Path, config: WindowConfig | None = None) -> ProbeWindows:
    """Cut BIDMC into 30 s windows under the usual rules, each with the rates that the monitor showed.

    Raises
    ------
    RecordError : no recording, or one that cannot be used: the probe's figures are those of the whole folder
    """
    source = Bidmc(root)
    found = source.catalog()
    if not found.records and not found.exclusions:
        raise RecordError(f"{root} holds no bidmc_##_Signals.csv; point at the BIDMC folder of CSV files")
    exclusions = Counter(found.exclusions)
    _require_whole(root, exclusions)
    samples, patients, rows = [], [], []
    for record in sorted(found.records, key=lambda record: record.path):
        numerics = source.numerics(record)
        for windows in iterate_windows(source, [record], config or WindowConfig(), exclusions):
            samples.append(windows.samples)
            patients += [record.patient_id] * len(windows.samples)
            rows += [_rates(numerics, int(start // 1_000_000)) for start in windows.start_us]
    _require_whole(root, exclusions)
    return ProbeWindows(
        samples=np.concatenate(samples), sampling_rate_hz=source.sampling_rate_hz, exclusions=exclusions,
        patients=np.unique(patients, return_inverse=True)[1].astype(np.int64),
        targets={target: np.array([row[target] for row in rows]) for target in TARGETS},
    )  # fmt: skip


def _require_whole(root: Path, exclusions: Counter[str]) -> None:
    bad = [
        f"{reason.removeprefix('record: ')} ({n})"
        for reason, n in exclusions.items()
        if reason[:6] == "record"
    ]
    if bad:
        raise RecordError(f"{root} lacks recordings, and patients could not be held out: {', '.join(bad)}")


def planted_windows(plan: BurstPlan, *, window: WindowConfig | None = None, workers: int = 1) -> ProbeWindows:
    """Render windows of planted patients, nothing written, with the parameters that the planted labs act through.

    Targets are each parameter's place between its bounds (of the variability: of its logarithm), in the middle of the
    window. The result does not depend on `workers`.
    """
    work = partial(_planted_patients, plan, window or WindowConfig())
    groups = [range(first, min(first + _GROUP, plan.patients)) for first in range(0, plan.patients, _GROUP)]
    if workers <= 1:
        parts = list(tracked(map(work, groups), "rendering", "groups of patients", len(groups)))
    else:
        with worker_pool(workers) as pool:
            parts = list(tracked(pool.map(work, groups), "rendering", "groups of patients", len(groups)))
    samples, patients, truth, dropped = zip(*parts, strict=True)
    inputs = np.concatenate(truth).astype(np.float64)
    return ProbeWindows(
        samples=np.concatenate(samples), sampling_rate_hz=float(SAMPLING_RATE_HZ),
        patients=np.concatenate(patients), exclusions=sum(dropped, Counter[str]()),
        targets={name: inputs[:, k] for k, name in enumerate(CohortParameters.load().morphology)},
    )  # fmt: skip


def _planted_patients(plan: BurstPlan, window: WindowConfig, patients: Sequence[int]) -> _Planted:
    dropped: Counter[str] = Counter()
    samples, owners, truth = [], [], []
    for patient in patients:
        for part, raw in rendered_patient(plan, window, patient, dropped):
            samples.append(replace_rails(raw.samples, raw.rails))
            owners.append(part.patient)
            truth.append(part.inputs)
    if not samples:
        inputs = len(CohortParameters.load().morphology) + 1
        return (
            np.empty((0, BLOCK_SAMPLES), np.float32), np.empty(0, np.int64), np.empty((0, inputs), np.float32), dropped,
        )  # fmt: skip
    return np.concatenate(samples), np.concatenate(owners), np.concatenate(truth), dropped


def _rates(numerics: pd.DataFrame, first_second: int) -> dict[str, float]:
    rows = numerics.iloc[first_second : first_second + WINDOW_SECONDS]
    return {
        target: float(rows[column].mean()) if rows[column].notna().sum() >= FEWEST_SECONDS else np.nan
        for target, column in TARGETS.items()
    }
