"""Measure the tilings on this machine's GPU and keep the fastest: ``python -m kernels.selective_scan``."""

import statistics
import time

import torch

from ..operands import ScanInputs, state_dtype
from .backend import backward, forward
from .tiling import Tiling, candidates, keep


def tune(
    device: torch.device, dtype: torch.dtype, *, state: int = 64, channels: int = 512, length: int = 20160,
    rounds: int = 9,
) -> dict[Tiling, float]:  # fmt: skip
    """Time forward and backward with every candidate, keep the fastest for this card, and return all times.

    Parameters
    ----------
    state, channels, length : sizes of the scan that is timed
    rounds : interleaved rounds, of which the median counts, after one that compiles

    Returns
    -------
    dict
        Median seconds of every candidate.
    """
    x = _operands(device, dtype, state, channels, length)
    times: dict[Tiling, list[float]] = {choice: [] for choice in candidates(state)}
    for i in range(rounds + 1):
        for choice, measured in times.items():
            seconds = _seconds(x, choice)
            if i:
                measured.append(seconds)
    medians = {choice: statistics.median(measured) for choice, measured in times.items()}
    keep(min(medians, key=medians.__getitem__), state, dtype, device)
    return medians


def _operands(device: torch.device, dtype: torch.dtype, state: int, channels: int, length: int) -> ScanInputs:
    wide = {"dtype": state_dtype(dtype), "device": device}

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=dtype, device=device)

    return ScanInputs(
        u=normal(1, length, channels).mT, delta=normal(1, length, channels).mT - 4.0,
        A=-torch.ones(channels, state, **wide), B=normal(1, length, state).mT, C=normal(1, length, state).mT,
        D=torch.ones(channels, **wide), z=normal(1, length, channels).mT, delta_bias=torch.zeros(channels, **wide),
        initial_state=torch.zeros(1, channels, state, **wide), step_mask=None, cu_seqlens=None,
        delta_softplus=True,
    )  # fmt: skip


def _seconds(x: ScanInputs, choice: Tiling) -> float:
    _wait(x.u.device)
    start = time.perf_counter()
    y = torch.empty_like(x.u)
    last_state, entries = forward(x, y, True, choice)
    assert entries is not None
    backward(x, entries, y, last_state, choice)
    _wait(x.u.device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
