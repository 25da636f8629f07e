"""What an encoder knows of the pulse while it is being pretrained: a quick linear probe, for curves alone.

Cohorts of seed 7 and half of BIDMC's patients, both open to choices; the probe that judges the finished weights
(``probing``) has another seed and the other patients.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from models.encoders.ppg_gpt import PPGGPT
from pipeline.pretraining.data import UNKNOWN_RAILS
from pipeline.pretraining.probe_data import ProbeWindows, bidmc_windows, synthetic_windows
from pipeline.pretraining.probing import PENALTIES, held_out_estimates
from pipeline.windows.resample import prepare_ppg_gpt

CHOOSING_SEED = 7
FITTED, JUDGED = 400, 160
"""Patients that the read-out is fitted on, and others that it is judged on."""
HOURS = 0.1
READOUTS = ("last", "mean", "layers", "layers+spread")


class ShapeProbe:
    """Reads the planted shape and real heart rates out of a model in training.

    Parameters
    ----------
    root : folder that the planted patients are written to, or found in
    bidmc : BIDMC's folder of CSV files; None: planted patients alone
    """

    def __init__(self, root: Path, bidmc: Path | None = None):
        self.planted = synthetic_windows(root, patients=FITTED + JUDGED, hours=HOURS, seed=CHOOSING_SEED)
        self.real = None if bidmc is None else half_of(bidmc_windows(bidmc), 0)

    def __call__(self, model: PPGGPT) -> dict[str, dict[str, dict[str, float]]]:
        """Return R2 of each planted parameter, and the error of real heart rates (beats a minute), by read-out."""
        rows = {"planted_r2": {}}
        features = readouts(model, self.planted)
        for name, x in features.items():
            rows["planted_r2"][name] = split_r2(x, self.planted.targets, self.planted.patients < FITTED)
        if self.real is not None:
            rate = self.real.targets["heart_rate"]
            known = np.isfinite(rate)
            rows["bidmc_heart_rate_mae"] = {}
            for name, x in readouts(model, self.real).items():
                guess = held_out_estimates(x[known], rate[known], self.real.patients[known])
                rows["bidmc_heart_rate_mae"][name] = round(float(np.abs(guess - rate[known]).mean()), 3)
        return rows


def half_of(data: ProbeWindows, half: int) -> ProbeWindows:
    """Return the windows of every other patient: 0 for choosing, 1 for the final table."""
    mine = data.patients % 2 == half
    return ProbeWindows(
        samples=data.samples[mine], sampling_rate_hz=data.sampling_rate_hz, patients=data.patients[mine],
        targets={name: value[mine] for name, value in data.targets.items()}, exclusions=data.exclusions,
    )  # fmt: skip


def readouts(model: PPGGPT, data: ProbeWindows) -> dict[str, Float[np.ndarray, "n width"]]:
    """Return each read-out of all windows, float64, in one pass."""
    prepared = prepare_ppg_gpt(data.samples, data.sampling_rate_hz, UNKNOWN_RAILS)
    device = next(model.parameters()).device
    last, means, spreads = [], [], []
    with torch.no_grad():
        for part in torch.from_numpy(np.ascontiguousarray(prepared)).split(256):
            x = model.patch_embedding(model._patches(part.to(device)))
            mean, spread = [], []
            for layer in model.gpt_layers:
                x = layer(x)
                mean.append(x[:, 1:].mean(1))
                spread.append(x[:, 1:].std(1, correction=0))
            last.append(x[:, -1])
            means.append(torch.cat(mean, 1))
            spreads.append(torch.cat(spread, 1))
    final, mean, spread = (torch.cat(parts).double().cpu().numpy() for parts in (last, means, spreads))
    values = (final, mean[:, -final.shape[1] :], mean, np.concatenate([mean, spread], axis=1))
    return dict(zip(READOUTS, values, strict=True))


def split_r2(
    features: Float[np.ndarray, "n width"],
    targets: Mapping[str, Float[np.ndarray, " n"]],
    fitted: np.ndarray,
    share: float = 0.2,
) -> dict[str, float]:
    """Return R2 of ridge regression on the patients that are not `fitted`.

    The penalty of each target is chosen on the last `share` of the fitted windows, which are in order of patient.
    """
    names, values = list(targets), np.stack(list(targets.values()), axis=1)
    rows = np.flatnonzero(fitted)
    inner = rows[: int(len(rows) * (1 - share))]
    chosen = rows[len(inner) :]
    errors = [
        ((guess - values[chosen]) ** 2).mean(0)
        for guess in _ridge(features[inner], values[inner], features[chosen])
    ]
    best = np.argmin(errors, axis=0)
    guesses = _ridge(features[rows], values[rows], features[~fitted])
    truth = values[~fitted]
    return {
        name: round(float(1 - ((guesses[best[k]][:, k] - truth[:, k]) ** 2).mean() / truth[:, k].var()), 4)
        for k, name in enumerate(names)
    }


def _ridge(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> list[np.ndarray]:
    """Estimate all targets `at` under each penalty, from one decomposition."""
    mean, sd = x.mean(axis=0), x.std(axis=0)
    sd = np.where(sd > 0, sd, 1)
    z, level = (x - mean) / sd, y.mean(axis=0)
    eigenvalues, vectors = np.linalg.eigh(z.T @ z)
    turned, products = (at - mean) / sd @ vectors, vectors.T @ (z.T @ (y - level))
    return [level + turned @ (products / (eigenvalues[:, None] + penalty)) for penalty in PENALTIES]
