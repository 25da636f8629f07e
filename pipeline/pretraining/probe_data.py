"""Windows with something known about each: BIDMC's numerics, or the truth behind synthetic PPG."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from models.encoders.base import Encoder
from models.encoders.ppg_gpt import PPGGPT
from pipeline.embedding.encoders import prepare_for
from pipeline.foundation.errors import RecordError
from pipeline.foundation.schema import QUALITY_COLUMNS, WINDOW_SECONDS, WINDOW_US
from pipeline.pretraining.data import UNKNOWN_RAILS
from pipeline.sources.base import Catalog, Record, Stretch
from pipeline.sources.mimic3 import Mimic3Waveforms
from pipeline.sources.synthetic.cohort import write_cohort
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.physiology import morphology_at
from pipeline.sources.synthetic.plan import CohortPlan, CohortSize, plan_patient
from pipeline.windows.cutting import WindowConfig, iterate_windows
from pipeline.windows.quality import window_quality
from pipeline.windows.resample import replace_rails

TARGETS = {"heart_rate": "HR", "respiration_rate": "RESP"}
"""Columns of the monitor's numerics, both per minute."""
RESPIRATION_BAND_HZ = (0.1, 0.6)
FEWEST_SECONDS = WINDOW_SECONDS // 2
"""A window's rate is the mean of at least so many of its 30 numerics."""
BIDMC_LICENCE = "BIDMC PPG and Respiration Dataset v1.0.0 (PhysioNet): ODC-BY 1.0"
SYNTHETIC_PROBE_SEED = 20_150_002
"""Neither the seed of pretraining nor one of an experiment."""


class Bidmc:
    """The BIDMC folder of CSV files, plain or packed with xz, as a waveform source.

    Raises
    ------
    RecordError : no ``bidmc_##_Signals.csv`` with its numerics and fixed data in `root`
    """

    name, licence, sampling_rate_hz = "bidmc", BIDMC_LICENCE, 125.0

    def __init__(self, root: Path):
        self.root = Path(root)
        self.files = sorted(self.root.rglob("bidmc_*_Signals.csv*"))
        if not self.files:
            raise RecordError(f"{root} holds no bidmc_##_Signals.csv; point at the BIDMC folder of CSV files")

    def catalog(self) -> Catalog:
        """Return the recordings; several may come from one patient."""
        return Catalog(records=tuple(map(self._record, self.files)))

    def stretches(self, record: Record, exclusions: Counter[str]) -> Iterator[Stretch]:
        """Yield the recording's PLETH whole; its digital codes are not stated, so the rails are unknown."""
        frame = pd.read_csv(record.path, skipinitialspace=True, usecols=["PLETH"])
        yield Stretch(
            start_us=0, sampling_rate_hz=self.sampling_rate_hz, rails=UNKNOWN_RAILS,
            samples=frame["PLETH"].to_numpy(np.float32),
        )  # fmt: skip

    def numerics(self, record: Record) -> pd.DataFrame:
        """Return the monitor's values, one row a second from the recording's start."""
        return pd.read_csv(_beside(record.path, "Numerics.csv"), skipinitialspace=True)

    @staticmethod
    def _record(path: Path) -> Record:
        fixed = _beside(path, "Fix.txt").read_text(encoding="utf-8")
        patient = re.search(r"MIMIC II matched wdb ID: (\S+)", fixed)
        if patient is None:
            raise RecordError(f"{_beside(path, 'Fix.txt')} names no patient; patients could not be held out")
        return Record(
            patient_id=patient[1], name=path.name, path=path, files=(path,), start_us=0, end_us=16 * WINDOW_US
        )


