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
    """Return the standard deviation over positions.

    In PyTorch of the squares, since a norm over this axis is 15 times slower.
    """
    if position_spread.available(x):
        return position_spread.spread(x, mean, _LEAST_VARIANCE)
    variance = (x - mean[:, None]).square_().mean(1)
    return variance.clamp_min(_LEAST_VARIANCE).sqrt()
