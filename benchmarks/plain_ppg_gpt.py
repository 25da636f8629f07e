"""PPG-GPT as one would write it first: float32, every position through every layer, attention spelt out.

The yardstick of the encoder's benchmark, and a second reading of the architecture: it shares the weights' names and
nothing else with `models.encoders.ppg_gpt`.
"""

import torch
from torch import Tensor


def plain_embedding(weights: dict[str, Tensor], n_layers: int, n_heads: int, windows: Tensor) -> Tensor:
    """Return the last layer's last position, (n, width); parameters as of `plain_outputs`."""
    return plain_outputs(weights, n_layers, n_heads, windows)[-1][:, -1]


def plain_outputs(weights: dict[str, Tensor], n_layers: int, n_heads: int, windows: Tensor) -> list[Tensor]:
    """Return what each layer puts out at all 31 positions, the start token's first.

    Parameters
    ----------
    weights : of a logit-Laplace PPG-GPT, by their published names
    windows : (n, 1200) in [0, 1], of the weights' type

    Returns
    -------
    (n, 31, width) for each layer
    """
    outputs = []
    patches = (windows * 0.8 + 0.1).reshape(len(windows), 30, 40)
    x = _linear(weights, "patch_embedding.linear", patches)
    start = weights["patch_embedding.sep"].repeat(len(windows), 1, 1)
    x = torch.cat([start, x], dim=1)
    for i in range(n_layers):
        layer = f"gpt_layers.{i}"
        x = x + _attention(weights, f"{layer}.attn", n_heads, _norm(x, weights[f"{layer}.norm_1.scale"]))
        hidden = _linear(weights, f"{layer}.ffn.linear1", _norm(x, weights[f"{layer}.norm_2.scale"]))
        x = x + _linear(weights, f"{layer}.ffn.linear2", torch.relu(hidden))
        outputs.append(x)
    return outputs


def _linear(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _norm(x: Tensor, scale: Tensor) -> Tensor:
    return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-8) * scale


def _attention(weights: dict[str, Tensor], name: str, n_heads: int, x: Tensor) -> Tensor:
    n, positions, width = x.shape
    q, k, v = (
        _linear(weights, f"{name}.w_{part}", x).reshape(n, positions, n_heads, -1).transpose(1, 2)
        for part in "qkv"
    )
    freqs = weights[f"{name}.attention.rotary_embed.freqs"]
    q, k = _rotated(q, freqs), _rotated(k, freqs)
    score = q @ k.transpose(2, 3) / (width // n_heads) ** 0.5
    future = torch.ones(positions, positions, dtype=torch.bool, device=x.device).triu(1)
    share = torch.softmax(score.masked_fill(future, -torch.inf), dim=-1)
    return _linear(weights, f"{name}.w_concat", (share @ v).transpose(1, 2).reshape(n, positions, width))


def _rotated(x: Tensor, freqs: Tensor) -> Tensor:
    angle = torch.outer(torch.arange(x.shape[2], device=x.device), freqs).repeat_interleave(2, dim=1)
    turning, passing = x[..., : 2 * len(freqs)], x[..., 2 * len(freqs) :]
    pairs = turning.unflatten(-1, (-1, 2))
    quarter = torch.stack([-pairs[..., 1], pairs[..., 0]], dim=-1).flatten(-2)
    return torch.cat([turning * angle.cos() + quarter * angle.sin(), passing], dim=-1)
