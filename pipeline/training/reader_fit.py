"""The reader of the latest windows, trained on measured draws alone, without history, before anything else.

Draws are few, so the network is small, drops half of its read-out and is trained for a fixed number of passes.
What it says of the training patients themselves comes from networks that have not seen them (cross-fitting): how
far to trust a reading would otherwise be learned from readings that look too good.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from models.regressor.losses import parameter_groups
from models.regressor.window_reader import WindowReader
from pipeline.foundation.progress import tracked
from pipeline.training.ridge import FOLDS, folds
from pipeline.training.schedule import seed_of

EPOCHS, MOST_UPDATES = 15, 20_000
"""Passes over the draws; fewer where they are so many that the updates would exceed the second number."""
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.2
DROPOUT = 0.5
BATCH_DRAWS = 64
ROWS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Measured draws of training patients.

    Attributes
    ----------
    windows, usable : the latest windows at each draw, and which hold something
    target : scaled values; NaN where the draw has none of that lab
    patient : number of each draw's patient
    draw : number of the blood draw; one that stands in pieces of both protocols has one number
    """

    windows: Float[np.ndarray, "draws windows features"]
    usable: Bool[np.ndarray, "draws windows"]
    target: Float[np.ndarray, "draws labs"]
    patient: Int[np.ndarray, " draws"]
    draw: Int[np.ndarray, " draws"]

    def take(self, rows: np.ndarray) -> "Draws":
        """Return some of them."""
        return Draws(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def cross_fit(draws: Draws, width: int, seed: int) -> tuple[WindowReader, Float[np.ndarray, "draws labs"]]:
    """Fit a reader on all `draws`, and read each with another one that has not seen its patient.

    A draw that stands there twice (a piece of either protocol may hold it) is learned from once.
    """
    fold = folds(draws.patient)
    once = np.zeros(len(fold), dtype=bool)
    once[np.unique(draws.draw, return_index=True)[1]] = True
    left_out = np.zeros(draws.target.shape)
    for k in tracked(range(FOLDS), "fitting the reader", "folds"):
        held = np.flatnonzero(fold == k)
        if len(held) and (fold != k).any():
            others = draws.take(np.flatnonzero(once & (fold != k)))
            left_out[held] = read(fit_reader(others, width, seed), draws.take(held))
    return fit_reader(draws.take(np.flatnonzero(once)), width, seed), left_out


def fit_reader(draws: Draws, width: int, seed: int) -> WindowReader:
    """Train a reader of squared errors; its estimates are on the scale of ``draws.target``."""
    known = np.isfinite(draws.target)
    mean = np.array([t[k].mean() if k.any() else 0.0 for t, k in zip(draws.target.T, known.T, strict=True)])
    spread = np.array([t[k].std() if k.any() else 0.0 for t, k in zip(draws.target.T, known.T, strict=True)])
    spread = np.where(spread > 0, spread, 1.0)
    target = torch.tensor(np.where(known, (draws.target - mean) / spread, 0.0), dtype=torch.float32)
    with torch.random.fork_rng(devices=[]):  # the generator is the callers' own
        torch.default_generator.manual_seed(seed_of(seed))
        reader = WindowReader(draws.windows.shape[2], target.shape[1], width, DROPOUT)
        _descend(reader, draws, target, torch.tensor(known, dtype=torch.float32))
    with torch.no_grad():
        scale = torch.tensor(spread, dtype=torch.float32)
        reader.heads.weight.mul_(scale[:, None])
        reader.heads.bias.mul_(scale).add_(torch.tensor(mean, dtype=torch.float32))
    return reader.eval()


def _descend(reader: WindowReader, draws: Draws, target: Tensor, weight: Tensor) -> None:
    windows, usable = torch.from_numpy(draws.windows), torch.from_numpy(draws.usable)
    batches = max(1, len(target) // BATCH_DRAWS)
    passes = max(1, min(EPOCHS, MOST_UPDATES // batches))
    optimizer = torch.optim.AdamW(parameter_groups(reader, WEIGHT_DECAY), lr=LEARNING_RATE)
    # The schedule counts the rate before the first update as a step.
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=passes * batches + 1)
    for _ in range(passes):
        for rows in torch.randperm(len(target)).tensor_split(batches):
            error = (reader(windows[rows], usable[rows]) - target[rows]).square() * weight[rows]
            optimizer.zero_grad()
            (error.sum() / weight[rows].sum().clamp(min=1.0)).backward()
            nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
            optimizer.step()
            rate.step()


def read(reader: WindowReader, draws: Draws) -> Float[np.ndarray, "draws labs"]:
    """Return what `reader` says of every draw."""
    parts = [np.zeros((0, draws.target.shape[1]))]
    for first in range(0, len(draws.target), ROWS_AT_ONCE):
        rows = slice(first, first + ROWS_AT_ONCE)
        with torch.inference_mode():
            output = reader(torch.from_numpy(draws.windows[rows]), torch.from_numpy(draws.usable[rows]))
        parts.append(output.double().numpy())
    return np.concatenate(parts)


def reading_of(reader: WindowReader, column: int, trust: float) -> tuple[np.ndarray, float]:
    """Return one lab's read-out and bias, each times `trust`."""
    weights = reader.heads.weight[column].detach().double().numpy()
    return trust * weights, trust * float(reader.heads.bias[column].detach())
