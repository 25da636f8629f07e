"""Networks that read the waveform, trained by gradients on measured draws alone, each without a fold of the patients.

The loss is the squared error, on the filter's scale, of the readings after the last block before each draw, under the
covariance that a line's errors have within one patient (``patient_errors``): what is the patient's own, and what a
network could learn by heart, counts for little, and what moves within a patient in full. Steps without a draw have no
target; they bring the state there. What a network says of the patients whom it left out is what the filter is fitted
on, and the mean of all networks reads new patients.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor, nn

from models.assimilation.reading_network import ReadingNetwork, ReadingNetworkConfig, gaps, read_alone
from models.regressor.losses import parameter_groups
from pipeline.training.hardware import seeded
from pipeline.training.kept_networks import KeptNetworks
from pipeline.training.patient_errors import ErrorCovariance, whitened
from pipeline.training.reading_network_config import ReadingNetworkShape
from pipeline.training.schedule import seed_of
from pipeline.training.ten_minute_means import BlockMeans

logger = logging.getLogger(__name__)

CLIP = 1.0
ErrorsOf = Callable[[int], Sequence[ErrorCovariance | None]]
"""Fold -> of each lab, how errors at one patient's draws hang together, told by the other folds; None: not known."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One training patient's blocks, and what was drawn after them.

    Attributes
    ----------
    blocks : features and ends
    step, lab : of each draw, the block before it and the lab's column; lab by lab
    hours : when each was drawn, from any origin
    target : of each draw, on the filter's scale
    fold : of the patient
    """

    blocks: BlockMeans
    step: Int[np.ndarray, " draws"]
    lab: Int[np.ndarray, " draws"]
    hours: Float[np.ndarray, " draws"]
    target: Float[np.ndarray, " draws"]
    fold: int


@dataclass(frozen=True, kw_only=True)
class _Tensors:
    """A recording as the network takes it; `white` makes each lab's errors independent and alike, lab by lab."""

    features: Float[Tensor, "steps features"]
    gap: Float[Tensor, " steps"]
    step: Int[Tensor, " draws"]
    lab: Int[Tensor, " draws"]
    target: Float[Tensor, " draws"]
    white: tuple[Float[Tensor, "_ _"], ...]


def cross_fit_networks(
    recordings: Sequence[Recording],
    shape: ReadingNetworkShape,
    n_labs: int,
    seed: int,
    device: torch.device,
    kept: KeptNetworks | None = None,
    errors: ErrorsOf | None = None,
) -> tuple[list[ReadingNetwork], list[Float[np.ndarray, "_ labs"]]]:
    """Train a network without each fold, and read every recording by the one that has not seen it.

    Parameters
    ----------
    n_labs : columns of a reading
    kept : where each is kept once it is trained; None: nowhere
    errors : the covariance of each fold's loss; None: errors are independent and alike
    """
    networks = []
    for fold in range(shape.folds):

        def train(network: ReadingNetwork, fold: int = fold) -> None:
            logger.info("reading network %d of %d", fold + 1, shape.folds)
            others = [recording for recording in recordings if recording.fold != fold]
            told = [None] * n_labs if errors is None else errors(fold)
            fit_network(network, others, shape, seed_of(seed, fold), told)

        with seeded(seed_of(seed, fold), device):
            config = network_config(shape, recordings[0].blocks.mean.shape[1])
            network = ReadingNetwork(config, n_labs).to(device)
        if kept is None:
            train(network)
        else:
            kept.filled(fold, network, train)
        networks.append(network.eval().requires_grad_(False))
    read = [read_alone(networks[r.fold], r.blocks.mean, r.blocks.end_us) for r in recordings]
    return networks, read


def network_config(shape: ReadingNetworkShape, features: int) -> ReadingNetworkConfig:
    """Return the sizes of the networks of `shape`."""
    return ReadingNetworkConfig(
        features=features, d_model=shape.d_model, n_blocks=shape.n_blocks, d_state=shape.d_state,
        members=shape.folds, dropout=shape.dropout,
    )  # fmt: skip


def fit_network(
    network: ReadingNetwork,
    recordings: Sequence[Recording],
    shape: ReadingNetworkShape,
    seed: int,
    errors: Sequence[ErrorCovariance | None],
) -> None:
    """Train one network, on its device; the same weights, recordings and seed give the same bits on one machine."""
    device = network.head.weight.device
    drawn = [_tensors(recording, errors, device) for recording in recordings if len(recording.step)]
    if drawn:
        with seeded(seed, device):
            _descend(network.train(), drawn, shape)


def _descend(network: ReadingNetwork, drawn: list[_Tensors], shape: ReadingNetworkShape) -> None:
    batches = -(-len(drawn) // shape.batch_recordings)
    passes = max(1, min(shape.epochs, shape.most_updates // batches))
    rate = shape.learning_rate
    optimizer = torch.optim.AdamW(parameter_groups(network, shape.weight_decay), lr=rate)
    # The schedule counts the rate before the first update as a step.
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=passes * batches + 1)
    for _ in range(passes):
        for rows in torch.randperm(len(drawn)).tensor_split(batches):
            loss = _loss(network, [drawn[row] for row in rows.tolist()])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimizer.step()
            schedule.step()


def _loss(network: ReadingNetwork, batch: Sequence[_Tensors]) -> Tensor:
    """Return the mean squared whitened error of a batch's draws."""
    lengths = torch.tensor([0, *(len(one.gap) for one in batch)])
    bounds = lengths.cumsum(0)
    step = torch.cat([one.step + int(first) for one, first in zip(batch, bounds, strict=False)])
    output, _ = network(
        torch.cat([one.features for one in batch]),
        torch.cat([one.gap for one in batch]),
        bounds.to(step.device),
    )
    said = output[step, torch.cat([one.lab for one in batch])]
    error = said - torch.cat([one.target for one in batch])
    white = [square for one in batch for square in one.white]
    parts = zip(white, error.split([len(square) for square in white]), strict=True)
    return torch.cat([square @ part for square, part in parts]).square().mean()


def _tensors(
    recording: Recording, errors: Sequence[ErrorCovariance | None], device: torch.device
) -> _Tensors:
    stop = int(recording.step.max()) + 1  # nothing after the last draw has a target
    features: Float32[np.ndarray, "steps features"] = recording.blocks.mean[:stop].astype(np.float32)
    return _Tensors(
        features=torch.from_numpy(features).to(device),
        gap=torch.from_numpy(gaps(recording.blocks.end_us[:stop]).astype(np.float32)).to(device),
        step=torch.from_numpy(recording.step).to(device),
        lab=torch.from_numpy(recording.lab).to(device),
        target=torch.from_numpy(recording.target.astype(np.float32)).to(device),
        white=tuple(torch.from_numpy(square).to(device) for square in _whitening(recording, errors)),
    )


def _whitening(
    recording: Recording, errors: Sequence[ErrorCovariance | None]
) -> list[Float32[np.ndarray, "_ _"]]:
    """Return, of each lab that was drawn, what its errors are multiplied with to be independent and alike."""
    made = []
    for rows in np.split(np.arange(len(recording.lab)), np.flatnonzero(np.diff(recording.lab)) + 1):
        covariance = errors[int(recording.lab[rows[0]])]
        square = np.eye(len(rows))
        if covariance is not None:
            square = whitened(covariance, square, recording.hours[rows], np.zeros(len(rows), np.int64))
        made.append(square.astype(np.float32))
    return made
