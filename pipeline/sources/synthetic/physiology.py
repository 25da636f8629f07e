"""One synthetic patient's course: stay, latent processes, labs and blood draws.

Each lab has a latent of its own, and a few latents are shared nuisances. A latent is what the pulse wave
shows; the lab follows ``z = coupling * latent + sqrt(1 - coupling^2) * own``, where ``own`` is an independent
process of the same law, so that a lab's marginal distribution and autocorrelation are the same at every
coupling and carry- forward baselines cannot tell couplings apart. Null "b" draws each z afresh: nothing can
be predicted.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.foundation.schema import DAY_US, HOUR_US, MINUTE_US
from pipeline.sources.synthetic.parameters import CohortParameters, LabProcess

_FIRST_DAY_US = 47_482 * DAY_US  # 2100-01-01: surrogate dates lie in 2100-2200
_SURROGATE_DAYS = 36_000
HISTORY_US = 30 * DAY_US
"""Labs reach back so far before a recording, and the oracle knows them."""
_STREAMS = ("stay", "latents", "own", "offsets", "draws", "records", "tables", "demographics")


def random_stream(seed: int, patient: int, name: str) -> np.random.Generator:
    """Give the generator of one purpose and one patient: no patient or purpose shifts another's numbers."""
    return np.random.default_rng([seed, patient, _STREAMS.index(name)])


@dataclass(frozen=True, kw_only=True)
class Stay:
    """When one patient was in hospital and recorded; int64 microseconds on the wall clock."""

    subject_id: int
    admission_id: int
    admitted_us: int
    discharged_us: int
    recordings: tuple[tuple[int, int], ...]
    """Start and end of each record, whole seconds."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """What truly happens in one patient.

    Attributes
    ----------
    grid_us : (g,) int64, times of the latent grid
    latents : (n_latents, g) unit-variance processes in the order of ``CohortParameters.latent_names``
    offsets : (n_morphology,) the patient's own offsets, in units of the latents' SD
    lab_scores : (5, g) z of each lab without a draw's noise; NaN where a lab has no course (real labs, null
    "b") draws : lab, sampled_at_us, score (z), value (without noise), measured, latent
    """

    grid_us: np.ndarray
    latents: np.ndarray
    offsets: np.ndarray
    lab_scores: np.ndarray
    draws: pd.DataFrame


def to_value(process: LabProcess, score: np.ndarray) -> np.ndarray:
    """Turn standard-normal scores into the lab's unit."""
    if process.skewed:
        spread = process.log_sd()
        return np.exp(np.log(process.mean) - spread**2 / 2 + spread * score)
    return process.mean + process.sd * score


def to_score(process: LabProcess, value: np.ndarray) -> np.ndarray:
    """Invert `to_value`."""
    if process.skewed:
        spread = process.log_sd()
        return (np.log(np.maximum(value, 1e-6)) - np.log(process.mean) + spread**2 / 2) / spread
    return (value - process.mean) / process.sd


