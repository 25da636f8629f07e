"""The compiled kernel, called through ctypes; built at first use and kept by source hash."""

import ctypes
import functools
from pathlib import Path

import torch
from torch import Tensor

from kernels.selective_scan.cpu.build import LEVELS, BuildError, best_level, built

FLAGS = ("-std=gnu++17", "-O3", "-fPIC", "-shared", "-ffp-contract=off", "-fno-math-errno", "-w")
"""No contraction: the bits are those of one operation after the other, on every level."""
_ARGUMENTS = (
    ctypes.c_void_p, *(ctypes.c_int64,) * 5, ctypes.c_float, ctypes.c_void_p, ctypes.c_void_p,
)  # fmt: skip


def available(x: Tensor) -> bool:
    """Return whether `mean_and_spread` takes a tensor here.

    That is: float32 on a CPU, no gradient, columns side by side, and a compiler.
    """
    return _fits(x) and isinstance(_library(best_level()), ctypes.CDLL)


def mean_and_spread(x: Tensor, least_variance: float) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation, each (n, width), of a tensor (n, positions, width) over its positions.

    Parameters
    ----------
    x : of which `available` is true
    least_variance : smaller variances count as this

    Raises
    ------
    ValueError : it is not of that kind
    BuildError : see `library`

    Notes
    -----
    Between two layers of an encoder Python runs out of a cold cache: what stands here is all that is needed.
    """
    if not _fits(x):
        raise ValueError(
            "mean and spread over positions are compiled for float32 tensors without gradients on a CPU"
        )
    rows, positions, width = x.shape
    mean, spread = x.new_empty(2, rows, width)
    row_stride, position_stride, _ = x.stride()
    library().mean_and_spread(
        x.data_ptr(), rows, positions, width, row_stride, position_stride, least_variance, mean.data_ptr(),
        spread.data_ptr(),
    )  # fmt: skip
    return mean, spread


def _fits(x: Tensor) -> bool:
    plain = x.is_cpu and x.dtype == torch.float32 and x.ndim == 3 and x.stride(2) == 1
    return plain and not (x.requires_grad and torch.is_grad_enabled())


def library() -> ctypes.CDLL:
    """Return the kernel built for the best that this CPU has.

    Raises
    ------
    BuildError : there is no compiler, or it fails; said again, without a second try, by every later call
    """
    found = _library(best_level())
    if isinstance(found, str):
        raise BuildError(found)
    return found


@functools.cache
def _library(level: str) -> ctypes.CDLL | str:
    source = Path(__file__).with_name("kernels.cpp")
    try:
        library = ctypes.CDLL(str(built("position_spread", level, [source], (*FLAGS, *LEVELS[level]))))
    except (BuildError, OSError) as error:
        return str(error)
    library.mean_and_spread.argtypes = _ARGUMENTS
    library.mean_and_spread.restype = None
    return library
