"""What a trained method is made of, counted; ``counting`` counts."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Makeup:
    """Numbers by part, those that are exactly zero left out of lines: they say nothing.

    Attributes
    ----------
    method : one of ``schema.TRAINED_METHODS``
    numbers : part (``network, lines, reading, history, filters``) -> how many numbers; parts that are absent are not
        named
    labs : estimated
    without_waveform : labs whose estimate no waveform enters, by the fit's own choice
    carried : lab -> share of the last result in its estimates, when young and when old, where there is any
    """

    method: str
    numbers: dict[str, int]
    labs: tuple[str, ...]
    without_waveform: tuple[str, ...]
    carried: dict[str, tuple[float, float]] = field(default_factory=dict)
