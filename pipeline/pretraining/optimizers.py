"""The optimisers of pretraining: AdamW for everything, or Muon for the layers' matrices and AdamW for the rest."""

from collections.abc import Callable

import torch
from torch import nn

from models.encoders.ppg_gpt import PPGGPT
from pipeline.pretraining.config import PretrainingConfig

BETAS = (0.9, 0.99)


class MuonAndAdamW(torch.optim.Optimizer):
    """Two optimisers that step as one and remember in one place, so that a run resumes as with one.

    Muon's steps are scaled to the size of AdamW's, so that one learning rate fits both (Liu et al. 2025,
    arXiv 2502.16982).
    """

    def __init__(self, muon: torch.optim.Muon, adamw: torch.optim.AdamW):
        super().__init__([*muon.param_groups, *adamw.param_groups], {})
        self._parts = (muon, adamw)
        for part in self._parts:
            part.state = self.state

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Step both."""
        for part in self._parts:
            part.step()


def make_optimizer(model: PPGGPT, config: PretrainingConfig) -> torch.optim.Optimizer:
    """Return the recipe's optimiser; weight decay is for matrices alone."""
    parameters = dict(model.named_parameters())
    matrices = [p for p in parameters.values() if p.ndim > 1]
    others = [p for p in parameters.values() if p.ndim < 2]
    inner: list[nn.Parameter] = []
    if config.optimizer == "muon":
        inner = [p for name, p in parameters.items() if p.ndim > 1 and name.startswith("gpt_layers.")]
        taken = {id(p) for p in inner}
        matrices = [p for p in matrices if id(p) not in taken]
    adamw = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=config.warmup_start, betas=BETAS,
    )  # fmt: skip
    if not inner:
        return adamw
    muon = torch.optim.Muon(
        inner, lr=config.warmup_start, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return MuonAndAdamW(muon, adamw)
