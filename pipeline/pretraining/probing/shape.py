"""What an encoder knows of the pulse while it is being pretrained: a quick linear probe, for curves alone.

Planted patients of seed 7 and half of BIDMC's patients, both open to choices; the probe that judges finished weights
(``probing``) has another seed and the other patients.
"""

import copy
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from models.encoders.ppg_gpt import PPGGPT
from pipeline.pretraining.probing.linear_readout import estimates_of_others, held_out_estimates
from pipeline.pretraining.probing.rows import PlantedSize
from pipeline.pretraining.probing.windows import ProbeWindows, bidmc_windows, planted_windows
from pipeline.sources.base import UNKNOWN_RAILS
from pipeline.windows.resample import prepare_ppg_gpt

CHOOSING = PlantedSize(bursts=4, seed=7)
READOUTS = ("last", "mean", "layers", "layers+spread")


class ShapeProbe:
    """Reads the planted shape and real heart rates out of a model in training.

    Parameters
    ----------
    bidmc : BIDMC's folder of CSV files; None: planted patients alone
    size : of the planted cohort
    """

    def __init__(self, bidmc: Path | None = None, size: PlantedSize = CHOOSING):
        self.real = None if bidmc is None else bidmc_windows(bidmc).half("choose")
        self.planted, self.fitted = planted_windows(size.plan), size.fitted

    def __call__(self, model: PPGGPT) -> dict[str, dict[str, dict[str, float]]]:
        """Return R2 of each planted parameter by read-out, and the error of real heart rates (beats a minute)."""
        result: dict[str, dict[str, dict[str, float]]] = {"planted_r2": {}}
        fitted, names = self.planted.patients < self.fitted, list(self.planted.targets)
        truth = np.stack([self.planted.targets[name] for name in names], axis=1)
        for readout, x in readouts(model, self.planted).items():
            guess = estimates_of_others(x[fitted], truth[fitted], self.planted.patients[fitted], x[~fitted])
            errors = ((guess - truth[~fitted]) ** 2).mean(axis=0) / truth[~fitted].var(axis=0)
            result["planted_r2"][readout] = {
                name: round(float(1 - error), 4) for name, error in zip(names, errors, strict=True)
            }
        if self.real is not None:
            result["bidmc_heart_rate"] = {
                readout: {"mae": _heart_rate_error(x, self.real)}
                for readout, x in readouts(model, self.real).items()
            }
        return result


def readouts(model: PPGGPT, data: ProbeWindows) -> dict[str, Float[np.ndarray, "n width"]]:
    """Return each of `READOUTS` for all windows, float64; the widest one holds all but the last position."""
    prepared = prepare_ppg_gpt(data.samples, data.sampling_rate_hz, UNKNOWN_RAILS)
    last, wide = (_features(model, readout, prepared) for readout in ("last", "layers+spread"))
    d_model, layers = model.config.d_model, model.config.n_layers * model.config.d_model
    values = (last, wide[:, layers - d_model : layers], wide[:, :layers], wide)
    return dict(zip(READOUTS, values, strict=True))


def _features(model: PPGGPT, readout: str, prepared: Float[np.ndarray, "n 1200"]) -> np.ndarray:
    reader = copy.copy(model)  # the same weights; the model in training keeps its read-out
    reader.readout = readout
    device = next(model.parameters()).device
    with torch.no_grad():
        parts = torch.from_numpy(np.ascontiguousarray(prepared)).split(256)
        return torch.cat([reader.features(part.to(device)) for part in parts]).double().cpu().numpy()


def _heart_rate_error(x: Float[np.ndarray, "n width"], data: ProbeWindows) -> float:
    rate = data.targets["heart_rate"]
    known = np.isfinite(rate)
    guess = held_out_estimates(x[known], rate[known, None], data.patients[known])[:, 0]
    return round(float(np.abs(guess - rate[known]).mean()), 3)
