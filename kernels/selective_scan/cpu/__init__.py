"""Backend `cpu`: compiled C++ kernels and their build.

In: checked operands on the CPU.
Out: outputs, states, gradients; the library, built once for this machine.
Never: a check of what a caller gave, a pool of threads that outlives a call.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import backend, build, convolution

__all__ = ["backend", "build", "convolution"]


def __getattr__(name: str) -> object:
    """Return a module that needs torch when it is first used (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f".{name}", __name__)
