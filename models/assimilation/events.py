"""Draws and readings of many patients as one table of steps, each row in order of time, all rows in parallel."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int8
from torch import Tensor

from models.errors import BadAssimilationInput

PADDING, READING, DRAW = -1, 0, 1
"""Kinds of events. At one time readings come before draws: a draw is estimated from the window that ends with it."""
HOUR_US = 3_600_000_000


@dataclass(frozen=True, kw_only=True)
class Row:
    """The events of one patient and lab, in any order.

    Attributes
    ----------
    time_us : (events,) when a draw was taken, or the last window of a reading ended; int64 microseconds
    kind : (events,) READING or DRAW
    value : (events,) on the filter's scale; NaN: missing, which changes nothing
    noise : (events,) the event's noise variance over that of its kind: 1 for the main assay and a whole reading
    number : (events,) of a reading, by which ``Events.with_readings`` finds it; -1: a draw
    lab : whose numbers it goes by
    """

    time_us: Int[np.ndarray, " events"]
    kind: Int[np.ndarray, " events"]
    value: Float[np.ndarray, " events"]
    noise: Float[np.ndarray, " events"]
    number: Int[np.ndarray, " events"]
    lab: int = 0

    def __post_init__(self) -> None:
        if not np.isin(self.kind, (READING, DRAW)).all():
            raise BadAssimilationInput(f"An event is neither READING ({READING}) nor DRAW ({DRAW}).")
        if np.isinf(self.value).any():
            raise BadAssimilationInput(
                "A draw or reading is infinite; give a number, or NaN where it is missing."
            )
        if not (np.isfinite(self.noise) & (self.noise >= 0)).all():
            raise BadAssimilationInput(
                "The noise of an event is NaN, infinite or negative; 1 is the main assay's."
            )

    @classmethod
    def of(
        cls,
        draws: tuple[Int[np.ndarray, " draws"], Float[np.ndarray, " draws"]],
        readings: tuple[Int[np.ndarray, " readings"], Float[np.ndarray, " readings"]],
        lab: int = 0,
        draw_noise: Float[np.ndarray, " draws"] | float = 1.0,
        reading_noise: Float[np.ndarray, " readings"] | float = 1.0,
    ) -> "Row":
        """Return the row of draws and readings, each given as (times, values)."""
        counts = len(draws[0]), len(readings[0])
        noise = [
            np.broadcast_to(np.asarray(x, float), n)
            for x, n in zip((draw_noise, reading_noise), counts, strict=True)
        ]
        return cls(
            time_us=np.concatenate([draws[0], readings[0]]).astype(np.int64),
            kind=np.repeat(np.array([DRAW, READING], np.int64), counts),
            value=np.concatenate([draws[1], readings[1]]).astype(float),
            noise=np.concatenate(noise),
            number=np.concatenate([np.full(counts[0], -1, np.int64), np.arange(counts[1], dtype=np.int64)]),
            lab=lab,
        )

    def ordered(self) -> "Row":
        """Return the events in order of time, readings first; equal ones keep their order."""
        order = np.lexsort((self.kind, self.time_us))
        return Row(
            time_us=self.time_us[order], kind=self.kind[order], value=self.value[order], noise=self.noise[order],
            number=self.number[order], lab=self.lab,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Events:
    """Steps of many rows, the same number for each; shorter rows end in padding, which changes nothing.

    Attributes
    ----------
    elapsed_hours : (steps, rows) since the step that this one follows; 0 at the first
    kind : (steps, rows) PADDING, READING or DRAW
    value : (steps, rows) on the filter's scale, 0 where there is none; may carry a graph
    seen : (steps, rows) whether there is one
    noise : (steps, rows) see ``Row``
    number : (steps, rows) of a reading among its row's; -1: no reading
    lab : (rows,) whose numbers each row goes by
    follows : (steps, rows) number of the step that each one follows, -1 for the beginning; None: the one before.
        Steps that follow an earlier one replay what a late result changes.
    """

    elapsed_hours: Float[Tensor, "steps rows"]
    kind: Int8[Tensor, "steps rows"]
    value: Float[Tensor, "steps rows"]
    seen: Bool[Tensor, "steps rows"]
    noise: Float[Tensor, "steps rows"]
    number: Int[Tensor, "steps rows"]
    lab: Int[Tensor, " rows"]
    follows: Int[Tensor, "steps rows"] | None = None

    @property
    def drawn(self) -> Bool[Tensor, "steps rows"]:
        """Steps at which a draw was seen."""
        return (self.kind == DRAW) & self.seen

    @property
    def read(self) -> Bool[Tensor, "steps rows"]:
        """Steps at which a reading was seen."""
        return (self.kind == READING) & self.seen

    def with_readings(self, reading: Float[Tensor, "rows most"]) -> "Events":
        """Return the same steps with other readings, such as a network's; gradients reach each by its number.

        Parameters
        ----------
        reading : of each row, in the order of their numbers; those that were missing, and padding, are ignored
        """
        if not reading.shape[1]:
            return self
        found = reading.T.gather(0, self.number.clamp(min=0))
        return replace(self, value=torch.where(self.read, found, self.value))

    def take(self, rows: Int[Tensor, " chosen"]) -> "Events":
        """Return some of the rows, in the order asked for, cut to the longest of them."""
        kind = self.kind[:, rows]
        length = int((kind != PADDING).sum(0).max()) if kind.numel() else 0
        kept = slice(0, length)
        return Events(
            elapsed_hours=self.elapsed_hours[kept, rows],
            kind=kind[kept],
            value=self.value[kept, rows],
            seen=self.seen[kept, rows],
            noise=self.noise[kept, rows],
            number=self.number[kept, rows],
            lab=self.lab[rows],
            follows=None if self.follows is None else self.follows[kept, rows],
        )


def pack_rows(rows: Sequence[Row]) -> Events:
    """Order each row's events in time and lay the rows side by side; no row, or rows without events, give no step."""
    ordered = [row.ordered() for row in rows]
    shape = max((len(row.kind) for row in ordered), default=0), len(ordered)
    kind, value = np.full(shape, PADDING, np.int8), np.zeros(shape)
    elapsed, noise, number = np.zeros(shape), np.ones(shape), np.full(shape, -1, np.int64)
    for i, row in enumerate(ordered):
        n = len(row.kind)
        kind[:n, i], value[:n, i], noise[:n, i] = row.kind, row.value, row.noise
        number[:n, i] = row.number
        elapsed[1:n, i] = np.diff(row.time_us) / HOUR_US
    seen = np.isfinite(value) & (kind != PADDING)
    return Events(
        elapsed_hours=torch.from_numpy(elapsed),
        kind=torch.from_numpy(kind),
        value=torch.from_numpy(np.where(seen, value, 0.0)),
        seen=torch.from_numpy(seen),
        noise=torch.from_numpy(noise),
        number=torch.from_numpy(number),
        lab=torch.tensor([row.lab for row in ordered], dtype=torch.int64),
    )
