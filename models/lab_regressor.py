"""The sequence model: window embeddings in, one estimate per step and lab out.

Source: UNIPHY+Lab (arXiv 2509.16345): Mamba blocks shared by all labs, one more block per lab, each layer's
scan started at h0 from the patient's history. Sizes, gap handling and packing are ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.inputs import PackedInputs
from models.mamba_block import MambaBlock, MambaConfig, MambaState
from models.packing import chunks, enter, per_step
from models.patient_state import MODES, PatientState, PatientStateMode
from models.standardize import Standardize

FIVE_LABS = ("potassium", "calcium", "sodium", "glucose", "lactate")
SequenceState = list[MambaState]
"""One state per layer: the backbone's blocks, then one block per lab."""


@dataclass(frozen=True, kw_only=True)
class LabRegressorConfig:
    """Sizes of the sequence model.

    Attributes
    ----------
    embed_width : of the encoder's window embedding
    task_labs : labs estimated, in the order of the output's columns
    history_labs : labs of the history, in the order of its second axis; the shared trunk sees them all
    history_features : per lab
    d_model, n_blocks, d_state, expand, d_conv : of the shared backbone's Mamba blocks, and of each lab's own
    dropout : share dropped after each mixer and MLP, in training mode alone
    patient_state : where states start: "none" (zeros), "learned" (a constant) or "pcs" (patient-conditioned)
    trunk_width : of the patient's code
    dt_min : shortest step size at initialisation: 0.001 gives the slowest mode of a state, h0 included, a
        memory of 1000 steps (8 h)
    history_skip : add a projection of the patient's code to what each lab's own layer reads at every step, and a
        line through that lab's history to its estimate; mode "pcs" alone. h0 fades and the norm before the
        read-out bounds it, so that a far-off last value can hardly be held; this can. Ours; the paper
        conditions by h0 alone.
    """

    embed_width: int
    task_labs: tuple[str, ...] = FIVE_LABS
    history_labs: tuple[str, ...] = FIVE_LABS
    history_features: int = 4
    d_model: int = 256
    n_blocks: int = 4
    d_state: int = 16
    expand: int = 2
    d_conv: int = 4
    dropout: float = 0.1
    patient_state: PatientStateMode = "pcs"
    trunk_width: int = 128
    dt_min: float = 0.001
    history_skip: bool = False

    def __post_init__(self) -> None:
        for name in ("embed_width", "history_features", "n_blocks", "trunk_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must lie in [0, 1).")
        if self.patient_state not in MODES:
            raise ValueError(
                f"patient_state is {self.patient_state!r}; it must be one of {', '.join(MODES)}."
            )
        if not self.task_labs or len(set(self.task_labs)) < len(self.task_labs):
            raise ValueError(f"task_labs is {self.task_labs}; it must name at least one lab, and none twice.")
        if unknown := set(self.task_labs) - set(self.history_labs):
            raise ValueError(f"task_labs has {', '.join(sorted(unknown))}; history_labs must hold it too.")
        _ = self.mamba  # its own checks

    @property
    def mamba(self) -> MambaConfig:
        """Sizes of each Mamba layer."""
        return MambaConfig(
            d_model=self.d_model, d_state=self.d_state, d_conv=self.d_conv, expand=self.expand, dt_min=self.dt_min
        )  # fmt: skip


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
        self.input_scale = Standardize(c.embed_width)
        self.input_norm = nn.RMSNorm(c.embed_width, eps=1e-5)
        self.input_proj = nn.Linear(c.embed_width, c.d_model)
        self.missing_embedding = nn.Parameter(torch.randn(c.d_model) * 0.02)
        self.patient_state = _patient_state(c, range(len(c.history_labs)), c.n_blocks)
        self.backbone = nn.ModuleList(MambaBlock(c.mamba, c.dropout) for _ in range(c.n_blocks))
        self.tasks = nn.ModuleDict({lab: TaskLayer(c, lab) for lab in c.task_labs})
        self.log_variance = nn.Parameter(torch.zeros(len(c.task_labs)))

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
        self.input_scale.fit(inputs.embeddings, inputs.step_mask)
        for module in [self.patient_state, *(task.patient_state for task in self._tasks)]:
            module.fit_input_scales(inputs)

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
        patient = history, history_present, pooled, pooled_present
        modules = [self.patient_state, *(task.patient_state for task in self._tasks)]
        return [state for module in modules for state in module(*patient)]

    def step(
        self,
        states: SequenceState,
        embeddings: Float[Tensor, "pieces embed_width"],
        step_mask: Bool[Tensor, " pieces"],
    ) -> tuple[Float[Tensor, "pieces labs"], SequenceState]:
        """Advance every piece by one step; equal to `forward` over the same steps but for rounding."""
        x, states = self._encode(embeddings, step_mask), list(states)
        for i, block in enumerate(self._blocks):
            x, states[i] = block.step(x, states[i], step_mask)
        outputs = []
        for i, task in enumerate(self._tasks, start=len(self.backbone)):
            skip = states[i].skip
            y, state = task.block.step(x if skip is None else x + skip[:, :-1], states[i], step_mask)
            states[i] = replace(state, skip=skip)
            outputs.append(task.read_out(y) + (0.0 if skip is None else skip[:, -1:]))
        return torch.cat(outputs, dim=-1), states

    def initial_state_survival(
        self, inputs: PackedInputs, mode: str = "mean"
    ) -> Float[Tensor, "steps layers"]:
        """Return the share of h0 alive after each step, exp(A sum delta), layers as in `SequenceState`.

        Parameters
        ----------
        mode : "mean" over all channels and states, or the "slowest" of them
        """
        mask, bounds = inputs.step_mask[None], inputs.cu_seqlens
        with torch.no_grad():
            x, shares = self._encode(inputs.embeddings, inputs.step_mask)[None], []
            states = self.initial_states(inputs)
            for block, state in zip(self._blocks, states, strict=False):
                shares.append(block.survival(x, mask, bounds, mode))
                x = block(x, state, step_mask=mask, cu_seqlens=bounds)[0]
            for task, state in zip(self._tasks, states[len(self.backbone) :], strict=True):
                own = x + _skips(state, bounds, x.shape[1])[0]
                shares.append(task.block.survival(own, mask, bounds, mode))
            return torch.stack(shares, dim=-1)

    def _run(
        self,
        embeddings: Float[Tensor, "steps embed_width"],
        step_mask: Bool[Tensor, " steps"],
        cu_seqlens: Int[Tensor, " pieces_plus_1"],
        states: SequenceState,
    ) -> tuple[Float[Tensor, "steps labs"], SequenceState]:
        """Return the estimates and the states after each piece."""
        mask = step_mask[None]
        x = self._encode(embeddings, step_mask)[None]
        outputs, finals = [], []
        for block, state in zip(self._blocks, states, strict=False):
            x, final = block(x, state, step_mask=mask, cu_seqlens=cu_seqlens)
            finals.append(final)
        for task, state in zip(self._tasks, states[len(finals) :], strict=True):
            into_layer, into_estimate = _skips(state, cu_seqlens, len(step_mask))
            y, final = task.block(x + into_layer, state, step_mask=mask, cu_seqlens=cu_seqlens)
            finals.append(replace(final, skip=state.skip))
            outputs.append(task.read_out(y[0]) + into_estimate)
        return torch.cat(outputs, dim=-1), finals

    def _encode(
        self, embeddings: Float[Tensor, "steps embed_width"], step_mask: Bool[Tensor, " steps"]
    ) -> Float[Tensor, "steps d_model"]:
        usable = step_mask[:, None]
        # Rows of masked steps may hold anything, NaN included, and NaN would reach the weights' gradients.
        x = self.input_scale(embeddings.masked_fill(~usable, 0.0))
        x = self.input_proj(self.input_norm(x))
        return torch.where(usable, x, self.missing_embedding)


def _skips(
    state: MambaState, cu_seqlens: Int[Tensor, " pieces_plus_1"], n_steps: int
) -> tuple[Float[Tensor, "steps d_model"] | float, Float[Tensor, "steps 1"] | float]:
    """Return what the history skip adds at every step to a layer's input and to its estimate; 0 without one."""
    if state.skip is None:
        return 0.0, 0.0
    rows = per_step(state.skip, cu_seqlens, n_steps)
    return rows[:, :-1], rows[:, -1:]


def _patient_state(
    config: LabRegressorConfig, labs: Sequence[int], n_layers: int, skip_width: int | None = None
) -> PatientState:
    return PatientState(
        config.patient_state, labs=labs, n_layers=n_layers, n_features=config.history_features,
        embed_width=config.embed_width, width=config.trunk_width,
        state_shape=(config.mamba.d_inner, config.d_state), skip_width=skip_width,
    )  # fmt: skip
