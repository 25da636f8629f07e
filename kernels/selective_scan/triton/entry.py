"""Make a kernel of a function."""

from collections.abc import Callable
from typing import Any

import triton


def kernel(function: Callable[..., None]) -> Any:
    """Return a Triton kernel whose binary depends on dtypes, absent operands and compile-time constants alone.

    Triton would also look at numbers and addresses (divisible by 16? equal to 1?), and choose among binaries in every
    call. These kernels gain nothing by it, and a plan may keep the one binary it has.
    """
    annotations = function.__annotations__
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    jit: Any = triton.jit  # its type knows no names
    return jit(
        function,
        do_not_specialize=[name for name in names if str(annotations.get(name)).startswith("int")],
        do_not_specialize_on_alignment=[name for name in names if name not in annotations],
    )
