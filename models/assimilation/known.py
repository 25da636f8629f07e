"""What was known at a time: results with their versions, questions about them, and both as a table of steps.

A question asks for the lab at one time from what was known at another. Results that came late make the steps between
their draw and their arrival come again, as a branch that later steps go on from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.assimilation.events import DRAW, HOUR_US, READING, Events, Row, pack_rows
from models.assimilation.parameters import FilterParameters
from models.assimilation.replay import Event, Replay
from models.assimilation.scan import Filtered, lab_moments
from models.assimilation.state import decay
from models.errors import BadAssimilationInput


@dataclass(frozen=True, kw_only=True)
class Result:
    """One version of one draw's result.

    Attributes
    ----------
    sampled_us, available_us : when it was drawn, and from when on this version was known
    value : on the filter's scale; NaN: withdrawn
    noise : noise variance of its assay over the main one's
    assay : number of the assay; two assays of one draw are two results, two values of one are versions
    """

    sampled_us: int
    available_us: int
    value: float
    noise: float = 1.0
    assay: int = 0

    def __post_init__(self) -> None:
        if self.available_us < self.sampled_us:
            raise BadAssimilationInput(
                f"A result was available {(self.sampled_us - self.available_us) / HOUR_US:.2f} h before its draw; it "
                "cannot be known before. Correct the times of the lab table."
            )
        if np.isinf(self.value) or not 0 <= self.noise < np.inf:
            raise BadAssimilationInput(
                f"A result has the value {self.value} and the noise {self.noise}; the value must be finite (NaN: "
                "withdrawn), the noise finite and not negative."
            )

    @property
    def key(self) -> tuple[int, int, int]:
        """What its versions have in common."""
        return self.sampled_us, DRAW, self.assay


@dataclass(frozen=True, kw_only=True)
class KnownRow:
    """One patient and lab: versions of results and the waveform's readings, both in any order.

    Attributes
    ----------
    results : see ``Result``
    reading_end_us : (readings,) end of each reading's last window, when it is known too
    reading : (readings,) on the filter's scale; NaN: missing
    lab : whose numbers it goes by
    reading_noise : (readings,) noise variance over that of a whole reading; None: all are whole
    """

    results: Sequence[Result]
    reading_end_us: Int[np.ndarray, " readings"]
    reading: Float[np.ndarray, " readings"]
    lab: int = 0
    reading_noise: Float[np.ndarray, " readings"] | None = None

    def __post_init__(self) -> None:
        if np.isinf(self.reading).any():
            raise BadAssimilationInput("A reading is infinite; give a number, or NaN where it is missing.")
        if len(np.unique(self.reading_end_us)) < len(self.reading_end_us):
            raise BadAssimilationInput(
                "Two readings of one lab end at the same time; give one, or their mean."
            )


@dataclass(frozen=True, kw_only=True)
class Query:
    """Questions to one row.

    Attributes
    ----------
    at_us : (queries,) the time whose lab is asked for; readings that end by then count
    known_us : (queries,) results available by then count, and later ones do not
    """

    at_us: Int[np.ndarray, " queries"]
    known_us: Int[np.ndarray, " queries"]

    def __post_init__(self) -> None:
        if bool((self.known_us > self.at_us).any()):
            raise BadAssimilationInput("A question about one time may not use results that came after it.")

    @classmethod
    def anchored(cls, at_us: Int[np.ndarray, " queries"]) -> "Query":
        """Ask with everything that was available."""
        return cls(at_us=at_us, known_us=at_us)

    @classmethod
    def start(cls, at_us: Int[np.ndarray, " queries"], t0_us: int) -> "Query":
        """Ask with the results available by t0 alone, and all readings."""
        return cls(at_us=at_us, known_us=np.minimum(at_us, t0_us))

    @classmethod
    def draws(cls, sampled_us: Int[np.ndarray, " queries"], t0_us: int | None = None) -> "Query":
        """Ask for draws: from results available strictly before them, as the protocols say, and by t0 if given."""
        before = sampled_us - 1
        return cls(at_us=sampled_us, known_us=before if t0_us is None else np.minimum(before, t0_us))


@dataclass(frozen=True, kw_only=True)
class Queried:
    """Steps that answer questions, and where each answer is found.

    Attributes
    ----------
    events : steps of all rows
    step : (queries,) the step after which the question is put; -1: before any
    row : (queries,) its row
    elapsed_hours : (queries,) since that step; questions of one row stand together, in their order
    """

    events: Events
    step: Int[Tensor, " queries"]
    row: Int[Tensor, " queries"]
    elapsed_hours: Float[Tensor, " queries"]

    def answers(
        self, parameters: FilterParameters, filtered: Filtered
    ) -> tuple[Float[Tensor, " queries"], Float[Tensor, " queries"]]:
        """Return mean and variance of the lab itself for each question; a draw has ``draw_noise`` more variance."""
        own = parameters.take(self.row)
        kept, _, gained, _ = decay(own, self.elapsed_hours)
        before = self.step < 0
        if not len(filtered.mean):
            mean, covariance = torch.zeros_like(own.prior), torch.diag_embed(own.prior.T).permute(1, 2, 0)
        else:
            place = self.step.clamp(min=0), self.row
            mean = torch.where(before, 0.0, filtered.after_mean.movedim(2, 1)[place].T)
            after = filtered.after_covariance.movedim(3, 1)[place].movedim(0, 2)
            covariance = torch.where(before, torch.diag_embed(own.prior.T).permute(1, 2, 0), after)
        decayed = torch.stack([kept, torch.ones_like(kept), torch.ones_like(kept), torch.ones_like(kept)])
        estimate, variance = lab_moments(own, mean * decayed, covariance * decayed[:, None] * decayed[None])
        return estimate, variance + gained


def standing(results: Sequence[Result]) -> list[tuple[int, tuple[int, int, int], Result | None]]:
    """Return what happens to a row's results, in order of time: (when, key, the version from then on; None: none).

    Raises
    ------
    BadAssimilationInput
        One draw has two different values that became available at the same moment.
    """
    changes: dict[tuple[int, tuple[int, int, int]], Result] = {}
    for result in results:
        other = changes.setdefault((result.available_us, result.key), result)
        if other != result and not (np.isnan(other.value) and np.isnan(result.value)):
            raise BadAssimilationInput(
                f"One draw has the values {other.value:g} and {result.value:g} from the same moment on. Merge results "
                "of a draw first, as pipeline.labs does, or number their assays."
            )
    return [(when, key, None if np.isnan(r.value) else r) for (when, key), r in sorted(changes.items())]


def queried(rows: Sequence[KnownRow], queries: Sequence[Query]) -> Queried:
    """Plan the steps that answer each row's questions exactly from what was known."""
    plans = [_Plan(row, query) for row, query in zip(rows, queries, strict=True)]
    events = _table(plans)
    return Queried(
        events=events,
        step=torch.tensor([step for plan in plans for step in plan.step], dtype=torch.int64),
        row=torch.tensor([i for i, plan in enumerate(plans) for _ in plan.step], dtype=torch.int64),
        elapsed_hours=torch.tensor([h for plan in plans for h in plan.elapsed], dtype=torch.float64),
    )


