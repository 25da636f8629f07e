"""What a frozen embedding knows: ridge regression to heart and respiration rate, patients held out.

Data: BIDMC (PhysioNet, ODC-BY 1.0), 53 recordings of 46 ICU patients, 8 minutes each, with a monitor's
numerics once a second. Nothing of it is used in pretraining. Every estimate is made by a regression that was
fitted on other patients; its penalty is chosen by other patients still.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from models.encoders import Encoder
from models.ppg_gpt import PPGGPT
from pipeline.encoders import prepare_for
from pipeline.errors import RecordError
from pipeline.pretraining_data import UNKNOWN_RAILS
from pipeline.quality import window_quality
from pipeline.schedule import seed_of
from pipeline.schema import QUALITY_COLUMNS, WINDOW_SECONDS, WINDOW_US
from pipeline.sources.base import Catalog, Record, Stretch
from pipeline.windows import WindowConfig, iterate_windows

TARGETS = {"heart_rate": "HR", "respiration_rate": "RESP"}
"""Columns of the monitor's numerics, both per minute."""
RESPIRATION_BAND_HZ = (0.1, 0.6)
PENALTIES = np.logspace(-3, 5, 17)
"""Of standardised features, times the number of windows' unit variance (our decision)."""
FEWEST_SECONDS = WINDOW_SECONDS // 2
"""A window's rate is the mean of at least so many of its 30 numerics."""
BIDMC_LICENCE = "BIDMC PPG and Respiration Dataset v1.0.0 (PhysioNet): ODC-BY 1.0"


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
            return torch.cat([model.tokens(w)[:, 1:].mean(dim=1) for w in windows.split(64)]).cpu().numpy()

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


def _rates(numerics: pd.DataFrame, first_second: int) -> dict[str, float]:
    rows = numerics.iloc[first_second : first_second + WINDOW_SECONDS]
    return {
        target: float(rows[column].mean()) if rows[column].notna().sum() >= FEWEST_SECONDS else np.nan
        for target, column in TARGETS.items()
    }


def _beside(signals: Path, ending: str) -> Path:
    return signals.with_name(signals.name.split("Signals")[0] + ending)


def held_out_estimates(
    features: Float[np.ndarray, "n width"],
    target: Float[np.ndarray, " n"],
    patients: Int[np.ndarray, " n"],
    *,
    folds: int = 10,
    seed: int = 0,
) -> Float[np.ndarray, " n"]:
    """Estimate each window's `target` by ridge regression on other patients' windows.

    The penalty of each fold has the least absolute error in an inner division of its training patients.
    """
    estimates = np.empty(len(target))
    for test in _folds(patients, folds, seed):
        x, y, groups = features[~test], target[~test], patients[~test]
        errors = np.zeros(len(PENALTIES))
        for inner in _folds(groups, min(5, folds), seed + 1):
            guess = _ridge(x[~inner], y[~inner], x[inner], PENALTIES)
            errors += np.abs(guess - y[inner, None]).sum(axis=0)
        best = PENALTIES[errors.argmin()]
        estimates[test] = _ridge(x, y, features[test], np.array([best]))[:, 0]
    return estimates


def mean_estimates(
    target: Float[np.ndarray, " n"], patients: Int[np.ndarray, " n"], *, folds: int = 10, seed: int = 0
) -> Float[np.ndarray, " n"]:
    """Estimate each window's `target` by the mean of other patients' windows."""
    return held_out_estimates(np.zeros((len(target), 1)), target, patients, folds=folds, seed=seed)


def error_with_interval(
    errors: Float[np.ndarray, " n"], patients: Int[np.ndarray, " n"], *, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Return the mean of `errors` and its 95 % interval by bootstrap over patients."""
    _, place = np.unique(patients, return_inverse=True)
    sums, counts = np.bincount(place, errors), np.bincount(place)
    drawn = np.random.default_rng(seed).integers(len(counts), size=(draws, len(counts)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(errors.mean()), float(low), float(high)


def probe(
    data: ProbeWindows, encoders: Sequence[Encoder], *, folds: int = 10, seed: int = 0
) -> list[dict[str, Any]]:
    """Return one row per target and method: mean absolute error per minute, with its 95 % interval.

    Methods are the encoders, for PPG-GPT also the mean over its positions (what it knows besides what its
    last position says), the spectral peak of the window itself, and the training mean. Rows called "a minus
    b" compare the first encoder with each other method, window by window: below 0, the first one is better.
    """
    features = _features(data, encoders)
    peaks, rows = data.spectral_peaks(), []
    for target, values in data.targets.items():
        known = np.isfinite(values)
        truth, patients = values[known], data.patients[known]
        estimates = {
            name: held_out_estimates(x[known].astype(np.float64), truth, patients, folds=folds, seed=seed)
            for name, x in features.items()
        }
        estimates["spectral_peak"] = peaks[target][known]
        estimates["training_mean"] = mean_estimates(truth, patients, folds=folds, seed=seed)
        errors = {name: np.abs(estimate - truth) for name, estimate in estimates.items()}
        first, *others = errors
        errors |= {f"{first} minus {name}": errors[first] - errors[name] for name in others}
        for name, error in errors.items():
            mae, low, high = error_with_interval(error, patients, seed=seed)
            rows.append({
                "target": target, "method": name, "mae": round(mae, 3), "low": round(low, 3),
                "high": round(high, 3), "windows": int(known.sum()), "patients": len(np.unique(patients)),
            })  # fmt: skip
    return rows


def _features(data: ProbeWindows, encoders: Sequence[Encoder]) -> dict[str, np.ndarray]:
    """Return what each regression sees; encoders of one name are told apart by their weights."""
    names = [encoder.name for encoder in encoders]
    features = {}
    for encoder in encoders:
        name = (
            encoder.name if names.count(encoder.name) == 1 else f"{encoder.name}_{encoder.weights_hash[:6]}"
        )
        features[name] = data.embedded(encoder)
        if isinstance(encoder, PPGGPT):
            features[f"{name} (mean of positions)"] = data.pooled(encoder)
    return features


def probe_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows of `probe` as a table of fixed width."""
    wide = max(len(row["method"]) for row in rows)
    lines = [f"{'target':<18} {'method':<{wide}} {'MAE/min':>8}  95 % interval"]
    lines += [
        f"{row['target']:<18} {row['method']:<{wide}} {row['mae']:>8.3f}  {row['low']:.3f} to {row['high']:.3f}"
        for row in rows
    ]
    return "\n".join(lines)


def _folds(patients: np.ndarray, folds: int, seed: int) -> Iterator[np.ndarray]:
    """Yield, for each fold, which windows are its test patients'."""
    names = np.unique(patients)
    order = np.random.default_rng(seed_of(seed, len(names))).permutation(names)
    for part in np.array_split(order, min(folds, len(names))):
        yield np.isin(patients, part)


def _ridge(x: np.ndarray, y: np.ndarray, at: np.ndarray, penalties: np.ndarray) -> np.ndarray:
    """Fit on (x, y) with an unpenalised intercept, features standardised; estimate `at`, a column a penalty."""
    mean, sd = x.mean(axis=0), x.std(axis=0)
    sd = np.where(sd > 0, sd, 1)
    u, s, vt = np.linalg.svd((x - mean) / sd, full_matrices=False)
    shrunk = s[:, None] / (s[:, None] ** 2 + penalties) * (u.T @ (y - y.mean()))[:, None]
    return y.mean() + (at - mean) / sd @ (vt.T @ shrunk)
