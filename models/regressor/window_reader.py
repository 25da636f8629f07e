"""An LSTM that reads the latest few windows, and how those windows are gathered from a pack of sequences."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

N_WINDOWS = 10
"""Ten windows, five minutes. Source: the paper's LSTM baseline."""


class WindowReader(nn.Module):
    """One LSTM shared by all labs (hard sharing), and one linear read-out per lab of its last output.

    Source: UNIPHY+Lab (arXiv 2509.16345), the LSTM baseline; width and masking are ours.

    Parameters
    ----------
    n_features : of a window
    n_labs : columns of the output
    hidden : width of the LSTM
    dropout : share dropped before the read-outs, in training mode alone
    """

    def __init__(self, n_features: int, n_labs: int, hidden: int, dropout: float = 0.0):
        super().__init__()
        self.input_norm = nn.RMSNorm(n_features, eps=1e-5)
        self.missing_embedding = nn.Parameter(torch.randn(n_features) * 0.02)
        self.lstm = nn.LSTM(n_features, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.Linear(hidden, n_labs)
        nn.init.zeros_(self.heads.weight)  # the first estimate is the bias

    def forward(
        self, windows: Float[Tensor, "n windows features"], window_mask: Bool[Tensor, "n windows"]
    ) -> Float[Tensor, "n labs"]:
        """Estimate every lab at the last of the windows; masked ones, which must be finite, are a learned vector."""
        x = torch.where(window_mask[..., None], self.input_norm(windows), self.missing_embedding)
        outputs, _ = self.lstm(x)
        return self.heads(self.dropout(outputs[:, -1]))


def no_windows(n_pieces: int, like: Float[Tensor, "..."], n_features: int) -> Tensor:
    """Return the state of `trailing` before a piece's first step: (pieces, features + 1, N_WINDOWS - 1)."""
    return like.new_zeros(n_pieces, n_features + 1, N_WINDOWS - 1)


def trailing(
    features: Float[Tensor, "steps features"],
    step_mask: Bool[Tensor, " steps"],
    cu_seqlens: Int[Tensor, " pieces_plus_1"],
    state: Float[Tensor, "pieces channels earlier"],
) -> tuple[
    Float[Tensor, "steps windows features"],
    Bool[Tensor, "steps windows"],
    Float[Tensor, "pieces channels earlier"],
]:
    """Gather, for every step of a pack, the `N_WINDOWS` windows of its own piece that end with it.

    Parameters
    ----------
    state : the windows before each piece's first step, from `no_windows` or an earlier call; the last channel
        says which are usable

    Returns
    -------
    Windows, which of them are usable, and the state after each piece.
    """
    earlier = N_WINDOWS - 1
    rows = _flagged(features, step_mask)
    number = torch.arange(len(state), device=rows.device)
    piece = number.repeat_interleave(cu_seqlens.diff(), output_size=len(rows))
    # Each piece's steps are laid behind its earlier windows, so that a look back stays in the piece.
    place = torch.arange(len(rows), device=rows.device) + earlier * (piece + 1)
    before = (cu_seqlens[:-1] + earlier * number)[:, None] + torch.arange(earlier, device=rows.device)
    laid = rows.new_zeros(len(rows) + earlier * len(state), rows.shape[1])
    laid = laid.index_copy(0, place, rows)
    laid = laid.index_copy(0, before.flatten(), state.to(rows.dtype).mT.flatten(0, 1))
    windows = laid[place[:, None] + torch.arange(-earlier, 1, device=rows.device)]
    after = (cu_seqlens[1:] + earlier * number)[:, None] + torch.arange(earlier, device=rows.device)
    return windows[..., :-1], windows[..., -1] > 0, laid[after].mT


def trailing_step(
    features: Float[Tensor, "pieces features"],
    step_mask: Bool[Tensor, " pieces"],
    state: Float[Tensor, "pieces channels earlier"],
) -> tuple[
    Float[Tensor, "pieces windows features"],
    Bool[Tensor, "pieces windows"],
    Float[Tensor, "pieces channels earlier"],
]:
    """Advance every piece by one step; equal to `trailing` over the same steps."""
    row = _flagged(features, step_mask)
    windows = torch.cat([state.to(row.dtype), row[..., None]], dim=-1)
    return windows[:, :-1].mT, windows[:, -1] > 0, windows[..., 1:]


def _flagged(
    features: Float[Tensor, "rows features"], step_mask: Bool[Tensor, " rows"]
) -> Float[Tensor, "rows channels"]:
    """Append a channel that says which rows are usable; the others are zeros, whatever they held."""
    rows = torch.cat([features, step_mask[:, None].to(features.dtype)], dim=-1)
    return rows.masked_fill(~step_mask[:, None], 0.0)
