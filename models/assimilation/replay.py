"""Events in order of time with the state after each; one that comes late is put in its place, and the rest done again.

What a state is, is the caller's: numbers at the bedside (``tracker``), the number of a step when a table of events is
planned (``known``), so that both do the same.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

State = TypeVar("State")
Key = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One draw or reading.

    Attributes
    ----------
    time_us : when it was drawn, or its last window ended
    kind : events.READING or events.DRAW; readings come first at one time
    assay : two assays of one draw are two events, two values of one assay are versions of one
    value : on the filter's scale, not NaN
    noise : see ``events.Row``
    """

    time_us: int
    kind: int
    assay: int
    value: float
    noise: float

    @property
    def key(self) -> Key:
        """What tells it from others, in the order in which they are taken in."""
        return self.time_us, self.kind, self.assay


class Replay(Generic[State]):
    """The events of one row and the states after them, worked out when they are asked for and kept.

    Parameters
    ----------
    start : state before any event
    advance : (state, its time or None before any event, event) -> state after the event
    """

    def __init__(self, start: State, advance: Callable[[State, int | None, Event], State]) -> None:
        self._start, self._advance = start, advance
        self._start_us: int | None = None
        self._keys: list[Key] = []
        self._events: list[Event] = []
        self._states: list[State] = []  # of the first events; the others' are not worked out
        self.n_advances = 0

    def __len__(self) -> int:
        return len(self._keys)

    def put(self, event: Event) -> None:
        """Take in an event, in the place of one with its key; states from there on are worked out anew."""
        place = bisect_left(self._keys, event.key)
        if place < len(self._keys) and self._keys[place] == event.key:
            if self._events[place] == event:
                return
            self._events[place] = event
        else:
            self._keys.insert(place, event.key)
            self._events.insert(place, event)
        del self._states[place:]

    def drop(self, key: Key) -> None:
        """Forget an event, if it is there."""
        place = bisect_left(self._keys, key)
        if place < len(self._keys) and self._keys[place] == key:
            del self._keys[place], self._events[place], self._states[place:]

    def state(self, time_us: int) -> tuple[State, int | None]:
        """Return the state after all events up to a time, and when the last of them was (None: there is none)."""
        stop = bisect_right(self._keys, (time_us, 1 << 62, 0))
        for place in range(len(self._states), stop):
            before, when = self._at(place)
            self._states.append(self._advance(before, when, self._events[place]))
            self.n_advances += 1
        return self._at(stop)

    def forget(self, before_us: int) -> None:
        """Keep no event from before a time; the state after the last of them is the new beginning."""
        stop = bisect_left(self._keys, (before_us, -1, 0))
        if stop:
            self._start, self._start_us = self.state(before_us - 1)
            del self._keys[:stop], self._events[:stop], self._states[:stop]

    def _at(self, place: int) -> tuple[State, int | None]:
        if not place:
            return self._start, self._start_us
        return self._states[place - 1], self._keys[place - 1][0]
