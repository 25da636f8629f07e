"""Errors over labs that are seldom measured, and how several of them become one loss."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

LOG_VARIANCE_LIMIT = 10.0
NO_DECAY_NAMES = frozenset(
    {
        "A_log",
        "D",
        "bias",
        "initial_state",
        "null_history",
        "null_pooled",
        "missing_embedding",
        "log_variance",
    }
)
"""Last part of the names of parameters that weight decay leaves alone, beside all norms (our decision)."""


def weighted_error_sums(
    prediction: Float[Tensor, "*steps labs"],
    target: Float[Tensor, "*steps labs"],
    weight: Float[Tensor, "*steps labs"],
) -> tuple[Float[Tensor, " labs"], Float[Tensor, " labs"]]:
    """Return, per lab, sum(weight |prediction - target|) and sum(weight), in float32.

    They add over micro-batches and ranks; their quotient is the mean absolute error.
    """
    error = (prediction.float() - target.float()).abs() * weight
    return error.flatten(0, -2).sum(0), weight.float().flatten(0, -2).sum(0)


def weighted_l1(
    prediction: Float[Tensor, "*steps labs"],
    target: Float[Tensor, "*steps labs"],
    weight: Float[Tensor, "*steps labs"],
    total_weight: Float[Tensor, " labs"] | None = None,
) -> Float[Tensor, ""]:
    """Return the mean absolute error, summed over labs; one without a target contributes nothing.

    Parameters
    ----------
    total_weight : the weight per lab of the whole global batch, where this is a part of it; the losses of the
        parts then add up to the whole's
    """
    error, own_weight = weighted_error_sums(prediction, target, weight)
    total = own_weight if total_weight is None else total_weight
    return (error / total.clamp(min=torch.finfo(torch.float32).tiny)).sum()


def uncertainty_weighted_l1(
    prediction: Float[Tensor, "*steps labs"],
    target: Float[Tensor, "*steps labs"],
    weight: Float[Tensor, "*steps labs"],
    log_variance: Float[Tensor, " labs"],
    total_weight: Float[Tensor, " labs"] | None = None,
    share: float = 1.0,
) -> Float[Tensor, ""]:
    """Return sum_i L_i / (2 sigma_i^2) + log sigma_i, with L_i the mean absolute error of lab i.

    A lab without a target drops both its terms. ``log_variance`` = log sigma^2 is held in [-10, 10].
    Source: UNIPHY+Lab (arXiv 2509.16345), after Kendall et al.; clamp and dropped terms are ours.

    Parameters
    ----------
    prediction, target : scaled units; `target` is any finite number where `weight` is 0
    weight : of each step and lab, 0 where there is no target
    total_weight : the weight per lab of the whole global batch, where this is a part of it
    share : of the log sigma terms that this part carries; the shares of all parts add up to 1
    """
    error, own_weight = weighted_error_sums(prediction, target, weight)
    total = own_weight if total_weight is None else total_weight
    has_target = total > 0
    log_variance = log_variance.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)
    mean_error = error / torch.where(has_target, total, 1.0)
    terms = 0.5 * torch.exp(-log_variance) * mean_error + 0.5 * share * log_variance
    return torch.where(has_target, terms, 0.0).sum()


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Split trainable parameters for AdamW: with decay, and without (A_log, D, norms, biases, h0, sigma)."""
    norms = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.RMSNorm)}
    decayed, kept = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            spared = name in norms or _is_spared(name.rpartition(".")[2])
            (kept if spared else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]


def _is_spared(name: str) -> bool:
    return name in NO_DECAY_NAMES or name.startswith("bias_")
