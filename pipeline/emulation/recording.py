"""What a recording would show, without its waveform: which windows are usable, their noise and their amplitude.

Segments, gaps and defects are drawn from the cohort's own law; they are not those of the waveforms that
``write_cohort`` would write of the same patient, which come from other draws of the same law.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int

from pipeline.foundation.schema import QUALITY_COLUMNS, WINDOW_SECONDS, WINDOW_US
from pipeline.sources.synthetic.defects import KINDS, plan_defects
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.physiology import Stay
from pipeline.sources.synthetic.ppg import SAMPLING_RATE_HZ, amplitude_levels
from pipeline.sources.synthetic.wfdb_files import Segment, plan_segments

FLAT_SHARE_LIMIT = 0.9
"""Share of a window's seconds; as ``WindowConfig``'s default."""
_SAMPLE_US = 1_000_000 // SAMPLING_RATE_HZ
_PLETH = "PLETH"


@dataclass(frozen=True, kw_only=True)
class EmulatedRecording:
    """The usable windows of one record, in time order.

    Attributes
    ----------
    start_us : int64 microseconds of the wall clock, multiples of 30 s
    step : of each window, counted from the record's first grid cell
    level : pulse amplitude before breathing modulates it, share of full scale
    noise : SD of the signal's noise, share of full scale, one for the record
    """

    start_us: Int[np.ndarray, " n"]
    step: Int[np.ndarray, " n"]
    level: Float32[np.ndarray, " n"]
    noise: float


def emulated_recordings(
    parameters: CohortParameters, stay: Stay, rng: np.random.Generator, exclusions: Counter[str]
) -> Iterator[EmulatedRecording]:
    """Draw the usable windows of every record of a stay; those that are left out are counted by reason."""
    for begin_us, end_us in stay.recordings:
        yield _recording(parameters, begin_us, end_us, rng, exclusions)


def _recording(
    parameters: CohortParameters,
    begin_us: int,
    end_us: int,
    rng: np.random.Generator,
    exclusions: Counter[str],
) -> EmulatedRecording:
    recording = parameters.recording
    samples = (end_us - begin_us) // 1_000_000 * SAMPLING_RATE_HZ
    segments = tuple(plan_segments(recording, samples, rng))
    defects = plan_defects(recording, samples, rng)
    first_us = -(-begin_us // WINDOW_US) * WINDOW_US
    cells = max(0, (end_us - first_us) // WINDOW_US)
    edges = (first_us - begin_us) // _SAMPLE_US + np.arange(cells + 1) * (WINDOW_SECONDS * SAMPLING_RATE_HZ)
    covered = _seconds_within(_pleth_runs(segments), edges)
    of_kind = {kind: defects.kind == number for number, kind in enumerate(KINDS)}
    lost = _seconds_within(_spans(defects.first, defects.stop, of_kind["missing"]), edges)
    flat = _seconds_within(_spans(defects.first, defects.stop, of_kind["flat"]), edges)
    keep = np.ones(cells, bool)
    for reason, bad in (
        ("window: partial, at a gap or an end", covered < WINDOW_SECONDS - 0.5 / SAMPLING_RATE_HZ),
        ("window: missing samples", lost > 0),
        ("window: flat", flat >= FLAT_SHARE_LIMIT * WINDOW_SECONDS),
    ):
        touched = keep & bad & (covered > 0)  # what no sample touches is a gap and no window
        exclusions[reason] += int(touched.sum())
        keep &= ~bad
    level = amplitude_levels(recording, cells, rng)
    noise = float(rng.uniform(recording.noise_low, recording.noise_high))
    step = np.flatnonzero(keep)
    return EmulatedRecording(
        start_us=first_us + step * WINDOW_US, step=step, level=level[keep].astype(np.float32), noise=noise
    )


def emulated_quality(
    recording: EmulatedRecording,
    heart_rate: np.ndarray,
    concentration: np.ndarray,
) -> Float32[np.ndarray, "n q"]:
    """Return ``schema.QUALITY_COLUMNS`` of usable windows: no sample missing, none at the rails.

    Parameters
    ----------
    heart_rate : (n,) a minute
    concentration : (n,) share of the pulse band's power near its peak, 0..1
    """
    columns: dict[str, np.ndarray] = dict.fromkeys(QUALITY_COLUMNS, np.zeros(len(recording.start_us)))
    columns["perfusion"] = recording.level
    columns["spectral_peak_hz"] = np.round(heart_rate / 60 * WINDOW_SECONDS) / WINDOW_SECONDS
    columns["spectral_concentration"] = concentration
    return np.stack([np.asarray(columns[name], np.float32) for name in QUALITY_COLUMNS], axis=1)


def _pleth_runs(segments: tuple[Segment, ...]) -> np.ndarray:
    """Return (n, 2): first sample and end of each segment that holds the pulse wave."""
    ends = np.cumsum([segment.samples for segment in segments])
    starts = ends - [segment.samples for segment in segments]
    has = np.array([_PLETH in segment.channels for segment in segments], bool)
    return np.stack([starts[has], ends[has]], axis=1)


def _spans(first: np.ndarray, stop: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the chosen spans joined where they overlap, (n, 2) in order."""
    order = np.argsort(first[chosen], kind="stable")
    begins, ends = first[chosen][order], np.maximum.accumulate(stop[chosen][order])
    new = np.append(True, begins[1:] > ends[:-1]) if len(begins) else np.zeros(0, bool)
    last = np.append(np.flatnonzero(new)[1:] - 1, len(begins) - 1) if len(begins) else np.zeros(0, int)
    return np.stack([begins[new], ends[last]], axis=1)


def _seconds_within(spans: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return how many seconds of each cell between `edges` lie in `spans`, which are in order and apart."""
    if not len(spans):
        return np.zeros(len(edges) - 1)
    # Seconds covered up to any time, a line between the spans' borders.
    lengths = spans[:, 1] - spans[:, 0]
    done = np.cumsum(lengths)
    knots = spans.reshape(-1)
    values = np.stack([done - lengths, done], axis=1).reshape(-1)
    return np.diff(np.interp(edges, knots, values, left=0.0, right=float(done[-1]))) / SAMPLING_RATE_HZ
