"""Patients whose draws and readings follow the filter's own law: tests and benchmarks know the right answer."""

import numpy as np
import torch

from models.assimilation.events import HOUR_US, Row
from models.assimilation.parameters import NAMES, FilterParameters

TYPICAL = FilterParameters.of(
    drift_hours=20.0, offset_drift_hours=3.0, drift_variance=0.5, level_variance=0.35, offset_variance=0.15,
    offset_drift_variance=0.1, draw_noise=0.08, reading_noise=0.15, gain=0.6, draw_mean=0.1, reading_mean=-0.1,
)  # fmt: skip
"""A lab of which the waveform says about as much as a day-old result."""


def random_parameters(rng: np.random.Generator) -> FilterParameters:
    """Return one row of numbers, positive ones over a factor of thirty."""
    positive = {name: float(np.exp(rng.uniform(-2.0, 1.5))) for name in NAMES[:8]}
    return FilterParameters.of(
        **positive, gain=rng.uniform(0, 1.5), draw_mean=rng.normal(), reading_mean=rng.normal()
    )


def planted_row(
    rng: np.random.Generator, parameters: FilterParameters, hours: float, draws: int, minutes: int = 10
) -> Row:
    """Return a patient of some hours: a reading every `minutes`, and `draws` at the ends of some of them."""
    p = {name: float(getattr(parameters, name)[0]) for name in NAMES}
    n = int(hours * 60 / minutes)
    end_us = np.arange(1, n + 1, dtype=np.int64) * minutes * HOUR_US // 60
    step = minutes / 60
    lab = (
        _wander(rng, n, step, p["drift_hours"], p["drift_variance"])
        + rng.normal() * p["level_variance"] ** 0.5
    )
    offset = _wander(rng, n, step, p["offset_drift_hours"], p["offset_drift_variance"])
    offset += rng.normal() * p["offset_variance"] ** 0.5
    drawn = np.sort(rng.choice(n, min(draws, n), replace=False))
    y = p["draw_mean"] + lab[drawn] + p["draw_noise"] ** 0.5 * rng.normal(size=len(drawn))
    w = p["reading_mean"] + p["gain"] * lab + offset + p["reading_noise"] ** 0.5 * rng.normal(size=n)
    return Row.of((end_us[drawn], y), (end_us, w))


def repeated(parameters: FilterParameters, rows: int) -> FilterParameters:
    """Return one row of numbers for each of some rows."""
    return parameters.take(torch.zeros(rows, dtype=torch.int64))


def _wander(rng: np.random.Generator, n: int, step: float, hours: float, variance: float) -> np.ndarray:
    """Return a stationary Ornstein-Uhlenbeck process at `n` times `step` hours apart."""
    kept = np.exp(-step / hours)
    noise = rng.normal(size=n) * np.sqrt(variance * (1 - kept**2))
    value = np.empty(n)
    last = rng.normal() * np.sqrt(variance)
    for i in range(n):
        last = value[i] = kept * last + noise[i]
    return value
