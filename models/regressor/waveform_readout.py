"""What the waveform says by itself: a line through running means of it, and a reader of its latest minutes."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from models.regressor.mamba_block import MambaState
from models.regressor.slow_features import RunningMeans
from models.regressor.window_reader import WindowReader, no_windows, trailing, trailing_step

Readings = tuple[Tensor | None, Tensor | float, list[MambaState]]
"""The running means (None without any), what is added to every lab's estimate, and the states."""


class WaveformReadout(nn.Module):
    """Running means of the features, a line through them, and an LSTM over the latest windows; each optional.

    Line and read-outs start at zero. State: one ``MambaState`` for the running means, then one for the windows.
    Ours; see ``LabRegressorConfig``.

    Parameters
    ----------
    n_features : of a window, as the model sees it
    n_labs : labs estimated
    mean_steps : time constants of the running means, steps
    reader_width : width of the LSTM; None: no reader
    """

    def __init__(self, n_features: int, n_labs: int, mean_steps: Sequence[float], reader_width: int | None):
        super().__init__()
        self.n_features, self.n_labs = n_features, n_labs
        self.means = RunningMeans(n_features, mean_steps) if mean_steps else None
        self.mean_width = len(mean_steps) * n_features
        self.line = nn.Linear(self.mean_width, n_labs, bias=False) if mean_steps else None
        if self.line is not None:
            nn.init.zeros_(self.line.weight)
        self.reader = None if reader_width is None else WindowReader(n_features, n_labs, reader_width)
        if self.reader is not None:
            nn.init.zeros_(self.reader.heads.bias)

    def start(
        self, pooled: Float[Tensor, "pieces features"], present: Bool[Tensor, " pieces"]
    ) -> list[MambaState]:
        """Return the states before the first step; the running means begin at the pooled history."""
        states = []
        if self.means is not None:
            states.append(MambaState(ssm=self.means.start(pooled, present)))
        if self.reader is not None:
            states.append(MambaState(conv=no_windows(len(pooled), pooled, self.n_features)))
        return states

    def forward(
        self,
        features: Float[Tensor, "steps features"],
        step_mask: Bool[Tensor, " steps"],
        cu_seqlens: Int[Tensor, " pieces_plus_1"],
        states: Sequence[MambaState],
    ) -> Readings:
        """Read every step of a pack; the states returned are those after each piece."""
        means, last = self.running_means(features, step_mask, cu_seqlens, states)
        if self.reader is None:
            return self._joined(means, last, None)
        read = trailing(features, step_mask, cu_seqlens, cast(Tensor, states[-1].conv))
        return self._joined(means, last, read)

    def running_means(
        self,
        features: Float[Tensor, "steps features"],
        step_mask: Bool[Tensor, " steps"],
        cu_seqlens: Int[Tensor, " pieces_plus_1"],
        states: Sequence[MambaState],
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the running means alone at every step of a pack, and their state after each piece."""
        if self.means is None:
            return None, None
        return self.means(features, step_mask, cu_seqlens, cast(Tensor, states[0].ssm))

    def step(
        self,
        features: Float[Tensor, "pieces features"],
        step_mask: Bool[Tensor, " pieces"],
        states: Sequence[MambaState],
    ) -> Readings:
        """Advance every piece by one step."""
        means, last = None, None
        if self.means is not None:
            means, last = self.means.step(features, step_mask, cast(Tensor, states[0].ssm))
        if self.reader is None:
            return self._joined(means, last, None)
        return self._joined(means, last, trailing_step(features, step_mask, cast(Tensor, states[-1].conv)))

    def _joined(
        self, means: Tensor | None, last: Tensor | None, read: tuple[Tensor, Tensor, Tensor] | None
    ) -> Readings:
        """Add up what line and reader say, and collect the states."""
        estimate, states = 0.0, []
        if self.line is not None and means is not None:
            estimate = estimate + self.line(means)
            states.append(MambaState(ssm=last))
        if read is not None:
            windows, usable, earlier = read
            estimate = estimate + self._read(windows, usable)
            states.append(MambaState(conv=earlier))
        return means, estimate, states

    def set_reader(self, fitted: WindowReader) -> None:
        """Take over how `fitted` reads; its read-outs follow, lab by lab, with `set_lab`."""
        assert self.reader is not None
        taken = {name: value for name, value in fitted.state_dict().items() if "heads" not in name}
        self.reader.load_state_dict({**self.reader.state_dict(), **taken})

    def set_lab(self, column: int, line: np.ndarray, reading: np.ndarray | None) -> None:
        """Set one lab's line through the running means, and its read-out of the windows."""
        assert self.line is not None
        with torch.no_grad():
            self.line.weight[column].copy_(torch.as_tensor(line))
            if self.reader is not None and reading is not None:
                self.reader.heads.weight[column].copy_(torch.as_tensor(reading))

    @property
    def reads(self) -> Bool[np.ndarray, " labs"]:
        """Which labs' estimates change with the waveform: those whose line or read-out is not zero."""
        weights = [
            module.weight for module in (self.line, self.reader and self.reader.heads) if module is not None
        ]
        reads = torch.zeros(self.n_labs, dtype=torch.bool)
        for weight in weights:
            reads |= (weight != 0).any(dim=1).cpu()
        return reads.numpy()

    def hold(self) -> None:
        """Leave line and reader as they are in training."""
        for module in (self.line, self.reader):
            if module is not None:
                module.requires_grad_(False)

    def _read(self, windows: Tensor, mask: Tensor) -> Tensor:
        assert self.reader is not None
        if not len(windows):  # an LSTM refuses an empty batch
            return windows.new_zeros(0, self.reader.heads.out_features)
        return self.reader(windows, mask)
