"""The layers of PPG-GPT, named as in its laboratory's checkpoints."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

NORM_EPS = 1e-8


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + 1e-8), times a learned scale."""

    def __init__(self, width: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Normalise the last axis."""
        return F.rms_norm(x, self.scale.shape, self.scale, eps=NORM_EPS)


class PatchEmbedding(nn.Module):
    """A learned start vector, then one linear map of each patch."""

    def __init__(self, patch: int, width: int):
        super().__init__()
        self.sep = nn.Parameter(torch.randn(width))
        self.linear = nn.Linear(patch, width)

    def forward(self, patches: Float[Tensor, "n patches samples"]) -> Float[Tensor, "n positions width"]:
        """Return one more position than there are patches."""
        tokens = self.linear(patches).to(self.sep.dtype)  # under autocast the residual stream stays float32
        return torch.cat([self.sep.expand(len(tokens), 1, -1), tokens], dim=1)


class RotaryEmbedding(nn.Module):
    """Rotation of interleaved pairs in the first half of a head, theta 10000; the rest passes unchanged."""

    def __init__(self, d_head: int):
        super().__init__()
        rotated = d_head // 2
        self.register_buffer("freqs", 10000.0 ** (-torch.arange(0, rotated, 2).float() / rotated))
        self.freqs: Tensor

    def forward(
        self, x: Float[Tensor, "n heads positions d_head"], first_position: int = 0
    ) -> Float[Tensor, "n heads positions d_head"]:
        """Rotate each position by its place; position 0 is the start token."""
        places = torch.arange(first_position, first_position + x.shape[2], device=x.device)
        angles = places[:, None] * self.freqs.float()
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        rotated = 2 * self.freqs.numel()
        even, odd = x[..., 0:rotated:2], x[..., 1:rotated:2]
        turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)
        return torch.cat([turned, x[..., rotated:]], dim=-1)


class _RotaryHolder(nn.Module):
    """Gives the rotary frequencies the published key ``attn.attention.rotary_embed.freqs``."""

    def __init__(self, d_head: int):
        super().__init__()
        self.rotary_embed = RotaryEmbedding(d_head)


class CausalAttention(nn.Module):
    """Multi-head attention, always causal."""

    def __init__(self, width: int, n_heads: int, dropout: float):
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.w_q, self.w_k, self.w_v, self.w_concat = (nn.Linear(width, width) for _ in range(4))
        self.attention = _RotaryHolder(width // n_heads)

    def forward(
        self, x: Float[Tensor, "n positions width"], last_only: bool = False
    ) -> Float[Tensor, "n queries width"]:
        """Attend from every position, or from the last one alone (``queries`` = 1)."""
        asking = x[:, -1:] if last_only else x
        rotate = self.attention.rotary_embed
        q = rotate(self._heads(self.w_q(asking)), first_position=x.shape[1] - asking.shape[1])
        k = rotate(self._heads(self.w_k(x)))
        v = self._heads(self.w_v(x))
        dropout = self.dropout if self.training else 0.0
        # The last position may see all others, so it needs no mask.
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=not last_only)
        return self.w_concat(out.transpose(1, 2).flatten(2))

    def _heads(self, x: Float[Tensor, "n positions width"]) -> Float[Tensor, "n heads positions d_head"]:
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Linear(d, 4d), ReLU, Linear(4d, d)."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.linear1 = nn.Linear(width, 4 * width)
        self.linear2 = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "n positions width"]) -> Float[Tensor, "n positions width"]:
        """Apply the two layers at every position."""
        return self.linear2(self.dropout(F.relu(self.linear1(x))))


class GPTLayer(nn.Module):
    """x + attn(norm_1(x)), then x + ffn(norm_2(x))."""

    def __init__(self, width: int, n_heads: int, dropout: float):
        super().__init__()
        self.norm_1, self.norm_2 = RMSNorm(width), RMSNorm(width)
        self.attn = CausalAttention(width, n_heads, dropout)
        self.ffn = FeedForward(width, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "n positions width"], last_only: bool = False
    ) -> Float[Tensor, "n queries width"]:
        """Return every position, or the last alone: the others then cost only their keys and values."""
        kept = x[:, -1:] if last_only else x
        kept = kept + self.dropout(self.attn(self.norm_1(x), last_only))
        return kept + self.dropout(self.ffn(self.norm_2(kept)))
