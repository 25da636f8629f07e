"""Read-outs: how the outputs of a transformer's layers, position by position, become one vector of a window.

``last`` is the paper's: the last layer's last position. ``mean`` is the last layer's mean over the positions of the
patches, ``layers`` the means of every layer side by side, the first layer first. With ``+spread`` the standard
deviation over the positions follows, a number for each dimension of the layers that were read (``last`` and ``mean``:
the last one). All but ``last`` are our decision; figures: docs/encoder.md.
"""

from collections import deque
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

SPREAD = "+spread"
KINDS = ("last", "mean", "layers")
READOUTS = (*KINDS, *(f"{kind}{SPREAD}" for kind in KINDS))
_LEAST_VARIANCE = torch.finfo(torch.float32).tiny
"""Below it the spread, which is then 1e-19, has no gradient instead of an infinite one."""


def checked_readout(readout: str) -> str:
    """Return `readout`.

    Raises
    ------
    ValueError : there is none of this name
    """
    if readout not in READOUTS:
        raise ValueError(f"readout is {readout!r}; it must be one of {', '.join(READOUTS)}.")
    return readout


def readout_width(readout: str, d_model: int, n_layers: int) -> int:
    """Return how many numbers a window becomes."""
    layers = n_layers if readout.startswith("layers") else 1
    return d_model * layers * (2 if readout.endswith(SPREAD) else 1)


def needs_every_position(readout: str) -> bool:
    """Whether the last layer's positions before the last one are read as well."""
    return readout != "last"


def read_out(
    readout: str, outputs: Iterable[Float[Tensor, "n positions d_model"]]
) -> Float[Tensor, "n width"]:
    """Return the vectors of some windows.

    Parameters
    ----------
    outputs : of each layer, the first one first, at the patches' positions without the start token. Taken one by one:
        the next may overwrite the one before. With ``last`` the last position is enough.

    Notes
    -----
    The spread takes two passes, from the mean itself: no difference of large sums.
    """
    kind = readout.removesuffix(SPREAD)
    levels, spreads = [], []
    for x in outputs if kind == "layers" else deque(outputs, maxlen=1):
        mean = x.mean(1)
        levels.append(x[:, -1] if kind == "last" else mean)
        if readout.endswith(SPREAD):
            spreads.append(_spread(x, mean))
    return torch.cat([*levels, *spreads], dim=1)


def _spread(
    x: Float[Tensor, "n positions d_model"], mean: Float[Tensor, "n d_model"]
) -> Float[Tensor, "n d_model"]:
    """Return the standard deviation over positions: of the squares, since a norm over this axis is 15 times slower."""
    variance = (x - mean[:, None]).square_().mean(1)
    return variance.clamp_min(_LEAST_VARIANCE).sqrt()
