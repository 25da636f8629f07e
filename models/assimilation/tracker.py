"""The filter at a bedside: one lab of one patient, fed with readings and results as they come, in whatever order.

A result changes the state of its draw, and shows from when it is available: states since the oldest result that may
still come are kept, and what follows a late one is done again. A step that comes in order costs one prediction and
one update, whatever came before.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch

from models.assimilation.config import AssimilationConfig
from models.assimilation.events import DRAW, HOUR_US, READING
from models.assimilation.known import Result, apply, standing
from models.assimilation.lab_filter import LabFilters
from models.assimilation.parameters import FilterParameters
from models.assimilation.replay import Event, Replay
from models.assimilation.state import FilterState
from models.errors import BadAssimilationInput


class Arrival(Enum):
    """What became of a reading or result."""

    TAKEN = "taken in"
    WAITING = "waits until it is available"
    MISSING = "missing value: nothing changes"
    TOO_LATE = "older than the states that are kept: nothing changes"


@dataclass(frozen=True)
class Estimate:
    """The lab at a time, on the filter's scale.

    Attributes
    ----------
    mean, variance : of the lab itself
    draw_variance : of a draw of it by the main assay
    last, last_hours : the latest result that stands, however old, and the hours since its draw; NaN without one. Of
        a lab with a share of it (``carried.CarriedShares``) the estimate is joined in clinical units. One that is
        corrected or withdrawn once its state is not kept stays.
    """

    mean: float
    variance: float
    draw_variance: float
    last: float = float("nan")
    last_hours: float = float("nan")


class LabTracker:
    """One lab of one patient.

    Parameters
    ----------
    parameters : one row
    keep_hours : states are kept for so long before the last estimate's `known_us`; a reading, result, correction or
        withdrawal of an older draw changes nothing, is answered by ``Arrival.TOO_LATE`` and counted in ``n_too_late``
    """

    def __init__(
        self, parameters: FilterParameters, keep_hours: float = AssimilationConfig().keep_hours
    ) -> None:
        self._filter = LabFilters.of(parameters)
        self._keep_us = round(keep_hours * HOUR_US)
        self._replay: Replay[FilterState] = Replay(self._filter.start(), self._advance)
        self._versions: dict[tuple[int, int, int], list[Result]] = {}
        self._known_us: int | None = None
        self._oldest_us: int | None = None
        self._waiting: list[Result] = []
        self._stands: dict[tuple[int, int, int], Result] = {}
        self._last_older: Result | None = None  # of those whose states are not kept any more
        self.n_too_late = 0

    @property
    def n_kept(self) -> int:
        """Number of events whose states are kept."""
        return len(self._replay)

    @property
    def n_advances(self) -> int:
        """Number of predictions and updates so far."""
        return self._replay.n_advances

    def add_reading(self, end_us: int, value: float, noise: float = 1.0) -> Arrival:
        """Take in what the waveform says of the lab up to `end_us`; a second one of that time takes its place."""
        if np.isinf(value) or not 0 <= noise < np.inf:
            raise BadAssimilationInput(
                f"A reading is {value} with noise {noise}; both must be finite (NaN: missing)."
            )
        if np.isnan(value):
            return Arrival.MISSING
        if self._too_late(end_us):
            return Arrival.TOO_LATE
        self._replay.put(Event(time_us=end_us, kind=READING, assay=0, value=value, noise=noise))
        return Arrival.TAKEN

    def add_result(self, result: Result) -> Arrival:
        """Take in a version of a draw's result; it shows in estimates whose `known_us` it was available by."""
        if self._too_late(result.sampled_us):
            return Arrival.TOO_LATE
        versions = self._versions.setdefault(result.key, [])
        standing([*versions, result])  # refuses a contradiction before anything changes
        versions.append(result)
        if self._known_us is None or result.available_us > self._known_us:
            self._waiting.append(result)
            return Arrival.WAITING
        self._show(result.key)
        return Arrival.TAKEN

    def estimate(self, at_us: int, known_us: int | None = None) -> Estimate:
        """Estimate the lab at `at_us` from readings that end by then and results available by `known_us`.

        Parameters
        ----------
        at_us : time of the estimate
        known_us : by default `at_us`; for a draw's own estimate the moment before it, for protocol ``start`` at most
            t0. It never runs backwards: what was shown stays shown.

        Raises
        ------
        BadAssimilationInput
            `known_us` lies after `at_us`, or before an earlier estimate's.
        """
        known_us = at_us if known_us is None else known_us
        if known_us > at_us:
            raise BadAssimilationInput("A question about one time may not use results that came after it.")
        if self._known_us is not None and known_us < self._known_us:
            raise BadAssimilationInput(
                "An estimate asks for what was known before an earlier one did; ask in order of time, or start another "
                "tracker."
            )
        self._publish(known_us)
        if self._too_late(at_us, count=False):
            raise BadAssimilationInput(
                "An estimate asks for a time older than the states that are kept (keep_hours)."
            )
        state, when = self._replay.state(at_us)
        hours = 0.0 if when is None else (at_us - when) / HOUR_US
        mean, variance, draw_variance = self._filter.estimate(self._filter.predict(state, hours))
        last = self._stands[max(self._stands)] if self._stands else self._last_older
        carried = () if last is None else (last.value, (at_us - last.sampled_us) / HOUR_US)
        return Estimate(float(mean[0]), float(variance[0]), float(draw_variance[0]), *carried)

    def _publish(self, known_us: int) -> None:
        self._known_us = known_us
        due = [r for r in self._waiting if r.available_us <= known_us]
        if due:
            self._waiting = [r for r in self._waiting if r.available_us > known_us]
            for key in dict.fromkeys(result.key for result in due):
                if not self._too_late(key[0]):
                    self._show(key)
        oldest = known_us - self._keep_us
        self._oldest_us = oldest if self._oldest_us is None else max(oldest, self._oldest_us)
        self._replay.forget(self._oldest_us)
        for key in sorted(key for key in self._versions if key[0] < self._oldest_us):
            del self._versions[key]
            self._last_older = self._stands.pop(key, self._last_older)

    def _show(self, key: tuple[int, int, int]) -> None:
        """Let the version that stands now count."""
        now = [
            r for r in self._versions[key] if self._known_us is not None and r.available_us <= self._known_us
        ]
        *_, (_, _, result) = standing(now)
        apply(self._replay, key, result)
        self._stands.pop(key, None)
        if result is not None:
            self._stands[key] = result

    def _too_late(self, time_us: int, *, count: bool = True) -> bool:
        late = self._oldest_us is not None and time_us < self._oldest_us
        self.n_too_late += late and count
        return late

    def _advance(self, state: FilterState, when: int | None, event: Event) -> FilterState:
        hours = 0.0 if when is None else (event.time_us - when) / HOUR_US
        value = torch.tensor([event.value], dtype=torch.float64)
        noise = torch.tensor([event.noise], dtype=torch.float64)
        return self._filter.update(
            self._filter.predict(state, hours), value, draw=event.kind == DRAW, noise=noise
        )
