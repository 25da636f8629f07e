"""Mean and standard deviation over a tensor's middle axis, compiled for the CPU: part of an encoder's read-out.

In: a float32 tensor on a CPU, whose gradient nobody asks for.
Out: its mean and spread, in the same order of sums on every machine.
Never: an import but of torch and of the selective scan's builder; torch itself before a name is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import cpu
    from .cpu import available, mean_and_spread

__all__ = ["available", "cpu", "mean_and_spread"]


def __getattr__(name: str) -> object:
    """Return a name that needs torch, from its module, when it is first used (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(".cpu", __name__)
    return home if name == "cpu" else globals().setdefault(name, getattr(home, name))


def __dir__() -> list[str]:
    """Return the names above and those of modules that are already imported."""
    return sorted({*globals(), *__all__})
