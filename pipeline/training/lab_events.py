"""What one lab's filter is fitted on: the training patients' draws, and readings by what has not seen them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from models.assimilation.events import Events, Row, pack_rows
from models.assimilation.transform import LabTransform
from pipeline.training.patient import TrainingPatient
from pipeline.training.waveform_line import LATEST_US

Noise = Mapping[str, float]
"""Noise variances of assays over the main one's; those that are not named have 1."""


@dataclass(frozen=True, kw_only=True)
class LabEvents:
    """One lab of the training patients.

    Attributes
    ----------
    readings : of each patient's blocks, on the filter's scale; None: results alone
    """

    name: str
    training: Sequence[TrainingPatient]
    transform: LabTransform
    readings: Sequence[Float[np.ndarray, " _"]] | None

    def of(self, noise: Noise, *, known_before: bool = False) -> Events:
        """Return them, a row a patient.

        Parameters
        ----------
        known_before : leave out the values of draws after a patient's first block; the steps stay, so that they are
            judged by what was known when the recording began, and by readings
        """
        rows = []
        for i, patient in enumerate(self.training):
            time_us, value = patient.draws(self.name)
            scaled = self.transform.to_scale(value)
            if known_before:
                scaled = np.where(self.earlier(patient), scaled, np.nan)
            own = np.array([noise.get(code, 1.0) for code in patient.codes(self.name)])
            read = (patient.features.end_us, self.readings[i]) if self.readings else (time_us[:0], scaled[:0])
            rows.append(Row.of((time_us, scaled), read, draw_noise=own))
        return pack_rows(rows)

    def every(self, step: int) -> "LabEvents":
        """Return every `step`-th patient."""
        readings = None if self.readings is None else self.readings[::step]
        return replace(self, training=self.training[::step], readings=readings)

    def earlier(self, patient: TrainingPatient) -> Bool[np.ndarray, " draws"]:
        """Which draws were taken before the patient's first block ended."""
        time_us, _ = patient.draws(self.name)
        ends = patient.features.end_us
        return time_us < ends[0] if len(ends) else np.zeros(len(time_us), bool)

    def beside_waveform(self, patient: TrainingPatient) -> Bool[np.ndarray, " draws"]:
        """Which draws have a block in the half hour before them: those like them are what is estimated."""
        time_us, _ = patient.draws(self.name)
        first, stop = patient.features.latest_rows(time_us, LATEST_US)
        return first < stop
