"""How much of a lab's estimate is the last result: fitted beside a fitted filter, on training patients.

A share of the last result counts where with it the training patients' draws are missed by less, squared and in
clinical units: that of a young result where each draw knows all before it, that of an old one where it knows what was
known when the recording began.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from models.assimilation.carried import CarriedShare, CarriedShares
from models.assimilation.judged import judged_draws
from models.assimilation.parameters import FilterParameters
from pipeline.foundation.schema import HOUR_US
from pipeline.training.lab_events import LabEvents, Noise

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of the last result in an estimate; of equally good ones the least."""
WEIGHTS = np.linspace(0.0, 1.0, 21)
"""Of the last result over the centre."""
DECAY_PER_HOUR = np.append(0.0, 1 / np.geomspace(720.0, 1.0, 25))
"""Of that weight; 0: none."""
FITTED_NUMBERS = 4
"""Of a share: itself, weight, decay and centre."""
LEAST_PATIENTS = 15
"""With an earlier result: draws of one patient hang together, and of fewer patients chance would give a share."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Draws that have an earlier result: what they gave, what the filter expected, what the last result said.

    Attributes
    ----------
    truth, filtered, last : clinical units
    hours : since the draw of `last`
    n_patients : whose draws they are
    """

    truth: Float[np.ndarray, " draws"]
    filtered: Float[np.ndarray, " draws"]
    last: Float[np.ndarray, " draws"]
    hours: Float[np.ndarray, " draws"]
    n_patients: int

    @classmethod
    def of(
        cls, told: LabEvents, parameters: FilterParameters, noise: Noise, *, known_before: bool
    ) -> "Pairs":
        """Collect the draws beside a waveform; those without an earlier result are left out.

        Parameters
        ----------
        known_before : from results before the recording alone; else from all before the draw
        """
        mean = judged_draws(parameters, told.of(noise, known_before=known_before)).mean
        filtered, first = told.transform.median(mean), 0
        columns, n_patients = [], 0
        for patient in told.training:
            time_us, value = patient.draws(told.name)
            stop, before = first + len(value), np.arange(len(value)) - 1
            chosen = told.beside_waveform(patient)
            if known_before:
                earlier = told.earlier(patient)
                chosen &= ~earlier
                before = np.full(len(value), int(earlier.sum()) - 1)
            rows = np.flatnonzero(chosen & (before >= 0))
            last = before[rows]
            hours = (time_us[rows] - time_us[last]) / HOUR_US
            columns.append(np.stack([value[rows], filtered[first:stop][rows], value[last], hours]))
            n_patients += len(rows) > 0
            first = stop
        table = np.concatenate(columns, axis=1)
        return cls(truth=table[0], filtered=table[1], last=table[2], hours=table[3], n_patients=n_patients)

    def __len__(self) -> int:
        return len(self.truth)

    def error(self, estimate: Float[np.ndarray, " draws"]) -> float:
        """Return the squared error of some estimates."""
        return float(np.square(self.truth - estimate).sum())


def fit_carried(
    told: LabEvents, parameters: FilterParameters, noise: Noise, least_draws: int
) -> CarriedShares:
    """Return what the last result counts: where draws or their patients are few, nothing.

    A young result's share is that of draws which each know all before them, an old one's that of draws which know
    what was drawn before the recording began; both by the time of the draw, as the filter is fitted. They are kept
    where together, as they pass from one to the other, they err less than the filter on either kind.
    """
    running, begun = (Pairs.of(told, parameters, noise, known_before=begun) for begun in (False, True))
    shares = CarriedShares(young=_best(running, least_draws), old=_best(begun, least_draws))
    worse = any(
        pairs.error(shares.joined(pairs.filtered, pairs.last, pairs.hours)) > pairs.error(pairs.filtered)
        for pairs in (running, begun)
    )
    return CarriedShares() if worse else shares


def _best(pairs: Pairs, least_draws: int) -> CarriedShare:
    n = len(pairs)
    if n < least_draws or pairs.n_patients < LEAST_PATIENTS or not np.ptp(pairs.truth):
        return CarriedShare()
    tried = [_carried(pairs, share) for share in SHARES[1:]]
    errors = [pairs.error(own.joined(pairs.filtered, pairs.last, pairs.hours)) for own in tried]
    best = int(np.argmin(errors))
    # What is fitted to draws misses others by more: Akaike's final prediction error (1969).
    expected = errors[best] * (n + FITTED_NUMBERS) / (n - FITTED_NUMBERS)
    # A filter of logarithms gives medians, which squares alone would lift: a share has to do more than that.
    factor = float(pairs.truth @ pairs.filtered) / float(pairs.filtered @ pairs.filtered)
    return tried[best] if expected < pairs.error(factor * pairs.filtered) else CarriedShare()


def _carried(pairs: Pairs, share: float) -> CarriedShare:
    """Return how the last result is best drawn to a centre when it has a share."""
    low, high = float(pairs.truth.min()), float(pairs.truth.max())
    tried = []
    for decay in DECAY_PER_HOUR.tolist():
        kept = np.exp(-decay * pairs.hours)
        for weight in WEIGHTS.tolist():
            # estimate = (1 - share) filtered + share (own last + (1 - own) centre): a line in the centre
            own = weight * kept
            slope = share * (1 - own)
            rest = pairs.truth - (1 - share) * pairs.filtered - share * own * pairs.last
            spread = float(slope @ slope)
            centre = float(slope @ rest) / spread if spread > 0 else low
            centre = min(max(centre, low), high)  # between what training patients had
            tried.append((pairs.error(pairs.truth - rest + slope * centre), -weight, decay, centre))
    _, less, decay, centre = min(tried)  # of equally good ones the greatest weight
    return CarriedShare(share=share, weight=-less, decay_per_hour=decay, centre=centre)
