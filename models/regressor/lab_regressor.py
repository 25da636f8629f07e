"""The sequence model: window embeddings in, one estimate per step and lab out.

Source: UNIPHY+Lab (arXiv 2509.16345): Mamba blocks shared by all labs, one more block per lab, each layer's
scan started at h0 from the patient's history. Sizes, gap handling and packing are ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.regressor.config import LabRegressorConfig
from models.regressor.inputs import PackedInputs
from models.regressor.mamba_block import MambaBlock, MambaState
from models.regressor.packing import chunks, enter, skips
from models.regressor.patient_state import PatientState
from models.regressor.slow_features import fit_input_scale, input_scale
from models.regressor.waveform_readout import WaveformReadout
from models.regressor.window_reader import trailing

SequenceState = list[MambaState]
"""One state per layer: the backbone's blocks, then one block per lab, then those of the waveform's read-out, if any."""


@dataclass(frozen=True, kw_only=True)
class LineInputs:
    """What the closed-form part of a model is fitted on.

    Attributes
    ----------
    means : running means of the features, by time constant
    history : each lab's own, per piece; no columns without lines through it
    windows, usable : the latest windows of every step, and which hold something; None without a reader
    """

    means: Float[Tensor, "steps scales features"]
    history: Float[Tensor, "pieces labs history"]
    windows: Float[Tensor, "steps windows features"] | None
    usable: Bool[Tensor, "steps windows"] | None


class TaskLayer(nn.Module):
    """One lab's own layer: a block that starts at its own patient state, a norm and a linear read-out."""

    def __init__(self, config: LabRegressorConfig, lab: str):
        super().__init__()
        own = [config.history_labs.index(lab)]
        skip_width = config.d_model if config.history_skip else None
        self.patient_state = _patient_state(config, own, n_layers=1, skip_width=skip_width)
        self.block = MambaBlock(config.mamba, config.dropout)
        self.norm = nn.RMSNorm(config.d_model, eps=1e-5)
        self.head = nn.Linear(config.d_model, 1)
        nn.init.zeros_(self.head.weight)  # the first estimate is the bias: the training mean

    def read_out(self, x: Float[Tensor, "steps d_model"]) -> Float[Tensor, "steps 1"]:
        """Turn the block's output into an estimate."""
        return self.head(self.norm(x))


