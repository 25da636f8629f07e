"""When an estimate for a new patient is given, and what state it is in."""

from dataclasses import dataclass, field

from pipeline.cohort.sequences import SequenceConfig
from pipeline.foundation.schema import HOUR_US, PROTOCOLS, WINDOW_US

OK, WARMING_UP, NO_SIGNAL, STALE = "ok", "warming_up", "no_signal", "stale"
NO_HISTORY, HISTORY_ONLY = "no_history", "history_only"
"""What a row's estimate is worth; where several of these hold, the first does:

``warming_up``
    Before the first t0, the end of the first 30 minutes of a sequence; no estimate.
``no_signal``
    No usable window ended within `no_signal_minutes`, or none since the latest restart; no estimate.
``no_history``
    The estimate knows no earlier result of the lab (under protocol ``start``: none at t0): it rests on the training
    patients and, where the method reads it, the waveform. It has no interval.
``stale``
    The estimate rests on something old: the last result of the lab that it knows is older than `stale_lab_hours`, or
    the last usable window, whose estimate it is, ended more than `stale_signal_minutes` ago.
``history_only``
    The method's estimate of this lab does not read the waveform: it is made of earlier results alone.
``ok``
    The rest."""
STATES = (WARMING_UP, NO_SIGNAL, NO_HISTORY, STALE, HISTORY_ONLY, OK)
"""All of them, in that order."""


@dataclass(frozen=True, kw_only=True)
class PredictionConfig:
    """When an estimate is given, and when it counts as stale. Source: our decision."""

    no_signal_minutes: float = 60.0
    """Longest time since a usable window for which its estimate is still given: as in the scored set."""
    stale_signal_minutes: float = 5.0
    """Time since a usable window from which an estimate is stale: ten windows."""
    stale_lab_hours: float = 24.0
    """Age of a lab's last result from which its estimate is stale: the longest gap that training joins."""
    silence_hours: float = 2.0
    """Rows go on for so long without a usable window, in gaps and at the end, then stop until one comes."""
    sequences: SequenceConfig = field(default_factory=SequenceConfig)
    """Where sequences begin and end."""
    protocol: str | None = None
    """Estimate as ``start`` (one piece from t0, no later result) or ``anchored`` (afresh at every available result);
    None: ``anchored`` where the checkpoint learnt that kind of pieces, else ``start``."""
    device: str = "auto"
    """"cpu", "cuda", ... or "auto"."""

    def __post_init__(self) -> None:
        for name in ("no_signal_minutes", "stale_signal_minutes", "stale_lab_hours", "silence_hours"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)} must be positive")
        if self.protocol not in (None, *PROTOCOLS):
            raise ValueError(f"protocol = {self.protocol!r} must be one of {PROTOCOLS}, or None")
        if self.no_signal_minutes > 60 * self.silence_hours:
            raise ValueError(
                f"silence_hours = {self.silence_hours} must not be shorter than no_signal_minutes = "
                f"{self.no_signal_minutes}"
            )

    @property
    def silent_steps(self) -> int:
        """Steps for which rows go on without a usable window."""
        return int(self.silence_hours * HOUR_US // WINDOW_US)
