"""Fit an emulator on rendered windows: the network on most patients, the residual's law on the others."""

from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.encoders.base import Encoder
from pipeline.embedding.plan import key_template
from pipeline.emulation.model import Emulator, EmulatorKey
from pipeline.emulation.rendered import RenderedWindows
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.schema import WINDOW_US
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.windows.cutting import WindowConfig

TIME_CONSTANTS = np.geomspace(30, 3000, 21)
"""Among which that of what lasts is chosen, windows (15 min to 25 h)."""
LEAST_RESIDUAL_ROWS = 5
"""Residual windows for each dimension, below which their covariance cannot be told."""
_FLOOR = 1e-3


@dataclass(frozen=True, kw_only=True)
class EmulatorFitConfig:
    """How the network is fitted; our decision."""

    hidden: int = 96
    """Width of its two hidden layers."""
    epochs: int = 30
    """Passes over the windows."""
    batch: int = 512
    """Windows a step."""
    learning_rate: float = 3e-3
    """Highest, falling to 0 along a cosine."""
    weight_decay: float = 0.01
    """AdamW's."""
    residual_share: float = 0.25
    """Share of the patients that the network never sees; their residuals give the covariance."""
    seed: int = 0
    """Of division, weights and batches."""


def emulator_key(encoder: Encoder, window: WindowConfig) -> EmulatorKey:
    """Return what an emulator of `encoder` must carry."""
    known = key_template(encoder, window)
    shared = {f.name for f in fields(EmulatorKey)} - {"parameters_sha256"}
    return EmulatorKey(
        **{name: getattr(known, name) for name in shared}, parameters_sha256=CohortParameters.load().sha256
    )


def fit_emulator(
    windows: RenderedWindows, key: EmulatorKey, config: EmulatorFitConfig | None = None
) -> Emulator:
    """Fit network and residual.

    Raises
    ------
    ConfigError : too few windows for the embedding's width
    """
    config = config or EmulatorFitConfig()
    rng = np.random.default_rng(config.seed)
    patients = rng.permutation(np.unique(windows.patient))
    aside = np.isin(windows.patient, patients[: max(2, round(config.residual_share * len(patients)))])
    width = windows.embeddings.shape[1]
    if aside.sum() < LEAST_RESIDUAL_ROWS * width:
        raise ConfigError(
            f"{int(aside.sum())} windows are set aside for the residual of {width} dimensions; at least "
            f"{LEAST_RESIDUAL_ROWS * width} are needed: raise --patients"
        )
    trained = windows.of(~aside)
    mean, sd = trained.inputs.mean(axis=0), trained.inputs.std(axis=0) + 1e-6
    layers = _fit_network(trained, mean, sd, config)
    bare = Emulator(
        key=key, layers=layers, input_mean=mean, input_sd=sd, time_constant_steps=1.0,
        fresh=np.zeros((width, width), np.float32), lasting=np.zeros((1, width), np.float32),
        constant=np.zeros(1, np.float32),
        concentration=np.quantile(windows.concentration, np.linspace(0, 1, 101)).astype(np.float32),
    )  # fmt: skip
    held = windows.of(aside)
    residual = held.embeddings.astype(np.float32) - bare.mean(held.inputs)
    return _with_residual(bare, held, residual.astype(np.float64))


