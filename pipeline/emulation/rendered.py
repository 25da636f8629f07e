"""Rendered windows with their truth: short bursts spread over long planted recordings, through a real encoder.

Bursts spread over days show far more of the physiology than as many windows of one hour, and tell what of an
embedding's residual lasts. Only the bursts are rendered; nothing is written.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float16, Float32, Int

from models.encoders.base import Encoder
from pipeline.emulation.inputs import signal_inputs
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.progress import tracked
from pipeline.foundation.schema import QUALITY_COLUMNS, WINDOW_US
from pipeline.foundation.workers import worker_pool
from pipeline.sources.base import Catalog, Record, Stretch
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.physiology import Course, morphology_at, random_stream
from pipeline.sources.synthetic.plan import CohortPlan, CohortSize, plan_patient
from pipeline.sources.synthetic.ppg import BLOCK_SAMPLES, SAMPLING_RATE_HZ
from pipeline.sources.synthetic.wfdb_files import RecordPlan, digital_codes, plan_record
from pipeline.windows.cutting import RawWindows, WindowConfig, iterate_windows

_GROUP = 16
"""Patients whose windows are embedded together."""
_LICENCE = "synthetic, no patient: CC0, share freely"


@dataclass(frozen=True, kw_only=True)
class BurstPlan:
    """How many windows of how many planted patients are rendered."""

    patients: int = 1500
    """Planted patients; misfit shrinks with them more than with windows a patient."""
    bursts: int = 10
    """Stretches of consecutive windows a patient, spread evenly."""
    burst_windows: int = 4
    """Windows in each; at least 2, so that what lasts is told from what does not."""
    hours: float = 24.0
    """Recorded time over which the bursts are spread."""
    seed: int = 20_160_001
    """Of the planted patients: far from those of any cohort and of pretraining."""

    def __post_init__(self) -> None:
        for name, least in (("patients", 8), ("bursts", 2), ("burst_windows", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least {least}")
        if self.hours * 120 < self.bursts * self.burst_windows * 2:
            raise ValueError(f"hours = {self.hours} is too short for {self.bursts} bursts")


@dataclass(frozen=True, kw_only=True)
class RenderedWindows:
    """Windows of planted patients, embedded.

    Attributes
    ----------
    patient, record : place of the patient, and number of the record over all patients
    start_us : int64 microseconds
    inputs : what the emulator sees, see ``inputs.signal_inputs``
    latents : (n, latents) in the order of ``CohortParameters.latent_names``
    embeddings : as the store keeps them
    concentration : of the window's spectrum, from its quality scores
    """

    patient: Int[np.ndarray, " n"]
    record: Int[np.ndarray, " n"]
    start_us: Int[np.ndarray, " n"]
    inputs: Float32[np.ndarray, "n inputs"]
    latents: Float32[np.ndarray, "n latents"]
    embeddings: Float16[np.ndarray, "n width"]
    concentration: Float32[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.patient)

    def of(self, rows: np.ndarray) -> "RenderedWindows":
        """Return the windows of `rows`, a mask or indices."""
        return RenderedWindows(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @classmethod
    def joined(cls, parts: list["RenderedWindows"]) -> "RenderedWindows":
        """Lay parts end to end."""
        return cls(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)})


def render_windows(
    encoder: Encoder, plan: BurstPlan, *, window: WindowConfig | None = None, workers: int = 1
) -> RenderedWindows:
    """Render and embed the bursts of `plan`; the result does not depend on `workers`.

    Raises
    ------
    ConfigError : hardly any window was usable
    """
    work = partial(_of_patients, encoder, plan, window or WindowConfig())
    groups = [range(first, min(first + _GROUP, plan.patients)) for first in range(0, plan.patients, _GROUP)]
    if workers <= 1:
        parts = list(tracked(map(work, groups), "rendering", "groups of patients", len(groups)))
    else:
        with worker_pool(workers, _single) as pool:
            parts = list(tracked(pool.map(work, groups), "rendering", "groups of patients", len(groups)))
    windows = RenderedWindows.joined(parts)
    if len(windows) < plan.patients:
        raise ConfigError(f"only {len(windows)} windows of {plan.patients} planted patients were usable")
    return windows


def _single() -> None:
    import torch

    torch.set_num_threads(1)


def _of_patients(
    encoder: Encoder, plan: BurstPlan, window: WindowConfig, patients: Sequence[int]
) -> RenderedWindows:
    """Embed the windows of several patients at once: an encoder pads its batches."""
    import torch

    from pipeline.embedding.encoders import prepare_for

    prepare = prepare_for(encoder)
    parts, samples = [], [np.empty((0, encoder.samples_per_window), np.float32)]
    for patient in patients:
        for part, raw in rendered_patient(plan, window, patient):
            parts.append(part)
            samples.append(prepare(raw.samples, raw.sampling_rate_hz, raw.rails))
    every = torch.from_numpy(np.ascontiguousarray(np.concatenate(samples)))
    embeddings = encoder.embed(every).float().cpu().numpy().astype(np.float16)
    joined = RenderedWindows.joined(parts) if parts else _none(CohortParameters.load())
    return replace(joined, embeddings=embeddings)


def rendered_patient(
    plan: BurstPlan, window: WindowConfig, patient: int, exclusions: Counter[str] | None = None
) -> Iterator[tuple[RenderedWindows, RawWindows]]:
    """Yield the truth of one patient's windows, without embeddings, and the windows as they were recorded."""
    parameters, dropped = CohortParameters.load(), Counter() if exclusions is None else exclusions
    size = CohortSize(n_patients=plan.patients, hours_low=plan.hours, hours_high=plan.hours)
    cohort = CohortPlan(
        parameters=parameters, size=size, root=Path(), coupling=1.0, null=None, seed=plan.seed, real_labs=None
    )
    stay, course = plan_patient(cohort, patient)
    rng = random_stream(plan.seed, patient, "records")
    records = [plan_record(parameters, course, span, stay.subject_id, rng) for span in stay.recordings]
    source = _Bursts(records, plan)
    for number, record in enumerate(source.catalog().records):
        for raw in iterate_windows(source, [record], window, dropped):
            count = len(raw.start_us)
            yield (
                RenderedWindows(
                    patient=np.full(count, patient, np.int64),
                    record=np.full(count, 2 * patient + number, np.int64),
                    start_us=raw.start_us,
                    inputs=record_inputs(parameters, course, records[number], raw.start_us),
                    latents=latents_at(course, raw.start_us + WINDOW_US // 2),
                    embeddings=np.empty((count, 0), np.float16),
                    concentration=raw.quality[:, QUALITY_COLUMNS.index("spectral_concentration")],
                ),
                raw,
            )


def latents_at(course: Course, at_us: Int[np.ndarray, " n"]) -> Float32[np.ndarray, "n latents"]:
    """Return every latent at some times."""
    rows = [np.interp(at_us, course.grid_us, latent) for latent in course.latents]
    return np.stack(rows, axis=1).astype(np.float32)


def record_inputs(
    parameters: CohortParameters, course: Course, record: RecordPlan, start_us: Int[np.ndarray, " n"]
) -> Float32[np.ndarray, "n inputs"]:
    """Return the emulator's inputs for some windows of a record whose beats are known; `start_us` within it."""
    onsets_us = record.start_us + record.beats.onsets[:-1] * (1_000_000 / SAMPLING_RATE_HZ)
    first, stop = np.searchsorted(onsets_us, start_us), np.searchsorted(onsets_us, start_us + WINDOW_US)
    sums = np.concatenate([[0.0], np.cumsum(record.beats.amplitude, dtype=np.float64)])
    amplitude = (sums[stop] - sums[first]) / np.maximum(stop - first, 1)
    shape = morphology_at(parameters, course, start_us + WINDOW_US // 2)
    return signal_inputs(parameters, shape, record.beats.noise / np.maximum(amplitude, 1e-3))


def _none(parameters: CohortParameters) -> RenderedWindows:
    columns = len(parameters.morphology) + 1
    return RenderedWindows(
        patient=np.empty(0, np.int64), record=np.empty(0, np.int64), start_us=np.empty(0, np.int64),
        inputs=np.empty((0, columns), np.float32),
        latents=np.empty((0, len(parameters.latent_names)), np.float32),
        embeddings=np.empty((0, 0), np.float16), concentration=np.empty(0, np.float32),
    )  # fmt: skip


class _Bursts:
    """A waveform source that renders some stretches of planned records when asked."""

    name, licence, root = "rendered bursts", _LICENCE, Path()

    def __init__(self, records: list[RecordPlan], plan: BurstPlan) -> None:
        self._records, self._plan = {record.name: record for record in records}, plan

    def catalog(self) -> Catalog:
        """Return the planned records."""
        return Catalog(records=tuple(self._record(plan) for plan in self._records.values()))

    def stretches(self, record: Record, exclusions: Counter[str]) -> Iterator[Stretch]:
        """Yield the bursts that lie in the record."""
        plan = self._records[record.name]
        share = plan.samples / (self._plan.hours * 3600 * SAMPLING_RATE_HZ)
        bursts = max(1, round(self._plan.bursts * share))
        length = self._plan.burst_windows * BLOCK_SAMPLES
        offset = -plan.start_us // 8_000 % BLOCK_SAMPLES  # to the next multiple of 30 s
        for centre in np.linspace(0, max(0, plan.samples - length - BLOCK_SAMPLES), bursts):
            first = int(centre) // BLOCK_SAMPLES * BLOCK_SAMPLES + offset
            if first + length <= plan.samples:
                yield self._burst(plan, first, length)

    def _burst(self, plan: RecordPlan, first: int, length: int) -> Stretch:
        samples = np.empty(length, np.float32)
        for at in range(first, first + length, BLOCK_SAMPLES):
            samples[at - first : at - first + BLOCK_SAMPLES] = digital_codes(plan, at, at + BLOCK_SAMPLES)
        samples[samples == plan.format.missing] = np.nan
        rails = (float(plan.format.lowest), float(plan.format.highest))
        start_us = plan.start_us + first * 8_000
        return Stretch(
            start_us=start_us, sampling_rate_hz=float(SAMPLING_RATE_HZ), samples=samples, rails=rails
        )

    @staticmethod
    def _record(plan: RecordPlan) -> Record:
        end_us = plan.start_us + plan.samples * 8_000
        return Record(
            patient_id="planted", name=plan.name, path=Path(plan.name), files=(), start_us=plan.start_us,
            end_us=end_us,
        )  # fmt: skip
