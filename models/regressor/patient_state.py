"""Where a sequence model's state starts: at zero, at a learned constant, or at what history tells."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from models.regressor.mamba_block import MambaState
from models.regressor.standardize import Standardize

PatientStateMode = Literal["none", "learned", "pcs"]
MODES: tuple[str, ...] = get_args(PatientStateMode)


class HistoryTrunk(nn.Module):
    """The patient in one code: the labs' history, modulated (FiLM) by the mean of earlier window embeddings.

    code = SiLU(gamma * base(history) + beta), with gamma = 1 + dgamma, and dgamma and beta from the pooled
    waveform through a layer that starts at zero. A lab without history, and a patient without earlier
    windows, are a learned null each. Source: UNIPHY+Lab (arXiv 2509.16345), equation 1; sizes and zero
    start are ours.

    Parameters
    ----------
    n_labs, n_features : of the history
    embed_width : of the pooled waveform vector
    width : of the code
    """

    def __init__(self, n_labs: int, n_features: int, embed_width: int, width: int):
        super().__init__()
        self.history_scale = Standardize(n_labs, n_features)
        self.pooled_scale = Standardize(embed_width)
        self.lab_embedding = nn.ModuleList(nn.Linear(n_features, width) for _ in range(n_labs))
        self.null_history = nn.Parameter(torch.randn(n_labs, width) * 0.02)
        self.mix = nn.Linear(width, width)
        self.pooled_norm = nn.RMSNorm(embed_width, eps=1e-5)
        self.pooled_embedding = nn.Linear(embed_width, width)
        self.null_pooled = nn.Parameter(torch.randn(width) * 0.02)
        self.film = nn.Linear(width, 2 * width)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(
        self,
        history: Float[Tensor, "pieces labs features"],
        history_present: Bool[Tensor, "pieces labs"],
        pooled: Float[Tensor, "pieces embed_width"],
        pooled_present: Bool[Tensor, " pieces"],
    ) -> Float[Tensor, "pieces width"]:
        """Return the code; values where nothing is present are ignored, whatever they are."""
        history = self.standardised(history, history_present)
        pooled = self.pooled_scale(pooled.masked_fill(~pooled_present[:, None], 0.0))
        labs = torch.stack([embed(history[:, i]) for i, embed in enumerate(self.lab_embedding)], dim=1)
        labs = torch.where(history_present[..., None], labs, self.null_history.to(labs.dtype))
        base = self.mix(F.silu(labs.sum(1)))
        waveform = F.silu(self.pooled_embedding(self.pooled_norm(pooled)))
        waveform = torch.where(pooled_present[:, None], waveform, self.null_pooled.to(waveform.dtype))
        dgamma, beta = self.film(waveform).chunk(2, dim=-1)
        return F.silu((1 + dgamma) * base + beta)

    def standardised(
        self, history: Float[Tensor, "pieces labs features"], history_present: Bool[Tensor, "pieces labs"]
    ) -> Float[Tensor, "pieces labs features"]:
        """Return the scaled history, with zeros (the training mean) where a lab has none."""
        absent = ~history_present[..., None]
        return self.history_scale(history.masked_fill(absent, 0.0)).masked_fill(absent, 0.0)


class PatientState(nn.Module):
    """h0 of several Mamba layers, each (d_inner, d_state), from one shared trunk.

    Parameters
    ----------
    mode : "none" (zeros), "learned" (one constant for everybody), "pcs" (from the patient's history)
    labs : indices, among the labs of the history, of those that this module sees
    n_layers : layers to serve
    n_features, embed_width, width : of the trunk
    state_shape : (d_inner, d_state)
    skip_width : width of a history skip (see `LabRegressorConfig`), mode "pcs" alone; None: no skip
    """

    def __init__(
        self,
        mode: PatientStateMode,
        *,
        labs: Sequence[int],
        n_layers: int,
        n_features: int,
        embed_width: int,
        width: int,
        state_shape: tuple[int, int],
        skip_width: int | None = None,
    ):
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"patient_state is {mode!r}; it must be one of {', '.join(MODES)}.")
        self.mode, self.labs, self.n_layers, self.state_shape = mode, tuple(labs), n_layers, state_shape
        self.skip = self.line = None
        if mode == "learned":
            self.initial_state = nn.Parameter(torch.zeros(n_layers, *state_shape))
        if mode == "pcs":
            self.trunk = HistoryTrunk(len(self.labs), n_features, embed_width, width)
            self.projections = nn.ModuleList(
                nn.Linear(width, state_shape[0] * state_shape[1]) for _ in range(n_layers)
            )
            self.skip = None if skip_width is None else nn.Linear(width, skip_width)
            self.line = None if skip_width is None else nn.Linear(len(self.labs) * n_features, 1, bias=False)
            skips = [layer for layer in (self.skip, self.line) if layer is not None]
            starts_at_zero = nn.ModuleList([*self.projections, *skips])
            for parameter in starts_at_zero.parameters():
                nn.init.zeros_(parameter)

    def fit_input_scales(
        self,
        history: Float[Tensor, "pieces labs features"],
        history_present: Bool[Tensor, "pieces labs"],
        pooled: Float[Tensor, "pieces embed_width"],
        pooled_present: Bool[Tensor, " pieces"],
    ) -> None:
        """Standardise history and pooled vectors by these: those of training pieces alone."""
        if self.mode == "pcs":
            labs = list(self.labs)
            self.trunk.history_scale.fit(history[:, labs], history_present[:, labs])
            self.trunk.pooled_scale.fit(pooled, pooled_present)

    def forward(
        self,
        history: Float[Tensor, "pieces labs features"],
        history_present: Bool[Tensor, "pieces labs"],
        pooled: Float[Tensor, "pieces embed_width"],
        pooled_present: Bool[Tensor, " pieces"],
    ) -> list[MambaState]:
        """Return, per layer, where it starts: h0 as (pieces, d_inner, d_state), and the skip, if there is one."""
        if self.mode == "none":
            return [MambaState()] * self.n_layers
        if self.mode == "learned":
            shape = len(history), *self.state_shape
            return [MambaState(ssm=state.expand(shape)) for state in self.initial_state]
        labs = list(self.labs)
        code = self.trunk(history[:, labs], history_present[:, labs], pooled, pooled_present)
        skip = None
        if self.skip is not None and self.line is not None:
            plain = self.line_inputs(history, history_present)
            skip = torch.cat([self.skip(code), self.line(plain)], dim=-1).to(history.dtype)
        # The scan keeps its state in full precision, under autocast too.
        return [
            MambaState(ssm=projection(code).to(history.dtype).unflatten(-1, self.state_shape), skip=skip)
            for projection in self.projections
        ]

    def line_inputs(
        self, history: Float[Tensor, "pieces labs features"], history_present: Bool[Tensor, "pieces labs"]
    ) -> Float[Tensor, "pieces inputs"]:
        """Return what the line reads: the standardised history of this module's labs; nothing without a line."""
        if self.line is None:
            return history.new_zeros(len(history), 0)
        labs = list(self.labs)
        return self.trunk.standardised(history[:, labs], history_present[:, labs]).flatten(1)
