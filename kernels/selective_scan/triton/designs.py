"""Which of the two designs computes a scan on the GPU: this is the one place that decides.

`lanes` wherever it reaches: float32, bfloat16 and float16 with at most 16 states. The first design (`backend`), by
chunks in tiles of channels and states, for float64, more states, batches beyond `lanes.launch.MOST_ROWS` steps, and
bfloat16 on cards before sm_80, which cannot round to it in one instruction; and for everything on a card on which the
two were found to disagree (`agreement`).
"""

from types import ModuleType

from torch import Tensor

from ..operands import ScanInputs
from . import backend
from .agreement import refused
from .lanes import launch


def design(x: ScanInputs) -> ModuleType:
    """Return the module whose `forward`, `backward` and `entries_shape` are this scan's."""
    return launch if launch.reaches(x) and not refused(x.u.device) else backend


def entries_shape(x: ScanInputs) -> tuple[int, ...]:
    """Return the shape of what the forward pass saves for the backward pass."""
    return design(x).entries_shape(x)


def forward(x: ScanInputs, y: Tensor, save: bool) -> tuple[Tensor, Tensor | None]:
    """Fill `y`, laid out as `u`; return last_state and, to `save`, what the backward pass needs."""
    return design(x).forward(x, y, save)


def backward(
    x: ScanInputs, entries: Tensor, dy: Tensor, d_last_state: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the first nine inputs, u to initial_state; None for absent ones."""
    return design(x).backward(x, entries, dy, d_last_state)
