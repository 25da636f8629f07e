"""Defects of real recordings, laid over a pulse wave: motion, flat lines, clipping, missing samples."""

from dataclasses import dataclass

import numpy as np

from pipeline.sources.synthetic.parameters import Recording
from pipeline.sources.synthetic.ppg import SAMPLING_RATE_HZ

KINDS = ("motion", "flat", "clipping", "missing")
_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, kw_only=True)
class Defects:
    """The defects of one record, in the order in which they are laid on.

    Attributes
    ----------
    kind : (n,) int64, index into ``KINDS``
    first, stop : (n,) int64, samples from the record's start
    shape : (n, 6) float64 in 0..1, whatever the kind needs: amplitudes, frequencies, levels
    """

    kind: np.ndarray
    first: np.ndarray
    stop: np.ndarray
    shape: np.ndarray


def plan_defects(recording: Recording, samples: int, rng: np.random.Generator) -> Defects:
    """Draw the defects of a record of `samples` samples at 125 Hz."""
    hours = samples / SAMPLING_RATE_HZ / _SECONDS_PER_HOUR
    counts = [int(rng.poisson(getattr(recording, f"{kind}_per_hour") * hours)) for kind in KINDS]
    means = np.repeat([getattr(recording, f"{kind}_seconds") for kind in KINDS], counts)
    kind = np.repeat(np.arange(len(KINDS)), counts)
    first = (rng.random(kind.size) * samples).astype(np.int64)
    length = (rng.standard_exponential(kind.size) * means * SAMPLING_RATE_HZ).astype(np.int64) + 1
    stop = np.minimum(first + length, samples)
    return Defects(kind=kind, first=first, stop=stop, shape=rng.random((kind.size, 6)))


def _spans(defects: Defects, first: int, stop: int, *, missing: bool) -> list[tuple[int, int, int]]:
    """List (defect, from, to), relative to `first`, of what is missing in `first`..`stop`, or of all else."""
    hit = (defects.first < stop) & (defects.stop > first)
    hit &= (defects.kind == KINDS.index("missing")) == missing
    return [
        (int(i), max(int(defects.first[i]) - first, 0), min(int(defects.stop[i]), stop) - first)
        for i in np.flatnonzero(hit)
    ]


def apply_defects(defects: Defects, wave: np.ndarray, first: int, scale: float) -> None:
    """Distort `wave` in place; it starts at sample `first` and holds shares of full scale times `scale`."""
    for i, begin, end in _spans(defects, first, first + wave.size, missing=False):
        part, shape = wave[begin:end], defects.shape[i]
        match KINDS[defects.kind[i]]:
            case "motion":
                seconds = np.arange(first + begin, first + end) / SAMPLING_RATE_HZ
                envelope = np.sin(np.pi * (seconds - seconds[0] + 0.1) / (seconds[-1] - seconds[0] + 0.2))
                sway = np.sin(2 * np.pi * (0.3 * seconds * (1 + 4 * shape[0]) + shape[1]))
                shake = np.sin(2 * np.pi * (1.0 * seconds * (1 + 4 * shape[2]) + shape[3]))
                part += (scale * (0.1 + 0.4 * shape[4]) * envelope * (sway + shape[5] * shake)).astype(
                    np.float32
                )
            case "flat":
                part[:] = np.float32(scale * (0.1 + 0.8 * shape[0]))
            case _:  # clipping: gain too high
                part -= np.float32(0.5 * scale)
                part *= np.float32(1.5 + 2.5 * shape[0])
                part += np.float32(0.5 * scale)


def missing_spans(defects: Defects, first: int, stop: int) -> list[slice]:
    """List the runs of missing samples within `first`..`stop`, relative to `first`."""
    return [slice(begin, end) for _, begin, end in _spans(defects, first, stop, missing=True)]
