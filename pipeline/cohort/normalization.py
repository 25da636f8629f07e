"""Min-max scaling of labs, fitted on training patients alone, with its exact inverse."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from pipeline.cohort.splits import Splits
from pipeline.foundation.atomic import write_json
from pipeline.foundation.errors import CheckpointError, LeakError
from pipeline.foundation.schema import LAB_NAMES, LABS
from pipeline.labs.cleaning import LabEvents
from pipeline.labs.versions import final_results


@dataclass(frozen=True, kw_only=True)
class ScalerConfig:
    """What the scaling is fitted on."""

    fitted_on: Literal["train", "everything"] = "train"
    """``train`` is the paper's rule and ours; ``everything`` is the authors' code and sees test patients."""
    clip: bool = False
    """Clip scaled values to [0, 1], as the authors' code does; truth for scoring is never clipped."""

    def __post_init__(self):
        if self.fitted_on not in ("train", "everything"):
            raise ValueError(f"fitted_on must be train or everything, not {self.fitted_on!r}")


@dataclass(frozen=True, kw_only=True)
class LabScaler:
    """Linear map of each lab from clinical units to about [0, 1].

    Attributes
    ----------
    low, high : the lab's value that maps to 0 and to 1, in the schema's units; a lab without two different
        values keeps the schema's accepted range
    fitted_on : ``train``, or ``everything`` for the authors' leaking variant
    n_patients : patients whose results were used
    split_hash : ``Splits.hash`` of the division it was fitted under
    clip : whether scaled values are clipped to [0, 1]
    """

    low: Mapping[str, float]
    high: Mapping[str, float]
    fitted_on: str
    n_patients: int
    split_hash: str
    clip: bool = False

    def __post_init__(self):
        for name in LAB_NAMES:
            if not self.low[name] < self.high[name]:
                raise ValueError(
                    f"low must lie below high for {name}, not {self.low[name]} and {self.high[name]}"
                )

    def scale(self, values: np.ndarray, labs: tuple[str, ...] = LAB_NAMES) -> np.ndarray:
        """Map values (..., labs) from clinical units; NaN stays NaN."""
        low, width = self._low_width(labs)
        scaled = (values - low) / width
        return np.clip(scaled, 0, 1) if self.clip else scaled

    def unscale(self, scaled: np.ndarray, labs: tuple[str, ...] = LAB_NAMES) -> np.ndarray:
        """Map values (..., labs) back to clinical units."""
        low, width = self._low_width(labs)
        return scaled * width + low

    def _low_width(self, labs: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        low = np.array([self.low[name] for name in labs])
        return low, np.array([self.high[name] for name in labs]) - low

    def check(self, splits: Splits) -> None:
        """Refuse to serve under another division of the patients.

        Raises
        ------
        LeakError
            The scaler was fitted under another division, so that its range may know held-out patients.
        """
        if self.split_hash != splits.hash:
            raise LeakError(
                f"The lab normaliser was fitted under another division of the patients (split "
                f"{self.split_hash[:8]}, here {splits.hash[:8]}). Fit it again on this division's training "
                "patients."
            )

    def to_json(self) -> dict:
        """Return what ``from_json`` takes; floats survive exactly."""
        return {
            "low": dict(self.low),
            "high": dict(self.high),
            "fitted_on": self.fitted_on,
            "n_patients": self.n_patients,
            "split_hash": self.split_hash,
            "clip": self.clip,
        }

    @classmethod
    def from_json(cls, content: Mapping) -> "LabScaler":
        """Build from ``to_json``'s content.

        Raises
        ------
        CheckpointError
            The content is not that of a scaler.
        """
        try:
            bounds = {end: {lab: float(content[end][lab]) for lab in LAB_NAMES} for end in ("low", "high")}
            return cls(
                **bounds,
                fitted_on=str(content["fitted_on"]),
                n_patients=int(content["n_patients"]),
                split_hash=str(content["split_hash"]),
                clip=bool(content.get("clip", False)),
            )
        except (KeyError, TypeError, ValueError) as problem:
            raise CheckpointError(
                f"The stored lab normaliser cannot be used ({problem}); it needs low and high for "
                f"{', '.join(LAB_NAMES)}, fitted_on, n_patients and split_hash. Fit it again."
            ) from None

    def save(self, path: Path) -> None:
        """Write as JSON."""
        write_json(path, self.to_json())


def fit_lab_scaler(
    lab_events: LabEvents | pd.DataFrame,
    splits: Splits,
    config: ScalerConfig = ScalerConfig(),
) -> LabScaler:
    """Fit minimum and maximum of each lab over the training patients (paper, section on preprocessing)."""
    events = final_results(lab_events.frame if isinstance(lab_events, LabEvents) else lab_events)
    if config.fitted_on == "train":
        events = events.loc[events["patient_id"].isin(list(splits.patients("train")))]
    bounds = events.groupby("lab")["value"].agg(["min", "max"])
    low = {lab.name: float(lab.low) for lab in LABS}
    high = {lab.name: float(lab.high) for lab in LABS}
    for name in LAB_NAMES:
        if name in bounds.index and bounds.loc[name, "min"] < bounds.loc[name, "max"]:
            low[name], high[name] = float(bounds.loc[name, "min"]), float(bounds.loc[name, "max"])
    return LabScaler(
        low=low,
        high=high,
        fitted_on=config.fitted_on,
        n_patients=len(set(events["patient_id"])),
        split_hash=splits.hash,
        clip=config.clip,
    )
