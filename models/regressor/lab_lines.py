"""Lines without a network: each lab's line through running means of the waveform and its own history.

They are fitted in closed form on training patients (``pipeline.training.line_fit``); nothing learns by gradients. The
interface is that of the sequence model, so that both are run, scored and streamed alike. Ours; the paper has none.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from models.regressor.config import FIVE_LABS
from models.regressor.inputs import PackedInputs
from models.regressor.lab_regressor import LineInputs
from models.regressor.mamba_block import MambaState
from models.regressor.packing import chunks, enter
from models.regressor.slow_features import fit_input_scale, input_scale
from models.regressor.standardize import Standardize
from models.regressor.waveform_readout import WaveformReadout
from models.regressor.window_reader import trailing


@dataclass(frozen=True, kw_only=True)
class LabLinesConfig:
    """Sizes of the lines.

    Attributes
    ----------
    embed_width : of the encoder's window embedding
    task_labs : labs estimated, in the order of the output's columns
    history_labs : labs of the history, in the order of its second axis
    history_features : per lab
    slow_features, mean_steps, reader_width : see ``LabRegressorConfig``; at least one time constant
    """

    embed_width: int
    task_labs: tuple[str, ...] = FIVE_LABS
    history_labs: tuple[str, ...] = FIVE_LABS
    history_features: int = 4
    slow_features: int | None = None
    mean_steps: tuple[float, ...] = (60.0,)
    reader_width: int | None = None

    def __post_init__(self) -> None:
        if not self.mean_steps or any(steps < 1 for steps in self.mean_steps):
            raise ValueError(f"mean_steps is {self.mean_steps}; at least one, and each must be at least 1.")
        if self.slow_features is not None and not 1 <= self.slow_features <= self.embed_width:
            raise ValueError(
                f"slow_features is {self.slow_features}; it must lie in [1, embed_width = {self.embed_width}]."
            )
        if self.reader_width is not None and self.reader_width < 1:
            raise ValueError(f"reader_width is {self.reader_width}; it must be at least 1, or None.")
        if unknown := set(self.task_labs) - set(self.history_labs):
            raise ValueError(f"task_labs has {', '.join(sorted(unknown))}; history_labs must hold it too.")


class LabLines(nn.Module):
    """Each lab's estimate: a bias, and lines through running means, the latest windows' reading and its own history."""

    def __init__(self, config: LabLinesConfig):
        super().__init__()
        self.config = config
        features = config.slow_features or config.embed_width
        n_labs = len(config.task_labs)
        self.input_scale = input_scale(config.embed_width, config.slow_features)
        self.history_scale = Standardize(len(config.history_labs), config.history_features)
        self.waveform = WaveformReadout(features, n_labs, config.mean_steps, config.reader_width)
        self.history_line = nn.Parameter(torch.zeros(n_labs, config.history_features))
        self.bias = nn.Parameter(torch.zeros(n_labs))
        self.requires_grad_(False)

    def set_output_means(self, means: Float[Tensor, " labs"]) -> None:
        """Start every lab at the training mean, in scaled units."""
        self.bias.copy_(means)

    def fit_input_scales(self, inputs: PackedInputs) -> None:
        """Standardise embeddings and history by those of `inputs`: training pieces alone."""
        fit_input_scale(self.input_scale, inputs.embeddings, inputs.step_mask, inputs.cu_seqlens.diff())
        self.history_scale.fit(inputs.history, inputs.history_present)

    def line_inputs(self, inputs: PackedInputs) -> LineInputs:
        """Return what lines and reader read at every step, and each lab's own history."""
        states = self._start(inputs)
        features = self._scaled(inputs.embeddings, inputs.step_mask)
        means = self.waveform.running_means(features, inputs.step_mask, inputs.cu_seqlens, states)[0]
        assert means is not None
        windows, usable = None, None
        if self.waveform.reader is not None:
            before = cast(Tensor, states[-1].conv)
            windows, usable, _ = trailing(features, inputs.step_mask, inputs.cu_seqlens, before)
        by_scale = means.unflatten(-1, (len(self.config.mean_steps), -1))
        return LineInputs(means=by_scale, history=self._own_history(inputs), windows=windows, usable=usable)

    def set_line(
        self, lab: str, waveform: np.ndarray, reading: np.ndarray | None, history: np.ndarray, bias: float
    ) -> None:
        """Set one lab's lines through running means and its own history, its read-out of windows, and its bias."""
        column = self.config.task_labs.index(lab)
        self.waveform.set_lab(column, waveform, reading)
        self.history_line[column].copy_(torch.as_tensor(history))
        self.bias[column] = bias

    @property
    def reads_waveform(self) -> Bool[np.ndarray, " labs"]:
        """Which labs' estimates change with the waveform; the others are a line through the lab's own history."""
        return self.waveform.reads

    def hold_lines(self) -> None:
        """Do nothing: no line learns."""

    def forward(self, inputs: PackedInputs, *, chunk_steps: int | None = None) -> Float[Tensor, "steps labs"]:
        """Estimate every lab at every step; a pack longer than `chunk_steps` in runs of that, states handed on."""
        history = torch.einsum("plh,lh->pl", self._own_history(inputs), self.history_line) + self.bias
        lengths = inputs.cu_seqlens.diff()
        own = history.repeat_interleave(lengths, dim=0, output_size=len(inputs.embeddings))
        states = carried = self._start(inputs)
        read = []
        for chunk in chunks(inputs.cu_seqlens, chunk_steps or max(1, len(inputs.embeddings))):
            entry = [enter(chunk, *pair) for pair in zip(states, carried, strict=True)]
            steps = slice(chunk.start, chunk.stop)
            mask = inputs.step_mask[steps]
            features = self._scaled(inputs.embeddings[steps], mask)
            _, estimate, carried = self.waveform(features, mask, chunk.cu_seqlens, entry)
            read.append(estimate)
        return own + torch.cat(read) if read else own

    def _start(self, inputs: PackedInputs) -> list[MambaState]:
        return self.waveform.start(self._scaled(inputs.pooled, inputs.pooled_present), inputs.pooled_present)

    def _own_history(self, inputs: PackedInputs) -> Float[Tensor, "pieces labs history"]:
        absent = ~inputs.history_present[..., None]
        scaled = self.history_scale(inputs.history.masked_fill(absent, 0.0)).masked_fill(absent, 0.0)
        return scaled[:, [self.config.history_labs.index(lab) for lab in self.config.task_labs]]

    def _scaled(
        self, embeddings: Float[Tensor, "rows embed_width"], usable: Bool[Tensor, " rows"]
    ) -> Float[Tensor, "rows features"]:
        return self.input_scale(embeddings.masked_fill(~usable[:, None], 0.0))  # other rows may hold anything
