"""The synthetic cohort's parameters: one committed file, fixed before the first training run.

Everything that shapes the cohort stands in ``parameters.json``; a test holds its hash. Tune the
model, never the cohort.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pipeline.foundation.errors import ConfigError
from pipeline.foundation.schema import LAB_NAMES

PARAMETERS_PATH = Path(__file__).with_name("parameters.json")


def _positive(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not value > 0:
            raise ValueError(f"{type(owner).__name__}.{name} must be positive, not {value!r}")


def _shares(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{type(owner).__name__}.{name} must lie in 0..1, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class LabProcess:
    """One lab as a stationary process, the same at every coupling (means and SDs: usual ICU values).

    A draw is ``marginal(sqrt(1 - noise_share) z + sqrt(noise_share) e)`` with e white and
    ``z = sqrt(patient_share) p + sqrt(1 - patient_share) u``: p constant for a patient, u Ornstein-Uhlenbeck.
    Two draws a gap g apart then correlate by (1 - noise) (share + (1 - share) exp(-g / tau)), which is what
    the carry-forward R2 of the real MIMIC-III demo fixes (LOCF about 2 rho - 1, shrunk LOCF rho^2).
    """

    mean: float
    """Mean in the lab's unit."""
    sd: float
    """Standard deviation in the lab's unit."""
    skewed: bool
    """Log-normal instead of normal (glucose, lactate)."""
    patient_share: float
    """Share of the variance that is constant within a patient."""
    time_constant_hours: float
    """Decay time of the rest, hours."""
    noise_share: float
    """Share of a draw's variance that no physiology explains: analyser and handling."""
    decimals: int
    """Digits a laboratory reports."""

    def __post_init__(self) -> None:
        _positive(self, "mean", "sd", "time_constant_hours")
        _shares(self, "patient_share", "noise_share")

    def log_sd(self) -> float:
        """SD of the logarithm of a skewed lab."""
        return math.sqrt(math.log1p((self.sd / self.mean) ** 2))


@dataclass(frozen=True, kw_only=True)
class MorphologyParameter:
    """One parameter of the pulse wave: bounded and monotone in a weighted sum of latents plus an offset."""

    low: float
    """Lowest value, never reached."""
    high: float
    """Highest value, never reached."""
    geometric: bool
    """Whether steps are ratios rather than differences."""
    offset_sd: float
    """SD of the patient's own offset, in units of the latents' SD: what one window cannot tell from a lab."""
    loadings: Mapping[str, float]
    """Weight of each latent; labs by name, and the shared processes."""

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"MorphologyParameter.low {self.low!r} must be below high {self.high!r}")
        if self.geometric and self.low <= 0:
            raise ValueError(f"MorphologyParameter.low must be positive when geometric, not {self.low!r}")


