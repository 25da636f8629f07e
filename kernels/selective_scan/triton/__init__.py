"""Backend `triton`: the GPU kernels, their tiling and tuning.

In: checked operands on a GPU, or anywhere under Triton's interpreter.
Out: outputs, states, gradients, the same at every repetition.
Never: an atomic addition, a measurement in the middle of a training.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import agreement, convolution, designs, tuning

__all__ = ["agreement", "convolution", "designs", "tuning"]


def __getattr__(name: str) -> object:
    """Return a module that needs torch when it is first used (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f".{name}", __name__)
