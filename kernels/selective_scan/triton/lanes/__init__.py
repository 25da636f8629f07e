"""The second design of the GPU scan: one element of a tensor a thread, so that a program's values are its registers.

In: checked operands of float32, bfloat16 or float16 with at most 16 states, on a GPU or in the interpreter.
Out: outputs, states and gradients, the same at every repetition.
Never: an atomic addition, shared memory, a barrier; a look at a value on the GPU.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import kind, launch, plan

__all__ = ["kind", "launch", "plan"]


def __getattr__(name: str) -> object:
    """Return a module that needs torch when it is first used (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f".{name}", __name__)