@dataclass(frozen=True, kw_only=True)
class DrawSchedule:
    """When blood is drawn. Gaps are log-normal, as ICU panels are: every few hours, with jitter."""

    panel_gap_hours: float
    """Median gap between chemistry panels, hours."""
    panel_gap_spread: float
    """SD of the logarithm of that gap."""
    panel_share: Mapping[str, float]
    """Chance that a panel reports each of its labs."""
    lactate_gap_hours: float
    """Median gap between lactates, hours (blood gas, ordered apart)."""
    lactate_gap_spread: float
    """SD of the logarithm of that gap."""
    lactate_patient_share: float
    """Share of patients in whom lactate is ordered at all."""
    hours_before_low: float
    """Least time from admission to the first sample, hours: draws before the waveform starts."""
    hours_before_high: float
    """Most time from admission to the first sample, hours."""
    hours_after_low: float
    """Least time from the last sample to discharge, hours."""
    hours_after_high: float
    """Most time from the last sample to discharge, hours."""

    def __post_init__(self) -> None:
        _positive(self, "panel_gap_hours", "panel_gap_spread", "lactate_gap_hours", "lactate_gap_spread")
        _positive(self, "hours_before_low", "hours_after_low")
        _shares(self, "lactate_patient_share")


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Formats, defects and nuisances of the recordings; rates are means of Poisson processes."""

    wide_format_share: float
    """Share of records with 12-bit samples whose gain was left at 1023, so that values run 0..4.003."""
    packed_share_of_wide: float
    """Share of those in format 212 rather than 16."""
    numerics_share: float
    """Share of records with a numerics record beside them, as a decoy."""
    second_record_share: float
    """Share of patients whose recording is split into two records."""
    segment_hours: float
    """Mean length of a segment, hours."""
    gap_per_hour: float
    """Gaps (`~ n`) an hour."""
    gap_minutes: float
    """Mean length of a gap, minutes."""
    without_pleth_share: float
    """Share of segments that hold an ECG only; they are cut short."""
    extra_channel_share: float
    """Share of segments that hold an ECG besides PLETH."""
    noise_low: float
    """Least noise SD, share of full scale (drawn per record)."""
    noise_high: float
    """Most noise SD, share of full scale."""
    amplitude_low: float
    """Least pulse amplitude, share of full scale: a nuisance that min-max removes."""
    amplitude_high: float
    """Most pulse amplitude, share of full scale."""
    motion_per_hour: float
    """Motion artefacts an hour."""
    motion_seconds: float
    """Their mean length, s."""
    flat_per_hour: float
    """Flat lines an hour."""
    flat_seconds: float
    """Their mean length, s."""
    missing_per_hour: float
    """Runs of the missing code an hour."""
    missing_seconds: float
    """Their mean length, s."""
    clipping_per_hour: float
    """Times an hour at which the gain is too high and the wave hits the rails."""
    clipping_seconds: float
    """Their mean length, s."""

    def __post_init__(self) -> None:
        _shares(self, *(f.name for f in fields(self) if f.name.endswith(("_share", "_of_wide"))))
        _positive(
            self, *(f.name for f in fields(self) if f.name.endswith(("_seconds", "_hours", "_minutes")))
        )


@dataclass(frozen=True, kw_only=True)
class CohortParameters:
    """All parameters of the cohort; load them, do not write them by hand."""

    version: int
    """Raised with every change of the generator that changes its bytes."""
    latent_step_minutes: float
    """Grid of the latent processes, minutes."""
    labs: Mapping[str, LabProcess]
    """By name, in the order of ``schema.LAB_NAMES``."""
    shared_time_constants_hours: Mapping[str, float]
    """Latents that move the pulse but no lab, hours."""
    morphology: Mapping[str, MorphologyParameter]
    """By name; the names are those ``synthetic.ppg`` knows."""
    draws: DrawSchedule
    recording: Recording
    raw: Mapping[str, Any]
    """The parsed JSON, for provenance."""
    sha256: str
    """Hash of the parameters' canonical JSON."""

    def __post_init__(self) -> None:
        _positive(self, "latent_step_minutes")
        unknown = {name for m in self.morphology.values() for name in m.loadings} - set(self.latent_names)
        if unknown:
            raise ValueError(f"CohortParameters.morphology loads on unknown latents {sorted(unknown)}")

    @property
    def latent_names(self) -> tuple[str, ...]:
        """The labs' latents, then the shared ones."""
        return (*self.labs, *self.shared_time_constants_hours)

    @classmethod
    def load(cls, path: Path = PARAMETERS_PATH) -> "CohortParameters":
        """Read `path`.

        Raises
        ------
        ConfigError
            When the file is no JSON, lacks a field or holds an impossible value.
        """
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                f"Cohort parameters in {path} cannot be used: {error}. Restore the file."
            ) from error

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "CohortParameters":
        """Build from parsed JSON; the order of its keys does not matter."""
        canonical = json.dumps(raw, sort_keys=True, separators=(",", ":")).encode()
        return cls(
            version=raw["version"],
            latent_step_minutes=raw["latent_step_minutes"],
            labs={name: LabProcess(**raw["labs"][name]) for name in LAB_NAMES},
            shared_time_constants_hours=dict(sorted(raw["shared_time_constants_hours"].items())),
            morphology={
                name: MorphologyParameter(**spec) for name, spec in sorted(raw["morphology"].items())
            },
            draws=DrawSchedule(**raw["draws"]),
            recording=Recording(**raw["recording"]),
            raw=raw,
            sha256=hashlib.sha256(canonical).hexdigest(),
        )
