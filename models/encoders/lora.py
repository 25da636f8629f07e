"""Low-rank adaptation (LoRA) of chosen linear layers, for fine-tuning an encoder with few weights.

Source: Hu et al., arXiv 2106.09685; rank 8, alpha 16 on w_q and w_v as PPG-GPT's laboratory uses it.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class LoRALinear(nn.Module):
    """W x + b + (alpha / rank) up(down(x)), with W and b frozen under their old names."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float):
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.weight.requires_grad_(False)
        if self.bias is not None:
            self.bias.requires_grad_(False)
        self.scale = alpha / rank
        self.lora_down = nn.Parameter(self.weight.new_empty(rank, linear.in_features))
        self.lora_up = nn.Parameter(self.weight.new_zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_down, a=math.sqrt(5))

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """Apply the frozen map plus the low-rank one."""
        return (
            F.linear(x, self.weight, self.bias)
            + F.linear(F.linear(x, self.lora_down), self.lora_up) * self.scale
        )

    def merged(self) -> nn.Linear:
        """Return one plain linear layer that computes the same."""
        outputs, inputs = self.weight.shape
        # On "meta" nothing is drawn: the caller's generator stays as it is.
        linear = nn.Linear(inputs, outputs, bias=self.bias is not None, device="meta")
        linear.weight = nn.Parameter((self.weight + self.scale * self.lora_up @ self.lora_down).detach())
        if self.bias is not None:
            linear.bias = nn.Parameter(self.bias.detach().clone())
        return linear


def add_lora(
    model: nn.Module, rank: int = 8, alpha: float = 16.0, targets: Sequence[str] = ("w_q", "w_v")
) -> list[nn.Parameter]:
    """Freeze `model`, put LoRA on every linear layer named in `targets`, and return the new weights.

    The model's output is unchanged until the first update, for the up-projections start at zero.
    """
    if rank < 1:
        raise ValueError(f"rank is {rank}; it must be at least 1.")
    model.requires_grad_(False)
    sites = _named(model, targets)
    if not sites:
        raise ValueError(f"targets are {', '.join(targets)}; the model has no linear layer of such a name.")
    for parent, name, linear in sites:
        setattr(parent, name, LoRALinear(linear, rank, alpha))
    return [p for name, p in model.named_parameters() if name.rpartition(".")[2].startswith("lora_")]


def merge_lora(model: nn.Module) -> None:
    """Fold every LoRA layer of `model` into a plain linear one, so that the published keys are back."""
    for parent, name in [
        (p, n) for p in model.modules() for n, c in p.named_children() if isinstance(c, LoRALinear)
    ]:
        with torch.no_grad():
            setattr(parent, name, getattr(parent, name).merged())


def _named(model: nn.Module, names: Sequence[str]) -> list[tuple[nn.Module, str, nn.Linear]]:
    return [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if name in names and isinstance(child, nn.Linear)
    ]
