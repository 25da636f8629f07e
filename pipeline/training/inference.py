"""The forward pass that scoring and prediction share, in shapes that never depend on what is yet to come.

A matrix product's rounding depends on its shape. So a piece is run alone, in chunks of one fixed number of
steps with its state handed on, the last chunk filled up with masked steps of the same piece: whatever follows
a step, in its piece or after it, no bit of its estimate changes.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from models.regressor.inputs import PackedInputs
from models.regressor.lab_lines import LabLines
from models.regressor.lab_regressor import LabRegressor
from models.regressor.lstm import WindowLSTM
from pipeline.training.dataset import PieceItem, pack

CHUNK_STEPS = 128
"""Steps of one pass: few enough that short pieces waste little, enough to keep a matrix product busy."""


def estimate_piece(
    model: LabRegressor | LabLines, inputs: PackedInputs, device: torch.device | str = "cpu"
) -> Float32[np.ndarray, "steps labs"]:
    """Return the scaled estimates at every step of a single piece; a step's bits depend on nothing after it.

    Raises
    ------
    ValueError : more than one piece
    """
    if len(inputs.cu_seqlens) != 2:
        raise ValueError(f"inputs hold {len(inputs.cu_seqlens) - 1} pieces; a piece is estimated alone")
    n_steps = len(inputs.embeddings)
    if n_steps == 0:
        return np.zeros((0, len(model.config.task_labs)), dtype=np.float32)
    with torch.inference_mode():
        output = model(_filled_up(inputs).to(device), chunk_steps=CHUNK_STEPS)
    return output[:n_steps].float().cpu().numpy()


def estimate_pieces(
    model: LabRegressor | LabLines, items: Sequence[PieceItem], device: torch.device | str = "cpu"
) -> list[Float32[np.ndarray, "steps labs"]]:
    """Return the scaled estimates of several pieces in one pass: as `estimate_piece` but for rounding."""
    with torch.inference_mode():
        output = model(pack(items).inputs.to(device)).float().cpu().numpy()
    return np.split(output, np.cumsum([len(item.step_mask) for item in items])[:-1])


def estimate_windows(
    model: WindowLSTM,
    windows: Float32[np.ndarray, "n ten width"],
    mask: Bool[np.ndarray, "n ten"],
    device: torch.device | str = "cpu",
) -> Float32[np.ndarray, "n labs"]:
    """Return the LSTM's scaled estimates, in batches of one fixed size (the last filled up)."""
    outputs = []
    for first in range(0, len(windows), CHUNK_STEPS):
        part, part_mask = windows[first : first + CHUNK_STEPS], mask[first : first + CHUNK_STEPS]
        missing = CHUNK_STEPS - len(part)
        with torch.inference_mode():
            output = model(
                torch.from_numpy(np.pad(part, ((0, missing), (0, 0), (0, 0)))).to(device),
                torch.from_numpy(np.pad(part_mask, ((0, missing), (0, 0)))).to(device),
            )
        outputs.append(output[: len(part)].float().cpu().numpy())
    return (
        np.concatenate(outputs) if outputs else np.zeros((0, len(model.config.task_labs)), dtype=np.float32)
    )


def shortened(item: PieceItem, n_steps: int) -> PieceItem:
    """Return the first `n_steps` of a piece: later ones cannot change them, and cost time."""
    return replace(
        item,
        embeddings=item.embeddings[:n_steps],
        step_mask=item.step_mask[:n_steps],
        targets=item.targets[:n_steps],
        weights=item.weights[:n_steps],
    )


def _filled_up(inputs: PackedInputs) -> PackedInputs:
    missing = -len(inputs.embeddings) % CHUNK_STEPS

    def fill(tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor.new_zeros(missing, *tensor.shape[1:])])

    return replace(
        inputs,
        embeddings=fill(inputs.embeddings),
        step_mask=fill(inputs.step_mask),
        cu_seqlens=inputs.cu_seqlens + torch.tensor([0, missing], device=inputs.cu_seqlens.device),
    )