def _fit_network(
    windows: RenderedWindows, mean: np.ndarray, sd: np.ndarray, config: EmulatorFitConfig
) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Least squares in whitened dimensions: read-outs live on directions of little variance as well."""
    embeddings = windows.embeddings.astype(np.float64)
    centre = embeddings.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov((embeddings - centre).T))
    scale = np.sqrt(values + _FLOOR * values.mean())
    inputs = torch.from_numpy(((windows.inputs - mean) / sd).astype(np.float32))
    targets = torch.from_numpy(((embeddings - centre) @ (vectors / scale)).astype(np.float32))
    network = _trained(inputs, targets, config)
    linear = [module for module in network if isinstance(module, nn.Linear)]
    layers = [(m.weight.detach().numpy().T.copy(), m.bias.detach().numpy().copy()) for m in linear]
    back = (vectors * scale).T
    weight, bias = layers[-1]
    layers[-1] = ((weight @ back).astype(np.float32), (bias @ back + centre).astype(np.float32))
    return tuple(layers)


def _trained(inputs: Tensor, targets: Tensor, config: EmulatorFitConfig) -> nn.Sequential:
    draws = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        network = nn.Sequential(
            nn.Linear(inputs.shape[1], config.hidden), nn.SiLU(), nn.Linear(config.hidden, config.hidden),
            nn.SiLU(), nn.Linear(config.hidden, targets.shape[1]),
        )  # fmt: skip
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    steps = config.epochs * -(-len(inputs) // config.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(config.epochs):
        for rows in torch.randperm(len(inputs), generator=draws).split(config.batch):
            loss = (network(inputs[rows]) - targets[rows]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network


def _with_residual(
    bare: Emulator, windows: RenderedWindows, residual: Float[np.ndarray, "n width"]
) -> Emulator:
    """Divide the residual into what is new in each window and what lasts, by neighbours in time."""
    one, next_ = _pairs(windows, 1)
    total = residual.T @ residual / len(residual)
    across = residual[one].T @ residual[next_] / max(len(one), 1)
    values, vectors = np.linalg.eigh((across + across.T) / 2)
    kept = values > 1e-6 * max(float(values.max()), 0.0)
    if not kept.any():
        kept, values = np.arange(len(values)) == len(values) - 1, np.maximum(values, 0.0)
    directions, sizes = vectors[:, kept], values[kept]
    lasting = (directions * np.sqrt(sizes)).T
    rest, along = np.linalg.eigh(total - lasting.T @ lasting)
    scores = residual @ directions / np.sqrt(np.maximum(sizes, 1e-12))
    constant, time_constant = _decay(windows, scores)
    return Emulator(
        **{
            name: getattr(bare, name) for name in ("key", "layers", "input_mean", "input_sd", "concentration")
        },
        fresh=(along * np.sqrt(np.maximum(rest, 0.0))).T.astype(np.float32),
        lasting=lasting.astype(np.float32),
        constant=constant.astype(np.float32),
        time_constant_steps=time_constant,
    )


def _decay(
    windows: RenderedWindows, scores: Float[np.ndarray, "n kept"]
) -> tuple[Float[np.ndarray, " kept"], float]:
    """Return the constant share along each direction, and the time constant of the rest, by least squares."""
    step = windows.start_us // WINDOW_US
    gaps, products = [], []
    for record in np.unique(windows.record):
        rows = np.flatnonzero(windows.record == record)
        _, first = np.unique(step[rows] // 10, return_index=True)  # one window of each burst
        chosen = rows[first]
        i, j = np.triu_indices(len(chosen), 1)
        gaps.append(step[chosen[j]] - step[chosen[i]])
        products.append(scores[chosen[i]] * scores[chosen[j]])
    gap, product = np.concatenate(gaps), np.concatenate(products)
    if not len(gap):
        return np.ones(scores.shape[1]), float(TIME_CONSTANTS[-1])
    best: tuple[float, np.ndarray, float] | None = None
    for time_constant in TIME_CONSTANTS:
        fading = 1 - np.exp(-gap / time_constant)  # product = constant x fading + (1 - fading)
        constant = np.clip((fading @ (product - (1 - fading)[:, None])) / (fading @ fading), 0, 1)
        error = float(np.square(product - (1 - fading)[:, None] - fading[:, None] * constant).sum())
        if best is None or error < best[0]:
            best = (error, constant, float(time_constant))
    assert best is not None
    return best[1], best[2]


def _pairs(windows: RenderedWindows, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of windows that follow one another by `lag` steps in one record."""
    step = windows.start_us // WINDOW_US
    one = np.arange(len(step) - lag)
    follows = (windows.record[one] == windows.record[one + lag]) & (step[one + lag] - step[one] == lag)
    return one[follows], one[follows] + lag
