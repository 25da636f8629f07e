"""The LSTM baseline: the latest few windows alone, no history."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from models.regressor.config import FIVE_LABS
from models.regressor.slow_features import fit_input_scale, input_scale
from models.regressor.window_reader import N_WINDOWS, WindowReader


@dataclass(frozen=True, kw_only=True)
class WindowLSTMConfig:
    """Sizes of the baseline.

    Attributes
    ----------
    embed_width : of the encoder's window embedding
    task_labs : labs estimated, in the order of the output's columns
    n_windows : latest windows seen, 10 = 5 min
    hidden : width of the LSTM
    dropout : share dropped before the read-outs, in training mode alone
    slow_features : number of lasting directions of the embedding seen instead of all of it; see
        ``LabRegressorConfig``
    """

    embed_width: int
    task_labs: tuple[str, ...] = FIVE_LABS
    n_windows: int = N_WINDOWS
    hidden: int = 256
    dropout: float = 0.1
    slow_features: int | None = None

    def __post_init__(self) -> None:
        for name in ("embed_width", "n_windows", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must lie in [0, 1).")
        if not self.task_labs or len(set(self.task_labs)) < len(self.task_labs):
            raise ValueError(f"task_labs is {self.task_labs}; it must name at least one lab, and none twice.")
        if self.slow_features is not None and not 1 <= self.slow_features <= self.embed_width:
            raise ValueError(
                f"slow_features is {self.slow_features}; it must lie in [1, embed_width = {self.embed_width}]."
            )

    @property
    def feature_width(self) -> int:
        """Numbers per window that the LSTM reads."""
        return self.slow_features or self.embed_width


class WindowLSTM(WindowReader):
    """The LSTM over the latest windows as a method of its own: embeddings in, scaled estimates out."""

    def __init__(self, config: WindowLSTMConfig):
        super().__init__(config.feature_width, len(config.task_labs), config.hidden, config.dropout)
        self.config = config
        self.input_scale = input_scale(config.embed_width, config.slow_features)
        self.log_variance = nn.Parameter(torch.zeros(len(config.task_labs)))

    @property
    def reads_waveform(self) -> Bool[np.ndarray, " labs"]:
        """Which labs' estimates are read from the waveform: all, for it reads nothing else."""
        return np.ones(len(self.config.task_labs), dtype=bool)

    def set_output_means(self, means: Float[Tensor, " labs"]) -> None:
        """Start every lab's read-out at the training mean, in scaled units."""
        with torch.no_grad():
            self.heads.bias.copy_(means)

    def fit_input_scales(
        self, windows: Float[Tensor, "n windows embed_width"], window_mask: Bool[Tensor, "n windows"]
    ) -> None:
        """Standardise embeddings by those of `windows`: training patients' alone."""
        n_windows = torch.full((len(windows),), windows.shape[1], device=windows.device)
        fit_input_scale(self.input_scale, windows.flatten(0, 1), window_mask.flatten(), n_windows)

    def forward(
        self, windows: Float[Tensor, "n windows embed_width"], window_mask: Bool[Tensor, "n windows"]
    ) -> Float[Tensor, "n labs"]:
        """Estimate every lab at the last of the windows; masked ones are a learned vector."""
        usable = window_mask[..., None]
        return super().forward(self.input_scale(windows.masked_fill(~usable, 0.0)), window_mask)