class LabRegressor(nn.Module):
    """Blocks shared by all labs, then one `TaskLayer` per lab; estimates are in scaled units."""

    def __init__(self, config: LabRegressorConfig):
        super().__init__()
        self.config = config
        c = config
        self.input_scale = input_scale(c.embed_width, c.slow_features)
        self.waveform = WaveformReadout(c.feature_width, len(c.task_labs), c.mean_steps, c.reader_width)
        width = c.feature_width + self.waveform.mean_width
        self.input_norm = nn.RMSNorm(width, eps=1e-5)
        self.input_proj = nn.Linear(width, c.d_model)
        self.missing_embedding = nn.Parameter(torch.randn(c.d_model) * 0.02)
        self.patient_state = _patient_state(c, range(len(c.history_labs)), c.n_blocks)
        self.backbone = nn.ModuleList(MambaBlock(c.mamba, c.dropout) for _ in range(c.n_blocks))
        self.tasks = nn.ModuleDict({lab: TaskLayer(c, lab) for lab in c.task_labs})
        self.log_variance = nn.Parameter(torch.zeros(len(c.task_labs)))

    @property
    def _n_layers(self) -> int:
        return len(self.backbone) + len(self.tasks)

    @property
    def _blocks(self) -> list[MambaBlock]:
        return cast(list[MambaBlock], list(self.backbone))

    @property
    def _tasks(self) -> list[TaskLayer]:
        return cast(list[TaskLayer], list(self.tasks.values()))

    def set_output_means(self, means: Float[Tensor, " labs"]) -> None:
        """Start every lab's read-out at the training mean, in scaled units."""
        with torch.no_grad():
            for task, mean in zip(self._tasks, means, strict=True):
                task.head.bias.fill_(float(mean))

    def fit_input_scales(self, inputs: PackedInputs) -> None:
        """Standardise embeddings, history and pooled vectors by those of `inputs`: training pieces alone."""
        fit_input_scale(self.input_scale, inputs.embeddings, inputs.step_mask, inputs.cu_seqlens.diff())
        pooled = inputs.pooled
        if self.config.slow_features is not None:
            pooled = self._scaled(pooled, inputs.pooled_present)
        for module in [self.patient_state, *(task.patient_state for task in self._tasks)]:
            module.fit_input_scales(inputs.history, inputs.history_present, pooled, inputs.pooled_present)

    def line_inputs(self, inputs: PackedInputs) -> LineInputs:
        """Return what lines and reader read at every step, and each lab's own history."""
        start = self.initial_states(inputs)[self._n_layers :]
        features = self._scaled(inputs.embeddings, inputs.step_mask)
        means = self.waveform.running_means(features, inputs.step_mask, inputs.cu_seqlens, start)[0]
        assert means is not None
        own = [task.patient_state.line_inputs(inputs.history, inputs.history_present) for task in self._tasks]
        windows, usable = None, None
        if self.waveform.reader is not None:
            before = cast(Tensor, start[-1].conv)
            windows, usable, _ = trailing(features, inputs.step_mask, inputs.cu_seqlens, before)
        by_scale = means.unflatten(-1, (len(self.config.mean_steps), -1))
        return LineInputs(means=by_scale, history=torch.stack(own, dim=1), windows=windows, usable=usable)

    def set_line(
        self, lab: str, waveform: np.ndarray, reading: np.ndarray | None, history: np.ndarray, bias: float
    ) -> None:
        """Set one lab's lines through running means and its own history, its read-out of windows, and its bias."""
        task = cast(TaskLayer, self.tasks[lab])
        self.waveform.set_lab(self.config.task_labs.index(lab), waveform, reading)
        with torch.no_grad():
            task.head.bias.fill_(bias)
            if task.patient_state.line is not None:
                task.patient_state.line.weight[0].copy_(torch.as_tensor(history))

    @property
    def reads_waveform(self) -> Bool[np.ndarray, " labs"]:
        """Which labs' estimates change with the waveform: through the network, or through line and reader."""
        network = [bool((task.head.weight != 0).any()) for task in self._tasks]
        return np.array(network) | self.waveform.reads

    def hold_lines(self) -> None:
        """Leave the lines and the reader as they are in training."""
        self.waveform.hold()
        for task in self._tasks:
            if task.patient_state.line is not None:
                task.patient_state.line.requires_grad_(False)

    def forward(
        self,
        inputs: PackedInputs,
        *,
        chunk_steps: int | None = None,
        detach: bool = False,
        initial: SequenceState | None = None,
    ) -> Float[Tensor, "steps labs"]:
        """Estimate every lab at every step.

        Parameters
        ----------
        chunk_steps : process the pack in runs of so many steps, each handing its states to the next, and keep
            only what lies between runs, so that memory does not grow with the pack but for its inputs. The
            gradient is that of the whole: each run is computed again for it.
        detach : hand states on without their gradients (truncated back-propagation through time)
        initial : start here instead of at the patient's state, e.g. at `final_states` of other pieces (state
            passing)
        """
        states = self.initial_states(inputs) if initial is None else initial
        if chunk_steps is None or len(inputs.embeddings) <= chunk_steps:
            return self._run(inputs.embeddings, inputs.step_mask, inputs.cu_seqlens, states)[0]
        outputs, carried = [], states
        for chunk in chunks(inputs.cu_seqlens, chunk_steps):
            entry = [enter(chunk, *pair) for pair in zip(states, carried, strict=True)]
            steps = slice(chunk.start, chunk.stop)
            arguments = inputs.embeddings[steps], inputs.step_mask[steps], chunk.cu_seqlens, entry
            if torch.is_grad_enabled():
                output, carried = checkpoint(self._run, *arguments, use_reentrant=False)
            else:
                output, carried = self._run(*arguments)
            carried = [state.detach() for state in carried] if detach else carried
            outputs.append(output)
        return torch.cat(outputs)

    def initial_states(self, inputs: PackedInputs) -> SequenceState:
        """Return every layer's h0 per piece."""
        return self.init_stream(inputs.history, inputs.history_present, inputs.pooled, inputs.pooled_present)

    def final_states(self, inputs: PackedInputs) -> SequenceState:
        """Return every layer's state after each piece, without gradients."""
        with torch.no_grad():
            states = self.initial_states(inputs)
            return self._run(inputs.embeddings, inputs.step_mask, inputs.cu_seqlens, states)[1]

    def init_stream(
        self,
        history: Float[Tensor, "pieces labs features"],
        history_present: Bool[Tensor, "pieces labs"],
        pooled: Float[Tensor, "pieces embed_width"],
        pooled_present: Bool[Tensor, " pieces"],
    ) -> SequenceState:
        """Return the states before the first step, for use with `step`."""
        scaled = self._scaled(pooled, pooled_present)
        pooled = pooled if self.config.slow_features is None else scaled
        patient = history, history_present, pooled, pooled_present
        modules = [self.patient_state, *(task.patient_state for task in self._tasks)]
        states = [state for module in modules for state in module(*patient)]
        known = pooled_present & (self.config.patient_state == "pcs")
        return states + self.waveform.start(scaled, known)

    def step(
        self,
        states: SequenceState,
        embeddings: Float[Tensor, "pieces embed_width"],
        step_mask: Bool[Tensor, " pieces"],
    ) -> tuple[Float[Tensor, "pieces labs"], SequenceState]:
        """Advance every piece by one step; equal to `forward` over the same steps but for rounding."""
        states, features = list(states), self._scaled(embeddings, step_mask)
        means, read, after = self.waveform.step(features, step_mask, states[self._n_layers :])
        states[self._n_layers :] = after
        x = self._encode(features, means, step_mask)
        for i, block in enumerate(self._blocks):
            x, states[i] = block.step(x, states[i], step_mask)
        outputs = []
        for i, task in enumerate(self._tasks, start=len(self.backbone)):
            skip = states[i].skip
            y, state = task.block.step(x if skip is None else x + skip[:, :-1], states[i], step_mask)
            states[i] = replace(state, skip=skip)
            outputs.append(task.read_out(y) + (0.0 if skip is None else skip[:, -1:]))
        return torch.cat(outputs, dim=-1) + read, states

    def initial_state_survival(
        self, inputs: PackedInputs, steps: Int[Tensor, " asked"]
    ) -> Float[Tensor, "asked layers 2"]:
        """Return the share of h0 alive after some steps, exp(A sum delta), layers as in `SequenceState`.

        First its mean over a layer's channels and states, then that of the slowest of them.
        """
        mask, bounds = inputs.step_mask[None], inputs.cu_seqlens
        with torch.no_grad():
            states, shares = self.initial_states(inputs), []
            features = self._scaled(inputs.embeddings, inputs.step_mask)
            start = states[self._n_layers :]
            means, _ = self.waveform.running_means(features, inputs.step_mask, bounds, start)
            x = self._encode(features, means, inputs.step_mask)[None]
            for block, state in zip(self._blocks, states, strict=False):
                shares.append(block.survival(x, mask, bounds, steps))
                x = block(x, state, step_mask=mask, cu_seqlens=bounds)[0]
            for task, state in zip(self._tasks, states[len(self.backbone) :], strict=False):
                own = x + skips(state, bounds, x.shape[1])[0]
                shares.append(task.block.survival(own, mask, bounds, steps))
            return torch.stack(shares, dim=1)

    def _run(
        self,
        embeddings: Float[Tensor, "steps embed_width"],
        step_mask: Bool[Tensor, " steps"],
        cu_seqlens: Int[Tensor, " pieces_plus_1"],
        states: SequenceState,
    ) -> tuple[Float[Tensor, "steps labs"], SequenceState]:
        """Return the estimates and the states after each piece."""
        mask = step_mask[None]
        features = self._scaled(embeddings, step_mask)
        means, read, after = self.waveform(features, step_mask, cu_seqlens, states[self._n_layers :])
        x, outputs, finals = self._encode(features, means, step_mask)[None], [], []
        for block, state in zip(self._blocks, states, strict=False):
            x, final = block(x, state, step_mask=mask, cu_seqlens=cu_seqlens)
            finals.append(final)
        for task, state in zip(self._tasks, states[len(finals) :], strict=False):
            into_layer, into_estimate = skips(state, cu_seqlens, len(step_mask))
            y, final = task.block(x + into_layer, state, step_mask=mask, cu_seqlens=cu_seqlens)
            finals.append(replace(final, skip=state.skip))
            outputs.append(task.read_out(y[0]) + into_estimate)
        return torch.cat(outputs, dim=-1) + read, finals + after

    def _scaled(
        self, embeddings: Float[Tensor, "rows embed_width"], usable: Bool[Tensor, " rows"]
    ) -> Float[Tensor, "rows features"]:
        # Rows of masked steps may hold anything, NaN included, and NaN would reach the weights' gradients.
        return self.input_scale(embeddings.masked_fill(~usable[:, None], 0.0))

    def _encode(
        self,
        features: Float[Tensor, "steps features"],
        means: Tensor | None,
        step_mask: Bool[Tensor, " steps"],
    ) -> Float[Tensor, "steps d_model"]:
        x = features if means is None else torch.cat([features, means], dim=-1)
        x = self.input_proj(self.input_norm(x))
        return torch.where(step_mask[:, None], x, self.missing_embedding)


def _patient_state(
    config: LabRegressorConfig, labs: Sequence[int], n_layers: int, skip_width: int | None = None
) -> PatientState:
    return PatientState(
        config.patient_state, labs=labs, n_layers=n_layers, n_features=config.history_features,
        embed_width=config.feature_width, width=config.trunk_width,
        state_shape=(config.mamba.d_inner, config.d_state), skip_width=skip_width,
    )  # fmt: skip
