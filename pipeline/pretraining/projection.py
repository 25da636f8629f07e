"""Fit the fixed projection that brings a wide read-out down to what a store should hold.

A plain principal component analysis keeps what varies most: rate, noise, the depth of breath. Here the first
directions are those in which the read-out tells the pulse's shape, by ridge regression on planted windows whose shape
is known, and its squares and products; the others are the principal components of what these leave, of real and
planted windows alike. All are turned into each other at the end, so that each number carries an even share: a reader
that standardises its inputs keeps the measure in which what is told weighs more than what is left.

Our decision, chosen on planted cohorts of seeds 7 and 8 and half of BIDMC's patients: docs/encoder.md.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from models.encoders.ppg_gpt import PPGGPT
from models.encoders.projection import Projection
from pipeline.emulation.rendered import BurstPlan, render_windows
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.provenance import canonical_json, to_plain
from pipeline.pretraining.data import SYNTHETIC_LICENCE, SYNTHETIC_SEED, Corpus
from pipeline.sources.base import WaveformSource
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.windows.cutting import WindowConfig

LEAST_WINDOWS = 1000
"""Fewer real or planted windows say too little of a read-out."""


@dataclass(frozen=True, kw_only=True)
class ProjectionConfig:
    """How a projection is fitted."""

    width: int = 256
    """Numbers a window after it."""
    told: int = 32
    """Directions that tell the shape, at most half of `width`."""
    penalty: float = 30.0
    """Of the ridge regression, on standardised read-outs."""
    rest: float = 0.3
    """Measure of the widest direction of the rest, beside that of the best told."""
    real_share: float = 0.5
    """Weight of real windows in means, deviations and components, where there are any."""
    real_windows: int = 20_000
    """Most real windows."""
    planted: BurstPlan = field(
        default_factory=lambda: BurstPlan(patients=500, bursts=6, burst_windows=2, seed=SYNTHETIC_SEED)
    )
    """Planted patients and their windows: those of pretraining's seed, on none of which an encoder is judged."""
    seed: int = 0
    """Of the choice of real windows, and of the last turn."""

    def __post_init__(self) -> None:
        if self.width < 2:
            raise ConfigError(f"width = {self.width} must be at least 2")


def fit_projection(
    encoder: PPGGPT, source: WaveformSource | None, config: ProjectionConfig
) -> tuple[Projection, dict[str, int]]:
    """Fit the projection of an encoder's read-out.

    Parameters
    ----------
    source : real PPG, none of it of the probe's patients; None: planted windows alone

    Returns
    -------
    The projection, and how many windows of which kind it was fitted on

    Raises
    ------
    ConfigError : the encoder is projected already, its read-out is no wider than `width`, or there are too few windows
    """
    require_wider(encoder, config.width)
    real = np.empty((0, encoder.width)) if source is None else _real_readouts(encoder, source, config)
    planted = render_windows(encoder, config.planted)
    shapes = planted.inputs[:, : len(CohortParameters.load().morphology)].astype(np.float64)
    counts = {"planted windows": len(planted)} | ({"real windows": len(real)} if source else {})
    for name, count in counts.items():
        if count < LEAST_WINDOWS:
            raise ConfigError(f"{count} {name} are too few to fit a projection: at least {LEAST_WINDOWS}")
    centre, directions = solve(real, planted.embeddings.astype(np.float64), shapes, config)
    licences = [SYNTHETIC_LICENCE, *([source.licence] if source else [])]
    about = {
        "weights_hash": encoder.weights_hash,
        "readout": encoder.readout,
        "licence": "; ".join(licences),
        "fitted_on": canonical_json(_fitted_on(encoder, source, config, counts)),
    }
    fixed = (torch.from_numpy(centre.astype(np.float32)), torch.from_numpy(directions.astype(np.float32)))
    return Projection(*fixed, about), counts


def require_wider(encoder: PPGGPT, width: int) -> None:
    """Refuse what cannot be projected to `width`, before any work."""
    if encoder.projection is not None:
        raise ConfigError(
            f"{encoder.name} is projected already: name the encoder without +to, and give --width"
        )
    if not width < encoder.width:
        raise ConfigError(
            f"width = {width} must be below the {encoder.width} numbers of {encoder.name}: take fewer, or a wider "
            "read-out"
        )


