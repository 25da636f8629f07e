"""PaPaGei-S as a window encoder: three 10 s segments at 125 Hz, their vectors averaged.

Source: PaPaGei (arXiv 2410.20542), its published code and checkpoint ``papagei_s.pt`` (Zenodo 13983110),
which the user downloads. Averaging three segments per 30 s window is our decision.
"""

from pathlib import Path

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models.encoders.bandpass import bandpass_windows
from models.encoders.base import embed_in_batches
from models.encoders.published_weights import load_strictly, read_state_dict, weights_hash
from models.encoders.resnet1d import ResNet1D

SEGMENTS = 3
MORPHOLOGY_HEADS = ("expert_layers_", "gating_network_")
"""Parts of the checkpoint that predict pulse morphology in pretraining; the embedding does not pass them."""


class PaPaGeiS(ResNet1D):
    """The embedding path of PaPaGei-S, 5.0 M weights, 512 wide. Satisfies `models.encoders.base.Encoder`."""

    name = "papagei_s"
    width = 512
    sampling_rate_hz = 125.0
    samples_per_window = 3750

    def __init__(self):
        super().__init__(base_filters=32, kernel=3, n_blocks=18)
        self.final_bn = nn.BatchNorm1d(self.out_channels)
        self.dense = nn.Linear(self.out_channels, self.width)

    @classmethod
    def from_checkpoint(cls, path: Path | str) -> "PaPaGeiS":
        """Load the published checkpoint, with or without ``module.`` before its keys.

        Raises
        ------
        CheckpointMismatch
            The file cannot be read without unpickling objects, or is no PaPaGei-S.
        """
        state, _ = read_state_dict(path)
        model = cls()
        kept = {key: value for key, value in state.items() if not key.startswith(MORPHOLOGY_HEADS)}
        load_strictly(model, kept, Path(path).name)
        return model.eval()

    @property
    def weights_hash(self) -> str:
        """SHA-256 (hex) of the weights."""
        return weights_hash(self)

    def forward(self, segments: Float[Tensor, "n length"]) -> Float[Tensor, "n width"]:
        """Return the vector of each prepared 10 s segment."""
        x = F.relu(self.final_bn(self.blocks(segments[:, None])))
        return self.dense(x.mean(-1))

    def embed(self, windows: Float[Tensor, "n samples"]) -> Float[Tensor, "n width"]:
        """Return the mean vector of each window's three segments; windows as `prepare` returns them."""
        if windows.shape[1] != self.samples_per_window:
            raise ValueError(
                f"windows have {windows.shape[1]} samples; PaPaGei-S needs {self.samples_per_window}."
            )
        return embed_in_batches(self, self._mean_of_segments, windows, self.width)

    def _mean_of_segments(self, windows: Tensor) -> Tensor:
        segments = windows.unflatten(1, (SEGMENTS, -1))
        return self(segments.flatten(0, 1)).unflatten(0, (-1, SEGMENTS)).mean(1)

    @staticmethod
    def prepare(samples: Float[np.ndarray, "n m"], sampling_rate_hz: float) -> Float[np.ndarray, "n 3750"]:
        """Turn raw 30 s windows into what `embed` takes."""
        return bandpass_windows(samples, sampling_rate_hz, PaPaGeiS.sampling_rate_hz, SEGMENTS)
