"""Causal depthwise convolution with carried state in plain PyTorch, and the check of its arguments."""

import torch
from torch import Tensor

from .validation import (
    check_activations,
    check_bounds,
    check_pack,
    check_state,
    require,
    require_like,
    require_shape,
    require_tensors,
)


def check_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, cu_seqlens: Tensor | None, *,
    activation: str | None,
) -> None:  # fmt: skip
    """Raise a ValueError for arguments that `causal_conv1d` cannot compute."""
    require_tensors(x=x, weight=weight, bias=bias, initial_state=initial_state, cu_seqlens=cu_seqlens)
    check_activations(("x",), (x,))
    check_filter(x, weight, bias, activation)
    check_pack(cu_seqlens, x.shape[0])
    sequences = x.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    check_state("initial_state", initial_state, x, (sequences, x.shape[1], weight.shape[1] - 1), x.dtype)


def check_filter(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> None:
    """Raise unless weight is (channels, width), bias (channels,) and the activation known."""
    channels = x.shape[1]
    require(
        weight.dim() == 2 and weight.shape[1] > 0,
        "weight",
        f"shape {tuple(weight.shape)}",
        "(channels, width)",
    )
    require_shape("weight", weight, (channels, weight.shape[1]), "(channels, width)")
    dtypes = (x.dtype, torch.float32)
    require_like("weight", weight, x, dtypes)
    if bias is not None:
        require_shape("bias", bias, (channels,), "(channels,)")
        require_like("bias", bias, x, dtypes)
    require(activation in (None, "silu"), "activation", f"value {activation!r}", "None or 'silu'")


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return (y, final state) for time-major `x` (batch, length, channels)."""
    width = weight.shape[1]
    sequences = x.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    if initial_state is None:
        initial_state = x.new_zeros(sequences, x.shape[2], width - 1)
    if cu_seqlens is None:
        extended = torch.cat([initial_state.transpose(1, 2), x], dim=1)
        y = _filter(extended, torch.arange(x.shape[1], device=x.device), weight, bias)
        final = extended[:, extended.shape[1] - (width - 1) :].transpose(1, 2)
    else:
        y, final = _convolve_pack(x, weight, bias, initial_state, cu_seqlens)
    if activation == "silu":
        y = torch.nn.functional.silu(y)
    return y.to(x.dtype), final.contiguous()


def _convolve_pack(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor, cu_seqlens: Tensor
) -> tuple[Tensor, Tensor]:
    """Lay every sequence's carried inputs in front of its own, then filter the one long row."""
    check_bounds(cu_seqlens, x.shape[1])
    carried, (sequences, channels) = weight.shape[1] - 1, initial_state.shape[:2]
    lengths = cu_seqlens.to(x.device).diff()
    owner = torch.repeat_interleave(torch.arange(sequences, device=x.device), lengths)
    place = torch.arange(x.shape[1], device=x.device) + (owner + 1) * carried
    ends = cu_seqlens[1:].to(x.device) + torch.arange(1, sequences + 1, device=x.device) * carried
    heads = (ends - lengths - carried)[:, None] + torch.arange(carried, device=x.device)
    rows = torch.cat([initial_state.transpose(1, 2).reshape(-1, channels), x[0]])
    order = torch.empty(len(rows), dtype=torch.long, device=x.device)
    order[torch.cat([heads.flatten(), place])] = torch.arange(len(rows), device=x.device)
    extended = rows[order]
    y = _filter(extended[None], place - carried, weight, bias)
    tails = ends[:, None] - carried + torch.arange(carried, device=x.device)
    return y, extended[tails].transpose(1, 2)


def _filter(extended: Tensor, first: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return sum_j weight[:, j] extended[:, first + j] + bias, in float32 (float64 for float64)."""
    wide = torch.float64 if extended.dtype == torch.float64 else torch.float32
    extended, weight = extended.to(wide), weight.to(wide)
    y = extended.new_zeros(extended.shape[0], len(first), extended.shape[2])
    for j in range(weight.shape[1]):
        y = torch.addcmul(y, extended[:, first + j], weight[:, j])
    return y if bias is None else y + bias.to(wide)
