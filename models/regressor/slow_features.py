"""What of an encoder's output lasts: the directions that differ between half hours, and their running means.

A lab changes over hours, a window's embedding from one half minute to the next. Directions that hold over a piece
and differ between pieces are found without a label; labs are few, windows are many.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from kernels.selective_scan import selective_scan
from models.regressor.standardize import Standardize

_RIDGE = 1e-4


class SlowFeatures(nn.Module):
    """The `count` directions of an embedding that last longest, each of mean 0 and spread 1 until then.

    Linear discriminants, with pieces in the place of classes: the ratio of the spread between pieces' means to
    that within pieces falls from the first direction to the last. Takes the first entries until `fit`.

    Parameters
    ----------
    width : of the embedding
    count : directions kept, at most `width`
    """

    def __init__(self, width: int, count: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("directions", torch.eye(width)[:count])
        self.mean: Tensor
        self.directions: Tensor

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch count"]:
        """Project."""
        return (x - self.mean) @ self.directions.T

    def fit(
        self,
        x: Float[Tensor, "rows width"],
        present: Bool[Tensor, " rows"],
        group: Int[Tensor, " rows"],
    ) -> None:
        """Find the directions; rows that are not `present` are ignored, whatever they hold.

        Parameters
        ----------
        group : 0, 1, ..: which piece a row belongs to
        """
        x, group = x[present].double(), group[present]
        if len(x) < 2:
            return
        _, group, sizes = group.unique(return_inverse=True, return_counts=True)
        mean = x.mean(0)
        sums = torch.zeros(len(sizes), x.shape[1], dtype=x.dtype, device=x.device).index_add(
            0, group, x - mean
        )
        means = sums / sizes[:, None]
        inner = x - mean - means[group]
        within, between = (
            inner.T @ inner / len(x),
            (sums * sizes[:, None] ** -0.5).T @ (sums * sizes[:, None] ** -0.5) / len(x),
        )
        self.mean.copy_(mean)
        self.directions.copy_(_lasting(within, between)[: len(self.directions)])


def input_scale(width: int, slow_features: int | None) -> SlowFeatures | Standardize:
    """Return what a model sees of an embedding: its lasting directions, or all of it standardised."""
    return Standardize(width) if slow_features is None else SlowFeatures(width, slow_features)


def fit_input_scale(
    scale: SlowFeatures | Standardize,
    x: Float[Tensor, "rows width"],
    present: Bool[Tensor, " rows"],
    lengths: Int[Tensor, " groups"],
) -> None:
    """Fit either kind on rows that lie group after group, `lengths` of them in each: training patients' alone."""
    if isinstance(scale, SlowFeatures):
        scale.fit(x, present, torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths))
    else:
        scale.fit(x, present)


def _lasting(within: Tensor, between: Tensor) -> Tensor:
    """Return the generalised eigenvectors of `between` against `within` in rows, largest ratio first."""
    width = len(within)
    total = within + between
    floor = _RIDGE * total.diagonal().mean().clamp(min=torch.finfo(total.dtype).tiny)
    lower = torch.linalg.cholesky(within + floor * torch.eye(width, dtype=within.dtype, device=within.device))
    whitened = torch.linalg.solve_triangular(lower, between, upper=False)
    whitened = torch.linalg.solve_triangular(lower, whitened.T, upper=False)
    _, vectors = torch.linalg.eigh((whitened + whitened.T) / 2)
    rows = torch.linalg.solve_triangular(lower.T, vectors.flip(1), upper=True).T
    spread = torch.einsum("ki,ij,kj->k", rows, total, rows).sqrt()
    # An eigenvector's sign is arbitrary: the largest entry is made positive, so that every machine agrees.
    sign = rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()
    return rows * sign / torch.where(spread > 0, spread, 1.0)[:, None]


class RunningMeans(nn.Module):
    """Exponential means of the features so far, one for each time constant, that begin at the pooled history.

    A masked step leaves them as they are. Without a pooled history a mean is that of the steps seen; before the
    first it is 0. State: (pieces, time constants * (features + 1), 1), the last of each group being the weight
    that was seen. Means and state are float32 at least, under autocast too: eight bits would lose what a step adds.
    """

    def __init__(self, n_features: int, steps: Sequence[float]):
        super().__init__()
        self.n_features = n_features
        decay = torch.tensor([1 / s for s in steps], dtype=torch.float64)
        self.register_buffer("rate", decay.float().repeat_interleave(n_features + 1), persistent=False)
        self.rate: Tensor

    @property
    def width(self) -> int:
        """Number of means."""
        return len(self.rate) // (self.n_features + 1) * self.n_features

    def start(
        self, pooled: Float[Tensor, "pieces features"], present: Bool[Tensor, " pieces"]
    ) -> Float[Tensor, "pieces channels 1"]:
        """Return the state before the first step."""
        return self._channels(pooled, present)[..., None]

    def forward(
        self,
        x: Float[Tensor, "steps features"],
        step_mask: Bool[Tensor, " steps"],
        cu_seqlens: Int[Tensor, " pieces_plus_1"],
        state: Float[Tensor, "pieces channels 1"],
    ) -> tuple[Float[Tensor, "steps means"], Float[Tensor, "pieces channels 1"]]:
        """Return the means at every step and the state after each piece."""
        rate = self.rate.to(_wide(x).dtype)
        u = self._channels(x, step_mask) * -torch.expm1(-rate)
        one = u.new_ones(1, 1, len(x))
        y, last = selective_scan(
            u.T[None], torch.ones_like(u.T[None]), -rate[:, None], one, one,
            return_last_state=True, initial_state=state, step_mask=step_mask[None], cu_seqlens=cu_seqlens,
        )  # fmt: skip
        return self._means(y[0].T), last

    def step(
        self,
        x: Float[Tensor, "pieces features"],
        step_mask: Bool[Tensor, " pieces"],
        state: Float[Tensor, "pieces channels 1"],
    ) -> tuple[Float[Tensor, "pieces means"], Float[Tensor, "pieces channels 1"]]:
        """Advance every piece by one step."""
        rate = self.rate.to(_wide(x).dtype)
        moved = torch.exp(-rate) * state[..., 0] - torch.expm1(-rate) * self._channels(x, step_mask)
        after = torch.where(step_mask[:, None], moved, state[..., 0])
        return self._means(after), after[..., None]

    def _channels(self, x: Tensor, present: Tensor) -> Tensor:
        x = _wide(x)
        row = torch.cat([x, x.new_ones(len(x), 1)], dim=-1).masked_fill(~present[:, None], 0.0)
        return row.repeat(1, len(self.rate) // (self.n_features + 1))

    def _means(self, channels: Tensor) -> Tensor:
        groups = channels.unflatten(-1, (-1, self.n_features + 1))
        seen = groups[..., -1:]
        return (groups[..., :-1] / torch.where(seen > 0, seen, 1.0)).flatten(-2)


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
