"""What a frozen embedding knows: ridge regression to heart and respiration rate, patients held out.

Data: BIDMC (PhysioNet, ODC-BY 1.0), 53 recordings of 46 ICU patients, 8 minutes each, with a monitor's
numerics once a second; or synthetic PPG with its true morphology. Nothing of either is used in pretraining.
Every estimate is made by a regression that was fitted on other patients; its penalty is chosen by other
patients still. One decomposition serves all penalties; scikit-learn's `Ridge` takes one each and other bits.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from models.encoders.base import Encoder
from models.encoders.ppg_gpt import PPGGPT
from pipeline.pretraining.probe_data import ProbeWindows
from pipeline.training.schedule import seed_of

PENALTIES = np.logspace(-3, 5, 17)
"""Of standardised features (our decision)."""


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
    """Return one row per target and method: mean absolute error with its 95 % interval, and R2.

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
        if target in peaks:
            estimates["spectral_peak"] = peaks[target][known]
        estimates["training_mean"] = mean_estimates(truth, patients, folds=folds, seed=seed)
        errors = {name: np.abs(estimate - truth) for name, estimate in estimates.items()}
        first, *others = errors
        errors |= {f"{first} minus {name}": errors[first] - errors[name] for name in others}
        for name, error in errors.items():
            mae, low, high = error_with_interval(error, patients, seed=seed)
            row = {"target": target, "method": name, "mae": mae, "low": low, "high": high}
            if name in estimates and truth.var() > 0:
                row["r2"] = float(1 - np.mean((estimates[name] - truth) ** 2) / truth.var())
            row = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
            rows.append(row | {"windows": int(known.sum()), "patients": len(np.unique(patients))})
    return rows


def _features(data: ProbeWindows, encoders: Sequence[Encoder]) -> dict[str, np.ndarray]:
    """Return what each regression sees; encoders of one name are told apart by their weights."""
    features = {}
    for name, encoder in named(encoders).items():
        features[name] = data.embedded(encoder)
        if isinstance(encoder, PPGGPT) and encoder.readout == "last":
            features[f"{name} (mean of positions)"] = data.pooled(encoder)
    return features


def named(encoders: Sequence[Encoder]) -> dict[str, Encoder]:
    """Return the encoders by the names that the table shows."""
    names = [encoder.name for encoder in encoders]
    return {
        e.name if names.count(e.name) == 1 else f"{e.name}_{e.weights_hash[:6]}": e for e in encoders
    }  # fmt: skip


def probe_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows of `probe` as a table of fixed width."""
    wide = max(len(row["method"]) for row in rows)
    lines = [f"{'target':<18} {'method':<{wide}} {'MAE':>8}  {'95 % interval':<18} {'R2':>6}"]
    for row in rows:
        interval, r2 = f"{row['low']:.3f} to {row['high']:.3f}", f"{row['r2']:.3f}" if "r2" in row else ""
        lines.append(
            f"{row['target']:<18} {row['method']:<{wide}} {row['mae']:>8.3f}  {interval:<18} {r2:>6}"
        )
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
