"""Pulse-PPG as a window encoder: 30 s at 50 Hz.

Source: Pulse-PPG (arXiv 2502.01108), its published code and checkpoint ``checkpoint_best.pkl`` (Zenodo
17270930), which the user downloads. It was pretrained on 240 s; its max-pooling over time takes any length.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from models.encoders.bandpass import bandpass_windows
from models.encoders.base import embed_in_batches
from models.encoders.published_weights import load_strictly, read_state_dict, weights_hash
from models.encoders.resnet1d import ResNet1D


class PulsePPG(ResNet1D):
    """Pulse-PPG's network, 28 M weights, 512 wide. Satisfies `models.encoders.base.Encoder`."""

    name = "pulse_ppg"
    width = 512
    sampling_rate_hz = 50.0
    samples_per_window = 1500

    def __init__(self):
        super().__init__(base_filters=128, kernel=11, n_blocks=12)

    @classmethod
    def from_checkpoint(cls, path: Path | str) -> "PulsePPG":
        """Load the published checkpoint (``{"net": ...}``) or a flat state dict.

        Raises
        ------
        CheckpointMismatch
            The file cannot be read without unpickling objects, or is no Pulse-PPG.
        """
        state, _ = read_state_dict(path)
        model = cls()
        load_strictly(model, state, Path(path).name)
        return model.eval()

    @property
    def weights_hash(self) -> str:
        """SHA-256 (hex) of the weights."""
        return weights_hash(self)

    def forward(self, windows: Float[Tensor, "n length"]) -> Float[Tensor, "n width"]:
        """Return the vector of each prepared window of any length."""
        return self.blocks(F.instance_norm(windows[:, None])).amax(-1)

    def embed(self, windows: Float[Tensor, "n samples"]) -> Float[Tensor, "n width"]:
        """Return each window's vector; windows as `prepare` returns them."""
        if windows.shape[1] != self.samples_per_window:
            raise ValueError(
                f"windows have {windows.shape[1]} samples; Pulse-PPG needs {self.samples_per_window}."
            )
        return embed_in_batches(self, self, windows, self.width)

    @staticmethod
    def prepare(samples: Float[np.ndarray, "n m"], sampling_rate_hz: float) -> Float[np.ndarray, "n 1500"]:
        """Turn raw 30 s windows into what `embed` takes."""
        return bandpass_windows(samples, sampling_rate_hz, PulsePPG.sampling_rate_hz)
