"""Read-outs: how the outputs of a transformer's layers, position by position, become one vector of a window.

Which there are: ``readout_names``.
"""

from collections import deque
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from kernels import position_spread
from models.encoders.readout_names import SPREAD

_LEAST_VARIANCE = torch.finfo(torch.float32).tiny
"""Below it the spread, which is then 1e-19, has no gradient instead of an infinite one."""


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
    kind, with_spread = readout.removesuffix(SPREAD), readout.endswith(SPREAD)
    levels, spreads, compiled = [], [], None
    for x in outputs if kind == "layers" else deque(outputs, maxlen=1):
        compiled = (
            position_spread.available(x) if compiled is None else compiled
        )  # layers are all of one kind
        moments = _compiled(x) if compiled else _in_pytorch(x, with_spread)
        levels.append(x[:, -1] if kind == "last" else moments[0])
        spreads += moments[1:] if with_spread else ()
    return torch.cat([*levels, *spreads], dim=1)


def _compiled(x: Float[Tensor, "n positions d_model"]) -> tuple[Float[Tensor, "n d_model"], ...]:
    """Return mean and standard deviation over positions: both always, so that all read-outs share the mean's bits."""
    return position_spread.mean_and_spread(x, _LEAST_VARIANCE)


def _in_pytorch(
    x: Float[Tensor, "n positions d_model"], with_spread: bool
) -> tuple[Float[Tensor, "n d_model"], ...]:
    """Return the mean over positions and perhaps their standard deviation.

    In PyTorch of the squares, since a norm over this axis is 15 times slower.
    """
    mean = x.mean(1)
    if not with_spread:
        return (mean,)
    variance = (x - mean[:, None]).square_().mean(1)
    return mean, variance.clamp_min(_LEAST_VARIANCE).sqrt()
