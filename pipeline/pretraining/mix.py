"""Which corpora a pretraining run sees, and how much of each."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.foundation.errors import ConfigError
from pipeline.pretraining.data import SYNTHETIC_PROBE_SEED, SYNTHETIC_SEED, Corpus, divide, synthetic_source
from pipeline.pretraining.pulse_families import PulseFamilies
from pipeline.sources.base import WaveformSource
from pipeline.sources.challenge2015 import Challenge2015
from pipeline.sources.detect import open_waveforms

FAMILIES_SEED = 20_150_101
FIRST_SEED, PROBE_SEED = SYNTHETIC_SEED, SYNTHETIC_PROBE_SEED
HELD_OUT_HOURS = 6.0
"""Of made-up PPG no more than this is held out: it costs a judgement every epoch, and there is always more of it."""


@dataclass(frozen=True, kw_only=True)
class CorpusMix:
    """Made-up PPG beside the real one; what is left of an epoch is real."""

    synthetic_share: float = 0.2
    """Of an epoch's windows: patients of the cohort's generator."""
    synthetic_patients: int = 120
    """How many of them."""
    synthetic_hours: float = 0.5
    """Length of each one's recording."""
    synthetic_seed: int = SYNTHETIC_SEED
    """From 20150001 upward, where no experiment has a seed; 20150002 is the probe's."""
    families_share: float = 0.0
    """Of an epoch's windows: patients of ``pulse_families``."""
    families_patients: int = 4000
    """How many of them, two and a half minutes each."""
    families_seed: int = FAMILIES_SEED
    """From 20150001 upward too."""

    def __post_init__(self) -> None:
        for name in ("synthetic_share", "families_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must lie in [0, 1)")
        if self.synthetic_share + self.families_share >= 1:
            raise ValueError(
                f"synthetic_share = {self.synthetic_share} and families_share = {self.families_share} leave nothing "
                "for real PPG: together they must be below 1"
            )
        for name in ("synthetic_patients", "families_patients"):
            if getattr(self, name) < 2:
                raise ValueError(
                    f"{name} = {getattr(self, name)} must be at least 2: one trains, one is held out"
                )
        if not self.synthetic_hours > 0:
            raise ValueError(f"synthetic_hours = {self.synthetic_hours} must be positive")
        for name in ("synthetic_seed", "families_seed"):
            seed = getattr(self, name)
            if seed < FIRST_SEED or seed == PROBE_SEED:
                raise ValueError(
                    f"{name} = {seed} must be {FIRST_SEED} or higher, where no experiment has a seed, and not "
                    f"{PROBE_SEED}, which is the probe's"
                )


def real_waveforms(data: Path | None) -> WaveformSource | None:
    """Open real PPG: a folder in any layout that ``embed`` reads, or an ``.npz`` of PLETH at 40 Hz.

    Raises
    ------
    ConfigError : no data there
    """
    if data is None:
        return None
    if not data.exists():
        raise ConfigError(f"{data} does not exist: name a waveform folder or an .npz of PLETH")
    return Challenge2015(data) if data.is_file() else open_waveforms(data)


def corpora(
    real: WaveformSource | None, synthetic_root: Path, mix: CorpusMix, *, validation_share: float, seed: int
) -> list[tuple[Corpus, Corpus]]:
    """Return training and validation side of each corpus, the real one first where there is one.

    Parameters
    ----------
    real : as `real_waveforms` opens it; None: the shares of what is made up are scaled to fill the epoch
    synthetic_root : folder that the cohort's patients are written to, or found in

    Raises
    ------
    ConfigError : nothing is left to train on
    """
    made_up = mix.synthetic_share + mix.families_share
    if real is None and not made_up:
        raise ConfigError(
            "synthetic_share and families_share are 0 and there is no --data: nothing to train on"
        )
    scale = 1.0 if real is not None else 1 / made_up
    pairs = []
    if real is not None:
        pairs.append(divide(real.name, real, 1 - made_up, validation_share=validation_share, seed=seed))
    if mix.synthetic_share:
        source = synthetic_source(
            synthetic_root,
            patients=mix.synthetic_patients,
            hours=mix.synthetic_hours,
            seed=mix.synthetic_seed,
        )
        pairs.append(
            divide(
                "synthetic", source, mix.synthetic_share * scale, validation_share=validation_share, seed=seed,
                most_hours=HELD_OUT_HOURS,
            )
        )  # fmt: skip
    if mix.families_share:
        families = PulseFamilies(patients=mix.families_patients, seed=mix.families_seed)
        pairs.append(
            divide(
                families.name, families, mix.families_share * scale, validation_share=validation_share, seed=seed,
                most_hours=HELD_OUT_HOURS,
            )
        )  # fmt: skip
    return pairs
