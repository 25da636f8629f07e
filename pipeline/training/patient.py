"""What filters, lines and networks of the waveform are fitted on: one training patient's blocks and draws."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from pipeline.labs.history import LabSeries
from pipeline.training.filter_forecaster import NO_SERIES
from pipeline.training.ten_minute_means import BlockMeans


@dataclass(frozen=True, kw_only=True)
class TrainingPatient:
    """A training patient's blocks, and the results that count.

    Attributes
    ----------
    features : of the blocks, in the directions that last
    series : final results by lab
    oldest_us : draws from before it do not count; int64 microseconds
    fold : of the lines, which see nothing of it
    number : among the training patients
    """

    features: BlockMeans
    series: Mapping[str, LabSeries]
    oldest_us: int
    fold: int
    number: int

    def draws(self, lab: str) -> tuple[Int[np.ndarray, " draws"], Float[np.ndarray, " draws"]]:
        """Return when the draws that count were taken (int64 microseconds) and what they gave (clinical units)."""
        own = self.series.get(lab, NO_SERIES)
        kept = own.sampled_us >= self.oldest_us
        return own.sampled_us[kept], own.value[kept]

    def codes(self, lab: str) -> list[str]:
        """Return the source code of each of those draws."""
        own = self.series.get(lab, NO_SERIES)
        return [code for code, kept in zip(own.codes, own.sampled_us >= self.oldest_us, strict=True) if kept]
