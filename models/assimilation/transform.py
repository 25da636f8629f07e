"""Between clinical units and the filter's scale: perhaps a logarithm, then centre and spread of the training draws."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from models.errors import BadAssimilationInput


@dataclass(frozen=True, kw_only=True)
class LabTransform:
    """Scale of one lab: (f(value) - centre) / spread, f the natural logarithm or nothing.

    On a log scale the filter's mean is the logarithm of the median, and quantiles carry over as they are.

    Attributes
    ----------
    log : whether the lab's logarithm is assimilated (``AssimilationConfig.log_scale``)
    centre, spread : of f(value) over the training patients' draws
    """

    log: bool
    centre: float
    spread: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.centre) and np.isfinite(self.spread) and self.spread > 0):
            raise BadAssimilationInput(
                f"A lab's scale has centre {self.centre} and spread {self.spread}; both must be finite, the spread "
                "positive. Fit the transform on draws that differ."
            )

    def to_scale(self, value: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Map clinical units to the filter's scale; NaN stays NaN.

        Raises
        ------
        BadAssimilationInput
            A value on a log scale is not positive.
        """
        if self.log and bool((value <= 0).any()):
            raise BadAssimilationInput(
                f"A draw of {float(np.nanmin(value)):g} has no logarithm; a lab on the log scale (log_scale) must be "
                "positive. Clean the labs first: values out of range are left out there."
            )
        return ((np.log(value) if self.log else value) - self.centre) / self.spread

    def from_scale(self, scaled: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Map the filter's scale to clinical units."""
        value = scaled * self.spread + self.centre
        return np.exp(value) if self.log else value

    def median(self, mean: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Return the lab's median in clinical units from the filter's mean."""
        return self.from_scale(mean)


def fit_transform(
    values: Float[np.ndarray, " draws"], *, log: bool, low: float, high: float, least: int
) -> LabTransform:
    """Take centre and spread from the training patients' draws, clinical units.

    With fewer than `least` draws, or draws that are all alike, they are those of a lab that fills the middle half of
    its accepted range `low` to `high` evenly: a defined scale for a lab of which next to nothing is known.
    """
    ends = np.log([low, high]) if log else np.array([low, high])
    scaled = np.log(values) if log else values
    if len(values) < least or not scaled.std() > 0:
        return LabTransform(
            log=log, centre=float(ends.mean()), spread=float(np.diff(ends)[0] / (4 * np.sqrt(3)))
        )
    return LabTransform(log=log, centre=float(scaled.mean()), spread=float(scaled.std()))
