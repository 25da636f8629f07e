"""A small lab regressor and a pack of made-up pieces."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from models.regressor.config import LabRegressorConfig
from models.regressor.inputs import PackedInputs
from models.regressor.lab_regressor import LabRegressor

LENGTHS = [23, 1, 40, 0, 16]
SMALL = LabRegressorConfig(embed_width=8, d_model=16, n_blocks=2, d_state=4, dropout=0.0, trunk_width=8)
SKIP = replace(SMALL, history_skip=True)
MEANS = replace(SKIP, slow_features=5, mean_steps=(3.0, 20.0))
READER = replace(SMALL, reader_width=6)
BOTH = replace(MEANS, reader_width=6)


def model_of(config: LabRegressorConfig = SMALL, seed: int = 0) -> LabRegressor:
    """Return a model whose patient state and read-outs are not at their neutral start."""
    torch.manual_seed(seed)
    model = LabRegressor(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if any(part in name for part in ("projections", "film", "initial_state", "head", "skip", "line")):
                p.normal_(std=0.5)
    return model


def inputs_of(lengths: Sequence[int] = LENGTHS, seed: int = 0, width: int = 8) -> PackedInputs:
    """Return made-up inputs of pieces of the given lengths in steps, some values missing; embeddings (steps, width)."""
    g, n, total = torch.Generator().manual_seed(seed), len(lengths), sum(lengths)
    return PackedInputs(
        embeddings=torch.randn(total, width, generator=g),
        step_mask=torch.rand(total, generator=g) > 0.25,
        cu_seqlens=torch.tensor([0, *lengths]).cumsum(0),
        history=torch.randn(n, 5, 4, generator=g),
        history_present=torch.rand(n, 5, generator=g) > 0.4,
        pooled=torch.randn(n, width, generator=g),
        pooled_present=torch.rand(n, generator=g) > 0.4,
    )


def member(inputs: PackedInputs, i: int) -> PackedInputs:
    """Return the inputs of piece `i` alone."""
    steps, row = slice(*inputs.cu_seqlens[i : i + 2].tolist()), slice(i, i + 1)
    return PackedInputs(
        embeddings=inputs.embeddings[steps], step_mask=inputs.step_mask[steps],
        cu_seqlens=inputs.cu_seqlens[i : i + 2] - inputs.cu_seqlens[i],
        history=inputs.history[row], history_present=inputs.history_present[row],
        pooled=inputs.pooled[row], pooled_present=inputs.pooled_present[row],
    )  # fmt: skip


def gradients(model: LabRegressor, inputs: PackedInputs, **options: Any) -> dict[str, Tensor]:
    """Return the gradients of the summed squares of all estimates, by parameter."""
    model.zero_grad()
    model(inputs, **options).square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
