"""Read-outs: how the outputs of a transformer's layers, position by position, become one vector of a window.

Which there are: ``readout_names``.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import no_type_check

import torch
from jaxtyping import Float
from torch import Tensor

from kernels import position_spread
from models.encoders.readout_names import SPREAD

_LEAST_VARIANCE = torch.finfo(torch.float32).tiny
"""Below it the spread, which is then 1e-19, has no gradient instead of an infinite one."""


def read_out(
    readout: str,
    outputs: Iterable[Float[Tensor, "n positions d_model"]],
    moments_of: Callable[[Tensor, bool], tuple[Tensor, ...]] | None = None,
) -> Float[Tensor, "n width"]:
    """Return the vectors of some windows.

    Parameters
    ----------
    outputs : of each layer, the first one first, at the patches' positions without the start token. Taken one by one:
        the next may overwrite the one before. With ``last`` the last position is enough.
    moments_of : `position_moments`, or what computes the same; None: the compiled one where there is one for `outputs`

    Notes
    -----
    The spread takes two passes, from the mean itself: no difference of large sums.
    """
    kind, with_spread = readout.removesuffix(SPREAD), readout.endswith(SPREAD)
    levels, spreads = [], []
    for x in outputs if kind == "layers" else deque(outputs, maxlen=1):
        if moments_of is None:  # layers are all of one kind
            moments_of = _compiled if position_spread.available(x) else position_moments
        level, *spread = moments_of(x, with_spread) if kind != "last" or with_spread else (x[:, -1],)
        levels.append(x[:, -1] if kind == "last" else level)
        spreads += spread if with_spread else ()
    return torch.cat([*levels, *spreads], dim=1)


def _compiled(
    x: Float[Tensor, "n positions d_model"], _with_spread: bool
) -> tuple[Float[Tensor, "n d_model"], ...]:
    """Return mean and standard deviation over positions: both always, so that all read-outs share the mean's bits."""
    return position_spread.mean_and_spread(x, _LEAST_VARIANCE)


@no_type_check  # so that `torch.compile` traces through it
def position_moments(
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