def solve(
    real: Float64[np.ndarray, "n inputs"],
    planted: Float64[np.ndarray, "m inputs"],
    shapes: Float64[np.ndarray, "m shapes"],
    config: ProjectionConfig,
) -> tuple[Float64[np.ndarray, " inputs"], Float64[np.ndarray, "inputs width"]]:
    """Return centre and directions from read-outs.

    Parameters
    ----------
    real, planted : read-outs of windows; there may be no real one
    shapes : of the planted windows, each on the scale of its bounds

    Returns
    -------
    What is subtracted, and what the rest is multiplied by; over all windows the numbers that come out have mean 0 and
    a mean variance of 1
    """
    share = config.real_share if len(real) else 0.0
    weights = [np.full(len(x), part / max(len(x), 1)) for x, part in ((real, share), (planted, 1 - share))]
    x, weight = np.concatenate([real, planted]), np.concatenate(weights)
    centre = weight @ x
    z = x - centre
    deviation = np.sqrt(weight @ np.square(z))
    inverse = np.zeros_like(deviation)  # what never changes says nothing
    np.divide(1, deviation, out=inverse, where=deviation > 1e-6 * deviation.max())
    z *= inverse
    spread = z.T @ (weight[:, None] * z)

    told, strength = _told(z[len(real) :], shapes, config.penalty, min(config.told, config.width // 2))
    told /= np.sqrt(np.einsum("ik,ij,jk->k", told, spread, told))
    left = np.eye(len(spread)) - told @ np.linalg.solve(told.T @ spread @ told, told.T @ spread)
    variance, components = np.linalg.eigh(left.T @ spread @ left)
    widest = slice(None, -(config.width - told.shape[1]) - 1, -1)
    scale = config.rest / np.sqrt(variance[-1])
    directions = np.concatenate([told * np.sqrt(strength), left @ components[:, widest] * scale], axis=1)
    directions /= np.sqrt(np.einsum("ik,ij,jk->", directions, spread, directions) / config.width)
    turn = np.linalg.qr(np.random.default_rng(config.seed).standard_normal((config.width,) * 2))[0]
    return centre, inverse[:, None] * (directions @ turn)


def _told(
    z: np.ndarray, shapes: np.ndarray, penalty: float, number: int
) -> tuple[Float64[np.ndarray, "inputs told"], Float64[np.ndarray, " told"]]:
    """Return directions in which the read-out tells the shape, best first, and how strongly beside the first one.

    Not scikit-learn's `Ridge`: its weights agree to rounding, and the shipped projections keep their bits.
    """
    pairs = np.triu_indices(shapes.shape[1])
    targets = np.concatenate([shapes, shapes[:, pairs[0]] * shapes[:, pairs[1]]], axis=1)
    targets = (targets - targets.mean(axis=0)) / targets.std(axis=0)
    z = z - z.mean(axis=0)
    weights = np.linalg.solve(z.T @ z + penalty * np.eye(z.shape[1]), z.T @ targets)
    _, strength, turned = np.linalg.svd(z @ weights, full_matrices=False)
    number = min(number, int((strength > 1e-6 * strength[0]).sum()))
    return weights @ turned[:number].T, strength[:number] / strength[0]


def _real_readouts(
    encoder: PPGGPT, source: WaveformSource, config: ProjectionConfig
) -> Float64[np.ndarray, "n inputs"]:
    corpus = Corpus(name=source.name, source=source, records=source.catalog().records, share=1.0)
    windows = corpus.epoch(0, config.seed, config.real_windows, WindowConfig(), Counter())
    return encoder.embed(torch.from_numpy(windows)).double().cpu().numpy()


def _fitted_on(
    encoder: PPGGPT, source: WaveformSource | None, config: ProjectionConfig, counts: dict[str, int]
) -> dict[str, Any]:
    """Return what a reader of the file has to know; no path."""
    return {
        "encoder": encoder.name,
        "real": None if source is None else source.name,
        "planted_parameters": CohortParameters.load().sha256,
        "recipe": to_plain(config),
        "date": datetime.now(UTC).date().isoformat(),
        **counts,
    }
