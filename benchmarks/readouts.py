"""``python -m benchmarks.readouts``: what each read-out of an encoder costs to keep, and what a line reads in it.

R2 of the pulse's shape from one window, on planted patients that the line was not fitted on: windows of cohorts of
`SEEDS`, on which read-outs and projections were chosen, or of a seed that none of them has seen (``--seed``). With
``--bidmc`` also the monitor's heart rate, by held-out real patients. Embeddings are rounded as the store rounds them.
"""

import argparse
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch

from models.encoders.base import Encoder
from models.encoders.readout_names import READOUTS
from pipeline.embedding.encoders import make_encoder
from pipeline.embedding.weights_files import WEIGHTS
from pipeline.emulation.rendered import BurstPlan, RenderedWindows, render_windows
from pipeline.foundation.schema import WINDOW_SECONDS
from pipeline.pretraining.probing.linear_readout import held_out_estimates
from pipeline.pretraining.probing.windows import ProbeWindows, bidmc_windows
from pipeline.sources.synthetic.parameters import CohortParameters

SEEDS = (7, 8)
PENALTIES = np.logspace(-1, 4, 11)
WEEK_WINDOWS = 7 * 24 * 3600 // WINDOW_SECONDS
BIDMC_WIDEST = 256
"""A regression on more numbers than windows is left to the probe's command: it takes minutes."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readouts", description=__doc__)
    parser.add_argument("--encoder", default="ppg_gpt_1m_long", help="without read-out")
    parser.add_argument("--patients", type=int, default=220, help="planted patients of each seed")
    parser.add_argument("--seed", type=int, action="append", help="repeatable; 7 and 8 when absent")
    parser.add_argument("--bidmc", type=Path, help="folder of BIDMC as CSV files")
    options = parser.parse_args()
    shapes = list(CohortParameters.load().morphology)
    print(
        f"{'read-out':<24}{'width':>6}{'MB a week':>10}"
        + "".join(f"{name:>17}" for name in shapes)
        + "  heart rate"
    )
    words = list(names(options.encoder))
    beside = Beside([make_encoder(f"{options.encoder}{word}", device="cpu") for word in words])
    plans = [
        BurstPlan(patients=options.patients, bursts=4, burst_windows=2, seed=s) for s in options.seed or SEEDS
    ]
    x, y, patients = joined([render_windows(beside, plan) for plan in plans], len(shapes))
    ends = np.cumsum([encoder.width for encoder in beside.encoders])
    for word, encoder, end in zip(words, beside.encoders, ends, strict=True):
        told = r2(x[:, end - encoder.width : end], y, patients)
        megabytes = encoder.width * WEEK_WINDOWS * 2 / 1e6
        line = f"{word or '+last':<24}{encoder.width:>6}{megabytes:>10.1f}" + "".join(
            f"{v:>17.3f}" for v in told
        )
        if options.bidmc and encoder.width <= BIDMC_WIDEST:
            line += "  {:.2f} a minute, R2 {:.3f}".format(*heart_rate(monitored(options.bidmc), encoder))
        print(line, flush=True)


class Beside:
    """Several encoders as one, so that windows are rendered once."""

    name, weights_hash = "several", "0" * 64

    def __init__(self, encoders: list[Encoder]) -> None:
        self.encoders = encoders
        self.width = sum(encoder.width for encoder in encoders)
        self.samples_per_window, self.sampling_rate_hz = (
            encoders[0].samples_per_window,
            encoders[0].sampling_rate_hz,
        )

    def embed(self, windows: torch.Tensor) -> torch.Tensor:
        """Return the embeddings side by side."""
        return torch.cat([encoder.embed(windows) for encoder in self.encoders], dim=1)


def names(encoder: str) -> Iterator[str]:
    """Yield the words of every read-out, and of every projection that lies beside shipped weights."""
    yield from ("" if readout == "last" else f"+{readout}" for readout in READOUTS)
    for path in sorted(WEIGHTS.glob(f"{encoder}+*.safetensors")):
        yield path.stem.removeprefix(encoder)


def joined(parts: list[RenderedWindows], shapes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return embeddings, shapes and patients; those of different seeds are different ones."""
    patients = np.concatenate([part.patient + 1_000_000 * i for i, part in enumerate(parts)])
    inputs = np.concatenate([part.inputs[:, :shapes] for part in parts]).astype(np.float64)
    return np.concatenate([part.embeddings for part in parts]).astype(np.float64), inputs, patients


def r2(x: np.ndarray, y: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Return R2 of each column of `y` on every third patient, the penalty chosen by half of the others."""
    order = np.unique(patients, return_inverse=True)[1]
    judged, inner = order % 3 == 0, order % 6 == 1
    fitted, chosen = ~judged & ~inner, ~judged & inner
    guesses = ridge(x[fitted], y[fitted], x[chosen])
    best = np.square(guesses - y[chosen]).mean(axis=1).argmin(axis=0)
    guesses = ridge(x[~judged], y[~judged], x[judged])
    guess = np.stack([guesses[place][:, column] for column, place in enumerate(best)], axis=1)
    return 1 - np.square(guess - y[judged]).mean(axis=0) / y[judged].var(axis=0)


def ridge(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return estimates (penalties, n, targets) by ridge regression on standardised features."""
    mean, sd = x.mean(axis=0), x.std(axis=0) + 1e-9
    z, other = (x - mean) / sd, (at - mean) / sd
    values, vectors = np.linalg.eigh(z.T @ z)
    told, other = vectors.T @ (z.T @ (y - y.mean(axis=0))), other @ vectors
    return np.stack([other @ (told / (values[:, None] + p)) for p in PENALTIES]) + y.mean(axis=0)


@cache
def monitored(folder: Path) -> ProbeWindows:
    """Return BIDMC's windows."""
    return bidmc_windows(folder)


def heart_rate(data: ProbeWindows, encoder) -> tuple[float, float]:
    """Return mean absolute error a minute and R2 of the monitor's heart rate, on held-out patients."""
    truth = data.targets["heart_rate"]
    known = np.isfinite(truth)
    x = data.embedded(encoder)[known].astype(np.float16).astype(np.float64)
    estimates = held_out_estimates(x, truth[known, None], data.patients[known])
    error = estimates[:, 0] - truth[known]
    return float(np.abs(error).mean()), float(1 - np.square(error).mean() / truth[known].var())


if __name__ == "__main__":
    main()
