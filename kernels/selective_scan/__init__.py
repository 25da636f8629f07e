"""Selective scan (Mamba-1) with a differentiable initial and last state, fast on GPU and CPU.

In: the scan's operands as tensors, optional masks and bounds of packed sequences.
Out: outputs and last states, differentiable in every operand; the causal convolution; one step of each.
Never: an import from outside this folder but the standard library, torch and, on a GPU, Triton; torch before a name is
    used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .interface import causal_conv1d, causal_conv1d_step, selective_scan, selective_state_step
    from .mamba_layer import run_mamba_layer, take_initial_state
    from .operands import state_dtype
    from .second_derivatives import refuse_second_derivatives

__all__ = [
    "causal_conv1d",
    "causal_conv1d_step",
    "refuse_second_derivatives",
    "run_mamba_layer",
    "selective_scan",
    "selective_state_step",
    "state_dtype",
    "take_initial_state",
]
_HOMES = {
    "refuse_second_derivatives": ".second_derivatives", "run_mamba_layer": ".mamba_layer",
    "state_dtype": ".operands", "take_initial_state": ".mamba_layer",
}  # fmt: skip
"""Modules of the names above that are not in ``.interface``."""


def __getattr__(name: str) -> object:
    """Return a name that needs torch, from its module, when it is first used (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(_HOMES.get(name, ".interface"), __name__)
    return globals().setdefault(name, getattr(home, name))


def __dir__() -> list[str]:
    """Return the names above and those of modules that are already imported."""
    return sorted({*globals(), *__all__})
