"""What a lab regressor sees of a batch of pieces: one packed tensor, no padding."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PackedInputs:
    """Pieces of unequal length laid end to end.

    Attributes
    ----------
    embeddings : (steps, width) float32; rows where ``step_mask`` is False are ignored
    step_mask : (steps,) True where the window was usable
    cu_seqlens : (pieces + 1,) int64, start of each piece and, last, the total number of steps
    history : (pieces, labs, features) the patient's earlier results, scaled; zeros where absent
    history_present : (pieces, labs) True where that lab has a result in the history
    pooled : (pieces, width) mean of the patient's window embeddings at or before t0; zeros where absent
    pooled_present : (pieces,) True where such windows exist
    """

    embeddings: Float[Tensor, "steps width"]
    step_mask: Bool[Tensor, " steps"]
    cu_seqlens: Int[Tensor, " pieces_plus_1"]
    history: Float[Tensor, "pieces labs features"]
    history_present: Bool[Tensor, "pieces labs"]
    pooled: Float[Tensor, "pieces width"]
    pooled_present: Bool[Tensor, " pieces"]

    def to(self, device: torch.device | str) -> "PackedInputs":
        """Return the same inputs on `device`."""
        return PackedInputs(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})
