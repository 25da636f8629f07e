"""The scan as one differentiable function, by the compiled backend where there is one."""

import logging
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor

from kernels.selective_scan import refuse_second_derivatives

from . import cpu, torch_loop
from .operands import Operands

logger = logging.getLogger(__name__)
Backend = Literal["auto", "cpu", "torch"]
REMEDY = "the filter's scan gives first derivatives alone"
_told: set[str] = set()


def kalman_scan(
    kept: Tensor,
    gained: Tensor,
    h: Tensor,
    noise: Tensor,
    target: Tensor,
    start: Tensor,
    seen: Tensor,
    least: Tensor | None = None,
    follows: Tensor | None = None,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Filter every row over its steps.

    Parameters
    ----------
    kept, gained, h, noise, target, start, seen, least, follows : see ``Operands``; the first six get gradients
    backend : "cpu" is compiled at first use, "torch" runs anywhere; "auto" takes the first where it can

    Returns
    -------
    Mean (steps, 4, rows) and covariance (steps, 4, 4, rows) before each value is seen, and after it. Both backends
    give the same bits.
    """
    tensors = (kept, gained, h, noise, target, start, seen, least, follows)
    return _KalmanScan.apply(*(None if t is None else t.contiguous() for t in tensors), backend)


class _KalmanScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        *tensors, name = inputs
        x = Operands(*tensors)
        _check(x)
        ctx.backend = _resolved(name, x)
        means, covariances = ctx.backend.forward(x)
        ctx.save_for_backward(*x, means, covariances)
        return means[0], covariances[0], means[1], covariances[1]

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        *x, means, covariances = ctx.saved_tensors
        with torch.no_grad():
            given = ctx.backend.backward(Operands(*x), means, covariances, outer)
        if torch.is_grad_enabled():  # somebody keeps the graph, and may differentiate again
            given = refuse_second_derivatives(given, (*outer, *x), REMEDY)
        return (*given, None, None, None, None)


def _check(x: Operands) -> None:
    """Refuse what the compiled kernel would read beyond its end."""
    steps, rows = x.kept.shape[0], x.kept.shape[-1]
    shapes = {
        "kept": (steps, 4, rows), "gained": (steps, 2, rows), "h": (steps, 4, rows), "noise": (steps, rows),
        "target": (steps, rows), "start": (4, 4, rows), "seen": (steps, rows), "least": (steps, 2, rows),
        "follows": (steps, rows),
    }  # fmt: skip
    for name, shape in shapes.items():
        tensor: Tensor | None = getattr(x, name)
        if tensor is None:
            continue
        dtype = torch.int64 if name == "follows" else torch.float64
        if tuple(tensor.shape) != shape or tensor.dtype != dtype or tensor.device != x.kept.device:
            raise ValueError(
                f"{name} is {tensor.dtype} {tuple(tensor.shape)} on {tensor.device}; it must be {dtype} {shape} on "
                f"{x.kept.device}, as kept is."
            )
    if x.follows is not None and x.follows.numel():
        before = torch.arange(steps, device=x.follows.device)[:, None]
        if bool(((x.follows < -1) | (x.follows >= before)).any()):
            raise ValueError("follows names a step that does not come earlier; -1 is the beginning.")


def _resolved(name: Backend, x: Operands) -> ModuleType:
    if name == "torch" or (name == "auto" and x.kept.device.type != "cpu"):
        return torch_loop
    try:
        cpu.library()
    except cpu.BuildError as error:
        if name == "cpu":
            raise
        if str(error) not in _told:
            _told.add(str(error))
            logger.warning(
                "the Kalman filter runs several times slower without its compiled kernel: %s", error
            )
        return torch_loop
    return cpu
