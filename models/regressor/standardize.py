"""Scaling of inputs by statistics of the training patients, kept with the weights."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class Standardize(nn.Module):
    """(x - mean) / scale over the last axes; does nothing until `fit`.

    Embeddings of one encoder share a large mean (with random PPG-GPT weights five times the spread), and
    labs fill a tenth of their min-max range: without this, the first epochs go into undoing it.
    """

    def __init__(self, *shape: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))
        self.mean: Tensor
        self.scale: Tensor

    def forward(self, x: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Standardise."""
        return (x - self.mean) / self.scale

    def fit(self, x: Float[Tensor, "rows ..."], present: Bool[Tensor, "rows ..."]) -> None:
        """Take mean and spread of each entry over the rows in which it is `present`.

        Entries that never vary are centred alone; those that are never present are left as they are.

        Parameters
        ----------
        present : over the leading axes of `x`
        """
        weight = present.double()
        while weight.dim() < x.dim():
            weight = weight[..., None]
        x = torch.where(weight > 0, x.double(), 0.0)
        count = weight.sum(0).clamp(min=1)
        mean = x.sum(0) / count
        spread = ((x - mean).square() * weight).sum(0).div(count).sqrt()
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(spread > 1e-6 * mean.abs(), spread, 1.0))
