"""What a trained method says of scored draws: estimates, and its own account of how far off they may be."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from pipeline.foundation.schema import SPREAD_COLUMNS


@dataclass(frozen=True, kw_only=True)
class Estimated:
    """Estimates in clinical units.

    Attributes
    ----------
    value : (n,) NaN for a lab that the method does not know
    spread : (n,) standard deviation of a draw about it, clinical units; NaN: the method has none of its own
    log_scale : (n,) whether the spread is that of the natural logarithm instead
    """

    value: Float[np.ndarray, " n"]
    spread: Float[np.ndarray, " n"]
    log_scale: Bool[np.ndarray, " n"]

    @classmethod
    def without_spread(cls, value: Float[np.ndarray, " n"]) -> "Estimated":
        """Return estimates of a method that says nothing of their errors."""
        return cls(
            value=value, spread=np.full(len(value), np.nan), log_scale=np.zeros(len(value), dtype=bool)
        )

    def where(self, chosen: Bool[np.ndarray, " n"], other: "Estimated") -> "Estimated":
        """Return these, and where not `chosen` the others."""
        return Estimated(
            value=np.where(chosen, self.value, other.value),
            spread=np.where(chosen, self.spread, other.spread),
            log_scale=np.where(chosen, self.log_scale, other.log_scale),
        )

    @property
    def columns(self) -> pd.DataFrame:
        """The spread, as predictions carry it."""
        return pd.DataFrame(dict(zip(SPREAD_COLUMNS, (self.spread, self.log_scale), strict=True)))


def columns_of(asked: Iterable[str], labs: Sequence[str]) -> Int[np.ndarray, " n"]:
    """Return in which column of a table of `labs` each asked lab stands; -1 where it does not."""
    place = {lab: column for column, lab in enumerate(labs)}
    return np.array([place.get(lab, -1) for lab in asked], dtype=np.int64)
