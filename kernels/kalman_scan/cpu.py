"""Backend `cpu`: the compiled kernel, called through ctypes; built at first use and kept by source hash."""

import ctypes
import functools
from pathlib import Path

import torch
from torch import Tensor

from kernels.selective_scan.cpu.build import LEVELS, BuildError, best_level, built

from .operands import Operands, adjoint_states

FLAGS = ("-std=gnu++17", "-O3", "-fPIC", "-shared", "-pthread", "-ffp-contract=off", "-w")
"""No contraction: the bits are those of `step.py`."""
ROWS_PER_THREAD = 64
"""Rows below which one more thread costs more than it saves."""
_DOUBLES = (
    "kept", "gained", "h", "noise", "target", "start", "seen", "least",
)  # fmt: skip
_RESULTS = (
    "means", "covariances", "before_mean_bar", "before_covariance_bar", "mean_bar", "covariance_bar", "kept_bar",
    "gained_bar", "h_bar", "noise_bar", "target_bar",
)  # fmt: skip


class Arguments(ctypes.Structure):
    """Mirror of the struct of the same name in kernels.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("steps", "rows", "threads")),
        *((name, ctypes.c_void_p) for name in (*_DOUBLES, "follows", *_RESULTS)),
    )


def forward(x: Operands) -> tuple[Tensor, Tensor]:
    """See ``torch_loop.forward``."""
    steps, _, rows = x.kept.shape
    means, covariances = x.kept.new_empty(2, steps, 4, rows), x.kept.new_empty(2, steps, 4, 4, rows)
    _call("kalman_forward", x, means=means, covariances=covariances)
    return means, covariances


def backward(
    x: Operands, means: Tensor, covariances: Tensor, outer: tuple[Tensor, Tensor, Tensor, Tensor]
) -> tuple[Tensor, ...]:
    """See ``torch_loop.backward``."""
    before_mean, before_covariance, after_mean, after_covariance = outer
    mean_bar, covariance_bar = adjoint_states(x, after_mean, after_covariance)
    made = {
        f"{name}_bar": torch.empty_like(getattr(x, name))
        for name in ("kept", "gained", "h", "noise", "target")
    }
    _call(
        "kalman_backward", x, means=means, covariances=covariances, mean_bar=mean_bar, covariance_bar=covariance_bar,
        before_mean_bar=before_mean.contiguous(), before_covariance_bar=before_covariance.contiguous(), **made,
    )  # fmt: skip
    return (*made.values(), covariance_bar[-1])


def _call(function: str, x: Operands, **tensors: Tensor) -> None:
    steps, _, rows = x.kept.shape
    given = {name: getattr(x, name) for name in (*_DOUBLES, "follows")} | tensors
    pointers = {name: None if tensor is None else tensor.data_ptr() for name, tensor in given.items()}
    threads = max(1, min(torch.get_num_threads(), rows // ROWS_PER_THREAD))
    getattr(library(), function)(ctypes.byref(Arguments(steps=steps, rows=rows, threads=threads, **pointers)))


@functools.cache
def _library(level: str) -> ctypes.CDLL | str:
    try:
        return ctypes.CDLL(str(_built(level)))
    except (BuildError, OSError) as error:
        return str(error)


def library() -> ctypes.CDLL:
    """Return the kernel built for the best that this CPU has.

    Raises
    ------
    BuildError
        There is no compiler, or it fails; said again, without a second try, by every later call.
    """
    found = _library(best_level())
    if isinstance(found, str):
        raise BuildError(found)
    return found


def _built(level: str) -> Path:
    return built("kalman_scan", level, [Path(__file__).with_name("kernels.cpp")], (*FLAGS, *LEVELS[level]))