def ornstein_uhlenbeck(steps: int, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Give a stationary unit-variance OU path; `ratio` = grid step / time constant."""
    decay = np.exp(-ratio)
    scale = np.sqrt(1 - decay**2)
    shocks = rng.standard_normal(steps)
    shocks[0] /= scale
    from scipy.signal import lfilter  # half a second that Dagster's definitions need not wait for

    return np.asarray(lfilter([scale], [1.0, -decay], shocks))


def plan_stay(
    parameters: CohortParameters, hours: tuple[float, float], seed: int, patient: int, subject_id: int
) -> Stay:
    """Draw one patient's admission and recording times; `hours` bounds the recorded time."""
    rng = random_stream(seed, patient, "stay")
    schedule, recording = parameters.draws, parameters.recording
    start_us = _FIRST_DAY_US + int(rng.integers(_SURROGATE_DAYS * 86_400)) * 1_000_000
    length_us = int(rng.uniform(*hours) * 3600) * 1_000_000
    before = rng.uniform(schedule.hours_before_low, schedule.hours_before_high)
    after = rng.uniform(schedule.hours_after_low, schedule.hours_after_high)
    end_us = start_us + length_us
    recordings = ((start_us, end_us),)
    if rng.random() < recording.second_record_share:
        cut_us = start_us + int(rng.uniform(0.3, 0.7) * length_us / 1e6) * 1_000_000
        pause_us = min(int(rng.uniform(0.1, 0.3) * (end_us - cut_us) / 1e6), 7200) * 1_000_000
        recordings = ((start_us, cut_us), (cut_us + pause_us, end_us))
    return Stay(
        subject_id=subject_id,
        admission_id=100_000 + (subject_id * 7_919) % 99_991,
        admitted_us=start_us - int(before * 60) * MINUTE_US - start_us % MINUTE_US,
        discharged_us=end_us + int(after * 60) * MINUTE_US - end_us % MINUTE_US,
        recordings=recordings,
    )


def own_processes(parameters: CohortParameters, steps: int, rng: np.random.Generator) -> np.ndarray:
    """Give one unit-variance process per lab: patient level plus OU, (5, steps)."""
    rows = []
    for process in parameters.labs.values():
        level = rng.standard_normal()
        ratio = parameters.latent_step_minutes / 60 / process.time_constant_hours
        path = ornstein_uhlenbeck(steps, ratio, rng)
        rows.append(np.sqrt(process.patient_share) * level + np.sqrt(1 - process.patient_share) * path)
    return np.stack(rows)


def shared_processes(parameters: CohortParameters, steps: int, rng: np.random.Generator) -> np.ndarray:
    """Give the shared nuisance processes, (n_shared, steps)."""
    step_hours = parameters.latent_step_minutes / 60
    constants = parameters.shared_time_constants_hours.values()
    return np.stack([ornstein_uhlenbeck(steps, step_hours / hours, rng) for hours in constants])


def _gapped_times(
    start: int, stop: int, gap_hours: float, spread: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw times from `start` to `stop`, log-normal gaps, whole minutes."""
    count = int((stop - start) / HOUR_US / gap_hours * 2 * np.exp(spread)) + 8
    gaps = gap_hours * np.exp(spread * rng.standard_normal(count))
    gaps[0] *= rng.random()
    times = start + (np.cumsum(gaps) * HOUR_US).astype(np.int64)
    times -= times % MINUTE_US
    return times[times < stop]


def draw_times(parameters: CohortParameters, stay: Stay, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw the times at which each lab is measured, from admission to discharge."""
    schedule = parameters.draws
    span = (stay.admitted_us, stay.discharged_us)
    panel = _gapped_times(*span, schedule.panel_gap_hours, schedule.panel_gap_spread, rng)
    lactate = _gapped_times(*span, schedule.lactate_gap_hours, schedule.lactate_gap_spread, rng)
    ordered = rng.random() < schedule.lactate_patient_share
    times = {"lactate": lactate if ordered else lactate[:0]}
    for lab, share in schedule.panel_share.items():
        times[lab] = panel[rng.random(panel.size) < share]
    return times


def _draws(
    parameters: CohortParameters, stay: Stay, grid: np.ndarray, latents: np.ndarray, scores: np.ndarray,
    null: str | None, rng: np.random.Generator,
) -> pd.DataFrame:  # fmt: skip
    """Measure each lab at its draw times: noise, then the rounding of the laboratory."""
    times = draw_times(parameters, stay, rng)
    parts = []
    for row, (lab, process) in enumerate(parameters.labs.items()):
        at = times[lab]
        fresh, noise = rng.standard_normal((2, at.size))
        score = fresh if null == "b" else np.interp(at, grid, scores[row])
        signal = np.sqrt(1 - process.noise_share) * score
        measured = to_value(process, signal + np.sqrt(process.noise_share) * noise)
        parts.append(
            pd.DataFrame(
                {
                    "lab": lab,
                    "sampled_at_us": at,
                    "score": score,
                    "value": to_value(process, signal),
                    "measured": np.maximum(np.round(measured, process.decimals), 10.0**-process.decimals),
                    "latent": np.interp(at, grid, latents[row]),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def latent_grid(parameters: CohortParameters, stay: Stay) -> np.ndarray:
    """Give the times of the latent grid, admission to past discharge, (g,) int64."""
    step_us = int(parameters.latent_step_minutes * MINUTE_US)
    return np.arange(stay.admitted_us, stay.discharged_us + 2 * step_us, step_us)


def plan_course(
    parameters: CohortParameters, stay: Stay, *, coupling: float, null: str | None, seed: int, patient: int
) -> Course:
    """Draw everything that happens in one patient.

    Parameters
    ----------
    coupling : 0..1; the latents and offsets are the same at every coupling, so cohorts are paired
    null : None, "a" (labs independent of the latents) or "b" (draws independent in time, too)
    """
    grid = latent_grid(parameters, stay)
    rng = random_stream(seed, patient, "latents")
    own_latents = own_processes(parameters, grid.size, rng)
    latents = np.concatenate([own_latents, shared_processes(parameters, grid.size, rng)])
    tie = 0.0 if null is not None else coupling
    other = own_processes(parameters, grid.size, random_stream(seed, patient, "own"))
    scores = tie * own_latents + np.sqrt(1 - tie**2) * other
    offsets = draw_offsets(parameters, null, random_stream(seed, patient, "offsets"))
    draws = _draws(parameters, stay, grid, latents, scores, null, random_stream(seed, patient, "draws"))
    if null == "b":
        scores = np.full_like(scores, np.nan)
    return Course(grid_us=grid, latents=latents, offsets=offsets, lab_scores=scores, draws=draws)


def draw_offsets(parameters: CohortParameters, null: str | None, rng: np.random.Generator) -> np.ndarray:
    """Draw the patient's own morphology offsets, (n_morphology,); none in null "b"."""
    spreads = np.array([m.offset_sd for m in parameters.morphology.values()])
    return rng.standard_normal(spreads.size) * spreads * (null != "b")


def morphology_at(parameters: CohortParameters, course: Course, at_us: np.ndarray) -> dict[str, np.ndarray]:
    """Give each morphology parameter at the times `at_us`, (n,) float64, in its own unit."""
    rows = [np.interp(at_us, course.grid_us, latent) for latent in course.latents]
    latents = dict(zip(parameters.latent_names, rows, strict=True))
    values = {}
    for (name, spec), offset in zip(parameters.morphology.items(), course.offsets, strict=True):
        driver = offset + sum(weight * latents[latent] for latent, weight in spec.loadings.items())
        share = 0.5 * (1 + np.tanh(0.5 * driver))
        if spec.geometric:
            values[name] = spec.low * (spec.high / spec.low) ** share
        else:
            values[name] = spec.low + (spec.high - spec.low) * share
    return values
