"""Backend `cpu`: the compiled kernel, called through ctypes; built at first use and kept by source hash."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from kernels.selective_scan.cpu.build import (
    COMPILERS,
    LEVELS,
    REMEDY,
    BuildError,
    best_level,
    cache_directory,
)

from .operands import Operands

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
    """Mirror of the struct of the same name in kalman_scan.cpp."""

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
    mean_bar = torch.cat([after_mean, after_mean.new_zeros(1, *after_mean.shape[1:])])
    covariance_bar = torch.cat([after_covariance, torch.zeros_like(x.start)[None]])
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
    source = Path(__file__).with_name("kalman_scan.cpp")
    flags = (*FLAGS, *LEVELS[level])
    digest = hashlib.sha256(
        "\0".join((platform.machine(), *flags)).encode() + source.read_bytes()
    ).hexdigest()
    name = f"kalman_scan-{level}-{digest[:20]}.so"
    try:
        folder = cache_directory()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (folder / name).exists():
            return folder / name
        handle, made = tempfile.mkstemp(dir=folder, suffix=".so")
    except (OSError, RuntimeError):  # no home, or a read-only one: build for this process alone
        folder = Path(tempfile.mkdtemp())
        handle, made = tempfile.mkstemp(dir=folder, suffix=".so")
    os.close(handle)
    try:
        _compile(source, flags, made)
        os.replace(made, folder / name)  # atomic: a second process sees a whole library or none
    finally:
        Path(made).unlink(missing_ok=True)
    return folder / name


def _compile(source: Path, flags: tuple[str, ...], output: str) -> None:
    compiler = os.environ.get("CXX") or next(filter(shutil.which, COMPILERS), None)
    if compiler is None or shutil.which(compiler) is None:
        raise BuildError(f"no C++ compiler was found; {REMEDY}")
    done = subprocess.run(
        [compiler, *flags, str(source), "-o", output], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BuildError(f"{compiler} failed to build the kernel; {REMEDY}. It said: {done.stderr[-2000:]}")