@dataclass(frozen=True, kw_only=True)
class ProbeWindows:
    """Windows with a known rate.

    Attributes
    ----------
    samples : (n, m) float32, physical units
    sampling_rate_hz : rate of `samples`
    patients : (n,) a number for each patient
    targets : for each of `TARGETS`, (n,) the mean of the monitor's values, NaN where it has too few
    exclusions : windows dropped, by reason
    """

    samples: Float[np.ndarray, "n m"]
    sampling_rate_hz: float
    patients: Int[np.ndarray, " n"]
    targets: Mapping[str, Float[np.ndarray, " n"]]
    exclusions: Mapping[str, int]

    def embedded(self, encoder: Encoder) -> Float[np.ndarray, "n width"]:
        """Return the encoder's frozen embedding of each window."""
        prepared = prepare_for(encoder)(self.samples, self.sampling_rate_hz, UNKNOWN_RAILS)
        return encoder.embed(torch.from_numpy(np.ascontiguousarray(prepared))).cpu().numpy()

    def pooled(self, model: PPGGPT) -> Float[np.ndarray, "n width"]:
        """Return the mean of the last layer over the positions of all patches."""
        windows = torch.from_numpy(
            np.ascontiguousarray(prepare_for(model)(self.samples, self.sampling_rate_hz, UNKNOWN_RAILS))
        ).to(next(model.parameters()).device)
        with torch.no_grad():
            return torch.cat([model.patch_mean(w) for w in windows.split(64)]).cpu().numpy()

    def spectral_peaks(self) -> dict[str, Float[np.ndarray, " n"]]:
        """Return the rates per minute at the highest peaks of each window's own spectrum: no training."""
        quality = window_quality(self.samples, self.sampling_rate_hz, UNKNOWN_RAILS)
        heart = quality[:, QUALITY_COLUMNS.index("spectral_peak_hz")].astype(np.float64)
        n = self.samples.shape[1]
        centred = self.samples - self.samples.mean(axis=1, keepdims=True)
        power = np.abs(np.fft.rfft(centred * np.hanning(n), n=4 * n, axis=1)) ** 2
        hertz = np.fft.rfftfreq(4 * n, 1 / self.sampling_rate_hz)
        band = (hertz >= RESPIRATION_BAND_HZ[0]) & (hertz <= RESPIRATION_BAND_HZ[1])
        respiration = hertz[band][power[:, band].argmax(axis=1)]
        return {"heart_rate": 60 * heart, "respiration_rate": 60 * respiration}


def bidmc_windows(root: Path, config: WindowConfig | None = None) -> ProbeWindows:
    """Cut BIDMC into 30 s windows under the usual rules, each with the rates that the monitor showed."""
    source, exclusions = Bidmc(root), Counter()
    samples, patients, rows = [], [], []
    for record in source.catalog().records:
        numerics = source.numerics(record)
        for windows in iterate_windows(source, [record], config or WindowConfig(), exclusions):
            samples.append(windows.samples)
            patients += [record.patient_id] * len(windows.samples)
            rows += [_rates(numerics, int(start // 1_000_000)) for start in windows.start_us]
    return ProbeWindows(
        samples=np.concatenate(samples), sampling_rate_hz=source.sampling_rate_hz, exclusions=exclusions,
        patients=np.unique(patients, return_inverse=True)[1].astype(np.int64),
        targets={target: np.array([row[target] for row in rows]) for target in TARGETS},
    )  # fmt: skip


def synthetic_windows(
    root: Path, *, patients: int = 60, hours: float = 0.3, seed: int = SYNTHETIC_PROBE_SEED
) -> ProbeWindows:
    """Write synthetic patients under `root` (or find them) and return their windows with the true morphology.

    The targets are the parameters that the planted labs act through, each at the middle of its window.
    """
    parameters, exclusions = CohortParameters.load(), Counter()
    size = CohortSize(n_patients=patients, hours_low=hours, hours_high=hours)
    write_cohort(parameters, size, root, seed=seed)
    plan = CohortPlan(
        parameters=parameters, size=size, root=root, coupling=1.0, null=None, seed=seed, real_labs=None,
    )  # fmt: skip
    planned = [plan_patient(plan, patient) for patient in range(patients)]
    courses = {str(stay.subject_id): (place, course) for place, (stay, course) in enumerate(planned)}
    source = Mimic3Waveforms(root / "waveforms")
    samples, owners, truths = [], [], []
    for record in source.catalog().records:
        place, course = courses[record.patient_id]
        for windows in iterate_windows(source, [record], WindowConfig(), exclusions):
            samples.append(replace_rails(windows.samples, windows.rails))
            owners += [place] * len(windows.samples)
            truths.append(morphology_at(parameters, course, windows.start_us + WINDOW_US // 2))
    return ProbeWindows(
        samples=np.concatenate(samples), sampling_rate_hz=125.0, exclusions=exclusions,
        patients=np.array(owners, dtype=np.int64),
        targets={name: np.concatenate([truth[name] for truth in truths]).astype(np.float64) for name in truths[0]},
    )  # fmt: skip


def _rates(numerics: pd.DataFrame, first_second: int) -> dict[str, float]:
    rows = numerics.iloc[first_second : first_second + WINDOW_SECONDS]
    return {
        target: float(rows[column].mean()) if rows[column].notna().sum() >= FEWEST_SECONDS else np.nan
        for target, column in TARGETS.items()
    }


def _beside(signals: Path, ending: str) -> Path:
    return signals.with_name(signals.name.split("Signals")[0] + ending)
