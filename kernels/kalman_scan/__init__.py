"""Kalman filter of a four-dimensional state over scalar values, many rows at once, with its own adjoint.

In: values with their noise, times and starting states as tensors, many rows at once.
Out: mean and variance after each step, differentiable in values and parameters.
Never: an import but of torch and of the selective scan's builder; torch itself before a name is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import cpu
    from .interface import kalman_scan
    from .step import floored, least_variance, predicted, updated

__all__ = ["cpu", "floored", "kalman_scan", "least_variance", "predicted", "updated"]


def __getattr__(name: str) -> object:
    """Return a name that needs torch, from its module, when it is first used (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "cpu":
        return import_module(".cpu", __name__)
    home = import_module(".interface" if name == "kalman_scan" else ".step", __name__)
    return globals().setdefault(name, getattr(home, name))


def __dir__() -> list[str]:
    """Return the names above and those of modules that are already imported."""
    return sorted({*globals(), *__all__})
