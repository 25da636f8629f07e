"""The eleven numbers of a lab's filter: their meaning, bounds, prior, and the axis on which they are fitted."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.errors import BadAssimilationInput

NAMES = (
    "drift_hours", "offset_drift_hours", "drift_variance", "level_variance", "offset_variance",
    "offset_drift_variance", "draw_noise", "reading_noise", "gain", "draw_mean", "reading_mean",
)  # fmt: skip
N_POSITIVE = 8
"""The first eight are positive, and fitted as logarithms."""

_BOUNDS = {
    "drift_hours": (0.5, 2000.0), "offset_drift_hours": (0.1, 2000.0),
    "drift_variance": (1e-4, 20.0), "level_variance": (1e-4, 20.0),
    "offset_variance": (1e-4, 20.0), "offset_drift_variance": (1e-4, 20.0),
    "draw_noise": (1e-4, 5.0), "reading_noise": (1e-4, 20.0),
    "gain": (0.0, 3.0), "draw_mean": (-5.0, 5.0), "reading_mean": (-5.0, 5.0),
}  # fmt: skip
_PRIOR = {
    "drift_hours": (12.0, 1.5), "offset_drift_hours": (4.0, 1.5),
    "drift_variance": (0.5, 1.5), "level_variance": (0.3, 1.5),
    "offset_variance": (0.1, 1.5), "offset_drift_variance": (0.1, 1.5),
    "draw_noise": (0.1, 1.5), "reading_noise": (0.1, 1.5),
    "gain": (0.7, 0.5), "draw_mean": (0.0, 1.0), "reading_mean": (0.0, 1.0),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FilterParameters:
    """Eleven numbers for each of n rows (labs, or patients times labs); times in hours, the rest on the filter's scale.

    The lab is y = draw_mean + a + c + noise of variance draw_noise; what the waveform says of it is
    w = reading_mean + gain (a + c) + b + d + noise of variance reading_noise.

    Attributes
    ----------
    drift_hours : time constant of a, an Ornstein-Uhlenbeck process; inf: it stays where it is
    offset_drift_hours : time constant of d, likewise
    drift_variance, level_variance : of a and of c, the patient's level
    offset_variance, offset_drift_variance : of b, the patient's own waveform offset, and of d
    draw_noise, reading_noise : variances; a draw's is that of the main assay
    gain : how far a reading follows the lab; 0: it says nothing of it
    draw_mean, reading_mean : of all patients

    Source: our decision; docs/assimilation.md.
    """

    drift_hours: Float[Tensor, " n"]
    offset_drift_hours: Float[Tensor, " n"]
    drift_variance: Float[Tensor, " n"]
    level_variance: Float[Tensor, " n"]
    offset_variance: Float[Tensor, " n"]
    offset_drift_variance: Float[Tensor, " n"]
    draw_noise: Float[Tensor, " n"]
    reading_noise: Float[Tensor, " n"]
    gain: Float[Tensor, " n"]
    draw_mean: Float[Tensor, " n"]
    reading_mean: Float[Tensor, " n"]

    @property
    def prior(self) -> Float[Tensor, "4 n"]:
        """Variances of (a, c, b, d) of a patient of whom nothing is known."""
        return torch.stack(
            [self.drift_variance, self.level_variance, self.offset_variance, self.offset_drift_variance]
        )

    def take(self, rows: Int[Tensor, " m"]) -> "FilterParameters":
        """Return the numbers of some rows, repeated as often as they are asked for."""
        return FilterParameters(**{name: getattr(self, name)[rows] for name in NAMES})

    def detach(self) -> "FilterParameters":
        """Return the same numbers without their graph."""
        return FilterParameters(**{name: getattr(self, name).detach() for name in NAMES})

    def checked(self) -> "FilterParameters":
        """Return the numbers, or refuse those that are none.

        Raises
        ------
        BadAssimilationInput
            One is NaN, a variance negative or infinite, a time constant not positive, another infinite.
        """
        for name in NAMES:
            value = getattr(self, name)
            timed = name.endswith("_hours")
            good = value > 0 if timed else value.isfinite() & ((value >= 0) | (name in NAMES[N_POSITIVE:]))
            if not bool(good.all()):
                row = int((~good).nonzero()[0, 0])
                rule = (
                    "a positive number of hours (inf: no drift)"
                    if timed
                    else "finite" + ("" if name in NAMES[N_POSITIVE:] else " and not negative")
                )
                raise BadAssimilationInput(
                    f"{name} of row {row} is {float(value[row])}; it must be {rule}. Fit the filter again, or give "
                    "numbers by hand."
                )
        return self

    @classmethod
    def of(cls, **numbers: float) -> "FilterParameters":
        """Return one row from plain numbers; those not named are the prior's."""
        known = {name: centre for name, (centre, _) in _PRIOR.items()} | numbers
        return cls(**{name: torch.tensor([float(x)], dtype=torch.float64) for name, x in known.items()})

    @classmethod
    def joined(cls, rows: "list[FilterParameters]") -> "FilterParameters":
        """Return the rows of all, in order."""
        return cls(**{name: torch.cat([getattr(row, name) for row in rows]) for name in NAMES})

    @property
    def axis(self) -> Float[Tensor, "n 11"]:
        """The numbers on the axis of fitting: logarithms of the positive ones, held inside their bounds."""
        columns = [getattr(self, f.name).clamp(*_BOUNDS[f.name]) for f in fields(self)]
        return torch.stack([c.log() if i < N_POSITIVE else c for i, c in enumerate(columns)], dim=1)

    @classmethod
    def from_axis(cls, axis: Float[Tensor, "n 11"]) -> "FilterParameters":
        """Return the numbers that stand at points of that axis; differentiable."""
        columns = axis.unbind(1)
        return cls(
            **{
                n: c.exp() if i < N_POSITIVE else c
                for i, (n, c) in enumerate(zip(NAMES, columns, strict=True))
            }
        )


def _on_axis(table: dict[str, tuple[float, float]]) -> Float[Tensor, "11 2"]:
    pairs = torch.tensor([table[name] for name in NAMES], dtype=torch.float64)
    pairs[:N_POSITIVE] = pairs[:N_POSITIVE].log()
    return pairs


BOUNDS: Float[Tensor, "11 2"] = _on_axis(_BOUNDS)
"""Least and greatest of each number on the axis of fitting. On a standardised scale the variance of a lab is about 1.
No gain is negative: a reading that turns a lab round has learned nothing."""

PRIOR: Float[Tensor, "11 2"] = torch.tensor(
    [[centre, spread] for centre, spread in _PRIOR.values()], dtype=torch.float64
)
"""Centre and standard deviation of each number's Gaussian prior on the axis of fitting; wide (a factor 4.5 either way
for positive ones), so that a few dozen draws outweigh it, and none leave a usable filter."""
PRIOR[:N_POSITIVE, 0] = PRIOR[:N_POSITIVE, 0].log()
