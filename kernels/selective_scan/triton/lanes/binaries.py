"""Kernels as they are launched: compiled once for each kind of call, then straight into the driver."""

# pyright: reportAttributeAccessIssue=false
import functools
from typing import Any

import torch
from torch import Tensor
from triton.runtime import driver

from .kind import Kind

Argument = Tensor | tuple[Tensor, int] | int | None
"""A tensor, the part of a float32 tensor from an element on, a number, or None for an absent operand."""


class Binary:
    """A kernel with its compile-time constants, for tensors of one dtype on one device.

    Triton's way to a compiled kernel takes some 25 microseconds in every call, for what a plan knows already: the
    binary depends on `constants`, the dtype and the absent operands (see `entry.kernel`). So the first call of each
    pattern of types (what is absent has None's) goes that way, and those after it straight to the launcher, with
    addresses for tensors.
    """

    def __init__(self, function: Any, device: torch.device, constants: tuple[Any, ...]) -> None:
        self.function, self.device, self.constants = function, device.index or 0, constants
        self.warps = constants[-1].warps
        self.compiled: dict[tuple[type, ...], Any] = {}

    def __call__(self, programs: int, *arguments: Argument) -> None:
        """Launch `programs` programs."""
        compiled = self.compiled.get(tuple(map(type, arguments)))
        if compiled is None:
            self._first(programs, arguments)
            return
        addresses = [
            a.data_ptr() if type(a) is Tensor
            else a if a is None or type(a) is int
            else a[0].data_ptr() + 4 * a[1] if type(a) is tuple
            else a.data_ptr()  # a parameter
            for a in arguments
        ]  # fmt: skip
        stream = driver.active.get_current_stream(self.device)
        compiled.run(
            programs, 1, 1, stream, compiled.function, compiled.packed_metadata, None, None, None,
            *addresses, *self.constants,
        )  # fmt: skip

    def _first(self, programs: int, arguments: tuple[Argument, ...]) -> None:
        tensors = [a[0][a[1] :] if type(a) is tuple else a for a in arguments]
        compiled = self.function[(programs,)](*tensors, *self.constants, num_warps=self.warps)
        if compiled is not None:  # the interpreter compiles nothing
            self.compiled[tuple(map(type, arguments))] = compiled


@functools.lru_cache(maxsize=1024)
def binary(function: Any, dtype: torch.dtype, device: torch.device, kind: Kind, *constants: Any) -> Binary:
    """Return the one binary of a kernel with these constants (`kind` is the last of a kernel's)."""
    return Binary(function, device, (*constants, kind))
