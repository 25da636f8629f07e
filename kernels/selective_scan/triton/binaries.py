"""Kernels as they are launched: compiled once for each kind of call, then straight into the driver."""

# pyright: reportAttributeAccessIssue=false
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from triton.runtime import driver

Pointer = Tensor | int | None
"""A tensor or its address, or None for an absent operand."""


class Binary:
    """A kernel with its compile-time constants and absent operands, for tensors of one dtype on one device.

    Triton's way to a compiled kernel takes some 25 microseconds in every call, for what a plan knows already: the
    binary depends on the constants, the dtypes and which operands are absent (see `entry.kernel`).
    """

    def __init__(self, function: Any, warps: int, constants: tuple[Any, ...]) -> None:
        self.function, self.warps, self.constants = function, warps, constants
        self.compiled: Any = None

    def compile_and_launch(self, programs: int, *arguments: Pointer) -> None:
        """Launch Triton's own way, with tensors, and keep what was compiled."""
        compiled = self.function[(programs,)](*arguments, *self.constants, num_warps=self.warps)
        if compiled is not None:  # the interpreter compiles nothing
            self.compiled = compiled


@functools.lru_cache(maxsize=1024)
def binary(function: Any, made_for: tuple[Any, ...], warps: int, *constants: Any) -> Binary:
    """Return the one binary of a kernel: `made_for` are dtype, device and which operands there are."""
    return Binary(function, warps, constants)


class ByTensor:
    """Launches the kernels of one pass while not all of them are compiled."""

    def pointers(self, tensors: Sequence[Tensor | None]) -> Sequence[Pointer]:
        """Return tensors as the kernels are given them."""
        return tensors

    def parts(self, workspace: Tensor, starts: Sequence[int]) -> list[Pointer]:
        """Return the parts of a float32 tensor that begin at these elements."""
        return [workspace[start:] for start in starts]

    def __call__(self, binary: Binary, programs: int, *arguments: Pointer) -> None:
        """Launch `programs` programs."""
        binary.compile_and_launch(programs, *arguments)


class ByAddress:
    """Launches the compiled kernels of one pass: straight to Triton's launcher, with addresses for tensors."""

    def __init__(self, device: int) -> None:
        self.stream = driver.active.get_current_stream(device)

    def pointers(self, tensors: Sequence[Tensor | None]) -> list[Pointer]:
        """Return tensors as the kernels are given them: somebody else keeps them alive until all are launched."""
        return [None if t is None else t.data_ptr() for t in tensors]

    def parts(self, workspace: Tensor, starts: Sequence[int]) -> list[Pointer]:
        """Return the parts of a float32 tensor that begin at these elements."""
        base = workspace.data_ptr()
        return [base + 4 * start for start in starts]

    def __call__(self, binary: Binary, programs: int, *arguments: Pointer) -> None:
        """Launch `programs` programs."""
        compiled = binary.compiled
        compiled.run(
            programs, 1, 1, self.stream, compiled.function, compiled.packed_metadata, None, None, None,
            *arguments, *binary.constants,
        )  # fmt: skip


class Kernels:
    """The kernels of one pass, in the order of their launches."""

    def __init__(self, device: torch.device, *binaries: Binary) -> None:
        self.device, self.binaries, self.compiled = device.index or 0, binaries, False

    def launcher(self) -> ByTensor | ByAddress:
        """Return how to launch them in one call."""
        if not self.compiled:
            self.compiled = all([binary.compiled is not None for binary in self.binaries])
            if not self.compiled:
                return ByTensor()
        return ByAddress(self.device)
