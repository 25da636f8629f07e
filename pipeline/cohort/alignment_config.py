"""How labs and windows are brought together: our default, the paper's way, and the authors' code's way."""

from dataclasses import dataclass, field
from typing import Literal

from pipeline.foundation.schema import PROTOCOLS
from pipeline.labs.history import HistoryConfig


@dataclass(frozen=True, kw_only=True)
class AlignmentConfig:
    """Pieces, targets and scored examples; docs/evaluation.md."""

    protocols: tuple[str, ...] = PROTOCOLS
    """Which pieces to cut: ``start``, ``anchored`` or both."""
    start_history_windows: int = 60
    """Steps of 30 s at the start of a sequence that are waveform history; t0 of ``start`` is their end."""
    recent_window_minutes: float = 60.0
    """A scored draw needs a usable window that ends within this many minutes before it."""
    history: HistoryConfig = field(default_factory=HistoryConfig)
    """What the model knows of earlier labs."""
    steps: Literal["grid", "concatenated"] = "grid"
    """``grid``: wall clock, unusable windows masked; ``concatenated``: usable ones end to end (authors)."""
    draw_window: Literal["ends_before", "starts_within_60s"] = "ends_before"
    """Window of a draw: the last that ends at or before it, or (authors) the last that starts at most 60 s
    before it, which may end after the draw."""
    interpolation: Literal["time", "step"] = "time"
    """Training targets between draws are linear in time, or in the step index (authors)."""
    interpolated_weight: float = 0.2
    """Weight of an interpolated target; a measured one weighs 1."""
    interpolation_cap_hours: float | None = 24.0
    """Draws further apart than this are not joined; None: no limit."""

    def __post_init__(self):
        if not self.protocols or set(self.protocols) - set(PROTOCOLS):
            raise ValueError(f"protocols must be some of {PROTOCOLS}, not {self.protocols}")
        if self.start_history_windows < 0:
            raise ValueError(f"start_history_windows must not be negative, not {self.start_history_windows}")
        if self.recent_window_minutes <= 0:
            raise ValueError(f"recent_window_minutes must be positive, not {self.recent_window_minutes}")
        if self.steps not in ("grid", "concatenated"):
            raise ValueError(f"steps must be grid or concatenated, not {self.steps!r}")
        if self.draw_window not in ("ends_before", "starts_within_60s"):
            raise ValueError(
                f"draw_window must be ends_before or starts_within_60s, not {self.draw_window!r}"
            )
        if self.interpolation not in ("time", "step"):
            raise ValueError(f"interpolation must be time or step, not {self.interpolation!r}")
        if not 0 <= self.interpolated_weight <= 1:
            raise ValueError(f"interpolated_weight must lie in 0..1, not {self.interpolated_weight}")
        if self.interpolation_cap_hours is not None and self.interpolation_cap_hours <= 0:
            raise ValueError(f"interpolation_cap_hours must be positive, not {self.interpolation_cap_hours}")


def paper_alignment() -> AlignmentConfig:
    """Return the paper's way: from the start alone, mean and presence, every interpolated step counts."""
    return AlignmentConfig(
        protocols=("start",),
        history=HistoryConfig(features="paper"),
        interpolated_weight=1.0,
        interpolation_cap_hours=None,
    )


def authors_alignment() -> AlignmentConfig:
    """Return the way of the authors' code, which flatters: windows may pass their draw, gaps vanish."""
    return AlignmentConfig(
        protocols=("start",),
        history=HistoryConfig(features="authors"),
        steps="concatenated",
        draw_window="starts_within_60s",
        interpolation="step",
        interpolated_weight=1.0,
        interpolation_cap_hours=None,
    )