class _Plan:
    """One row's steps, each with the one that it follows, and its questions' places among them."""

    def __init__(self, row: KnownRow, query: Query) -> None:
        self.lab = row.lab
        self.events: list[Event] = []
        self.follows: list[int] = []
        self.hours: list[float] = []
        self.reading: list[int] = []
        self.step, self.elapsed = [0] * len(query.at_us), [0.0] * len(query.at_us)
        self._number: dict[int, int] = {}
        replay = Replay(-1, self._advance)
        noise = np.ones(len(row.reading)) if row.reading_noise is None else row.reading_noise
        readings = zip(row.reading_end_us.tolist(), row.reading.tolist(), noise.tolist(), strict=True)
        for number, (end_us, value, spread) in enumerate(readings):
            if not np.isnan(value):
                self._number[end_us] = number
                replay.put(Event(time_us=end_us, kind=READING, assay=0, value=value, noise=spread))
        changes = standing(row.results)
        done = 0
        for i in np.lexsort((query.at_us, query.known_us)).tolist():
            at_us, known_us = int(query.at_us[i]), int(query.known_us[i])
            while done < len(changes) and changes[done][0] <= known_us:
                _, key, result = changes[done]
                apply(replay, key, result)
                done += 1
            self.step[i], when = replay.state(at_us)
            self.elapsed[i] = 0.0 if when is None else (at_us - when) / HOUR_US

    def _advance(self, follows: int, when: int | None, event: Event) -> int:
        self.events.append(event)
        self.follows.append(follows)
        self.hours.append(0.0 if when is None else (event.time_us - when) / HOUR_US)
        self.reading.append(self._number[event.time_us] if event.kind == READING else -1)
        return len(self.events) - 1


def apply(replay: Replay, key: tuple[int, int, int], result: Result | None) -> None:
    """Take in, correct or withdraw a draw's result."""
    if result is None:
        replay.drop(key)
    else:
        sampled_us, kind, assay = key
        replay.put(Event(time_us=sampled_us, kind=kind, assay=assay, value=result.value, noise=result.noise))


def _padded(columns: Sequence[Sequence[int]], absent: int) -> Int[Tensor, "steps rows"]:
    table = np.full((max(map(len, columns), default=0), len(columns)), absent, np.int64)
    for i, column in enumerate(columns):
        table[: len(column), i] = column
    return torch.from_numpy(table)


def _table(plans: Sequence[_Plan]) -> Events:
    rows = [
        Row(
            # The plan's order is the order of steps: times are its numbers, and the true ones lie in `hours`.
            time_us=np.arange(len(plan.events), dtype=np.int64),
            kind=np.array([e.kind for e in plan.events], np.int64),
            value=np.array([e.value for e in plan.events], float),
            noise=np.array([e.noise for e in plan.events], float),
            number=np.array(plan.reading, np.int64),
            lab=plan.lab,
        )
        for plan in plans
    ]
    packed = pack_rows(rows)
    elapsed, follows = np.zeros(packed.kind.shape), _padded([plan.follows for plan in plans], -2)
    for i, plan in enumerate(plans):
        elapsed[: len(plan.hours), i] = plan.hours
    before = torch.arange(len(follows))[:, None] - 1
    follows = torch.where(follows == -2, before, follows)
    return Events(
        elapsed_hours=torch.from_numpy(elapsed), kind=packed.kind, value=packed.value, seen=packed.seen,
        noise=packed.noise, number=packed.number, lab=packed.lab,
        follows=None if bool((follows == before).all()) else follows,
    )  # fmt: skip
