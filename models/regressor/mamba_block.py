"""One block of the backbone: a pre-norm residual Mamba-1 layer, then a pre-norm residual gated MLP.

Source: Mamba (arXiv 2312.00752). Names and initialisation of the layer's parameters are those of mamba-ssm's
``Mamba``, so state dicts interchange. What is ours: each sequence may start from a given state, masked steps
leave that state as it is, and sequences of unequal length lie end to end.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from kernels.selective_scan import (
    causal_conv1d,
    causal_conv1d_step,
    run_mamba_layer,
    selective_state_step,
)
from models.regressor.dropout import Dropout


@dataclass(frozen=True, kw_only=True)
class MambaConfig:
    """Sizes of a Mamba-1 layer.

    Attributes
    ----------
    d_model : width of the residual stream
    d_state : states per channel
    d_conv : taps of the causal depthwise convolution
    expand : channels per unit of width
    dt_min, dt_max : range of the step size at initialisation, log-uniform
    dt_floor : lower bound of that draw
    """

    d_model: int
    d_state: int = 16
    d_conv: int = 4
    expand: int = 2
    dt_min: float = 0.001
    dt_max: float = 0.1
    dt_floor: float = 1e-4

    def __post_init__(self) -> None:
        for name in ("d_model", "d_state", "expand"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.d_conv < 2:
            raise ValueError(f"d_conv is {self.d_conv}; it must be at least 2.")
        if not 0 < self.dt_min <= self.dt_max:
            raise ValueError(f"dt_min is {self.dt_min}; it must lie in (0, dt_max = {self.dt_max}].")

    @property
    def d_inner(self) -> int:
        """Channels of the scan."""
        return self.expand * self.d_model

    @property
    def dt_rank(self) -> int:
        """Width from which the step sizes are projected."""
        return math.ceil(self.d_model / 16)


@dataclass(frozen=True, kw_only=True)
class MambaState:
    """What a layer hands from one step to the next, per sequence; None stands for zeros.

    Attributes
    ----------
    ssm : (sequences, d_inner, d_state) state of the scan; at a sequence's start, h0
    conv : (sequences, d_inner, d_conv - 1) latest inputs of the convolution
    skip : (sequences, d_model + 1) what never fades: added at every step to the layer's input and, last column,
        to the estimate
    """

    ssm: Tensor | None = None
    conv: Tensor | None = None
    skip: Tensor | None = None

    def detach(self) -> "MambaState":
        """Return the same state cut off from the autograd graph."""
        return MambaState(
            ssm=None if self.ssm is None else self.ssm.detach(),
            conv=None if self.conv is None else self.conv.detach(),
            skip=None if self.skip is None else self.skip.detach(),
        )


class Mamba(nn.Module):
    """The selective state space layer, with mamba-ssm's parameter names and initialisation."""

    def __init__(self, config: MambaConfig):
        super().__init__()
        self.config = config
        d_inner, rank, d_state = config.d_inner, config.dt_rank, config.d_state
        self.in_proj = nn.Linear(config.d_model, 2 * d_inner, bias=False)
        self.conv1d = nn.Conv1d(d_inner, d_inner, config.d_conv, groups=d_inner, padding=config.d_conv - 1)
        self.x_proj = nn.Linear(d_inner, rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(rank, d_inner)
        self.A_log = nn.Parameter(torch.arange(1.0, d_state + 1).log().repeat(d_inner, 1))
        self.D = nn.Parameter(torch.ones(d_inner))
        self.out_proj = nn.Linear(d_inner, config.d_model, bias=False)
        self._init_step_sizes()

    def _init_step_sizes(self) -> None:
        c = self.config
        nn.init.uniform_(self.dt_proj.weight, -(c.dt_rank**-0.5), c.dt_rank**-0.5)
        low, high = math.log(c.dt_min), math.log(c.dt_max)
        dt = torch.exp(torch.rand(c.d_inner) * (high - low) + low).clamp(min=c.dt_floor)
        with torch.no_grad():
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus(bias) = dt

    def forward(
        self,
        hidden: Float[Tensor, "batch length d_model"],
        state: MambaState | None = None,
        *,
        step_mask: Bool[Tensor, "batch length"] | None = None,
        cu_seqlens: Int[Tensor, " sequences_plus_1"] | None = None,
    ) -> tuple[Float[Tensor, "batch length d_model"], MambaState]:
        """Return the layer's output and the state after each sequence's last step.

        Parameters
        ----------
        state : where each sequence starts; zeros by default
        step_mask : True = real step; a masked one leaves the scan's state as it is, while the convolution
            takes its input as it comes
        cu_seqlens : where sequences start (and the last ends) in a pack of batch 1
        """
        state = state or MambaState()
        y, ssm, conv = run_mamba_layer(
            self,
            hidden,
            initial_state=state.ssm,
            initial_conv=state.conv,
            step_mask=step_mask,
            cu_seqlens=cu_seqlens,
        )
        return y, MambaState(ssm=ssm, conv=conv)

    def step(
        self,
        hidden: Float[Tensor, "sequences d_model"],
        state: MambaState,
        step_mask: Bool[Tensor, " sequences"] | None = None,
    ) -> tuple[Float[Tensor, "sequences d_model"], MambaState]:
        """Advance every sequence by one step; equal to `forward` over the same steps but for rounding."""
        c, n = self.config, len(hidden)
        x, z = self.in_proj(hidden).chunk(2, dim=-1)
        ssm = hidden.new_zeros(n, c.d_inner, c.d_state) if state.ssm is None else state.ssm
        conv = x.new_zeros(n, c.d_inner, c.d_conv - 1) if state.conv is None else state.conv
        u, conv = causal_conv1d_step(conv, x, self.conv1d.weight[:, 0], self.conv1d.bias, "silu")
        delta, b, c = self._select(u)
        y, ssm = selective_state_step(
            ssm, u, delta, self._rates(), b, c, self.D, z, self.dt_proj.bias, True, step_mask
        )
        return self.out_proj(y), MambaState(ssm=ssm, conv=conv)

    def survival(
        self,
        hidden: Float[Tensor, "batch length d_model"],
        step_mask: Bool[Tensor, "batch length"],
        cu_seqlens: Int[Tensor, " sequences_plus_1"],
        steps: Int[Tensor, " asked"],
    ) -> Float[Tensor, "asked 2"]:
        """Return exp(A sum delta), the share of h0 alive after some steps of a pack.

        First its mean over all channels and states, then that of the slowest of them.
        """
        x, _ = self.in_proj(hidden).chunk(2, dim=-1)
        u, _ = causal_conv1d(
            x.mT, self.conv1d.weight[:, 0], self.conv1d.bias, activation="silu",
            return_final_state=True, cu_seqlens=cu_seqlens,
        )  # fmt: skip
        u = u.mT
        delta = F.softplus(self._select(u)[0] + self.dt_proj.bias).masked_fill(~step_mask[..., None], 0.0)
        lengths = cu_seqlens.diff().tolist()
        elapsed = torch.cat([piece.cumsum(0) for piece in delta[0].split(lengths)])[steps]
        alive = torch.exp(elapsed[..., None] * self._rates())
        return torch.stack([alive.mean((-2, -1)), alive.amax((-2, -1))], dim=-1)

    def _select(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project step sizes (their bias is added inside the scan), B and C from the convolved input."""
        c = self.config
        dt, b, c_ = self.x_proj(u).split([c.dt_rank, c.d_state, c.d_state], dim=-1)
        return F.linear(dt, self.dt_proj.weight), b, c_

    def _rates(self) -> Tensor:
        return -torch.exp(self.A_log)


class GatedMLP(nn.Module):
    """SwiGLU: fc2(value * SiLU(gate)), hidden width 8/3 of the model's, rounded up to a multiple of 64."""

    def __init__(self, d_model: int):
        super().__init__()
        hidden = 64 * math.ceil(8 * d_model / 3 / 64)
        self.fc1 = nn.Linear(d_model, 2 * hidden, bias=False)
        self.fc2 = nn.Linear(hidden, d_model, bias=False)

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Apply the MLP at every step by itself."""
        value, gate = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(value * F.silu(gate))


class MambaBlock(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm2(x)), each branch with dropout in training mode."""

    def __init__(self, config: MambaConfig, dropout: float = 0.0):
        super().__init__()
        self.norm, self.norm2 = (nn.RMSNorm(config.d_model, eps=1e-5) for _ in range(2))
        self.mixer = Mamba(config)
        self.mlp = GatedMLP(config.d_model)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch length d_model"],
        state: MambaState | None = None,
        *,
        step_mask: Bool[Tensor, "batch length"] | None = None,
        cu_seqlens: Int[Tensor, " sequences_plus_1"] | None = None,
    ) -> tuple[Float[Tensor, "batch length d_model"], MambaState]:
        """Return the block's output and its mixer's last state; arguments as `Mamba.forward`."""
        mixed, last = self.mixer(self.norm(x), state, step_mask=step_mask, cu_seqlens=cu_seqlens)
        x = x + self.dropout(mixed)
        return x + self.dropout(self.mlp(self.norm2(x))), last

    def step(
        self,
        x: Float[Tensor, "sequences d_model"],
        state: MambaState,
        step_mask: Bool[Tensor, " sequences"] | None = None,
    ) -> tuple[Float[Tensor, "sequences d_model"], MambaState]:
        """Advance every sequence by one step."""
        mixed, state = self.mixer.step(self.norm(x), state, step_mask)
        x = x + self.dropout(mixed)
        return x + self.dropout(self.mlp(self.norm2(x))), state

    def survival(
        self,
        x: Float[Tensor, "batch length d_model"],
        step_mask: Bool[Tensor, "batch length"],
        cu_seqlens: Int[Tensor, " sequences_plus_1"],
        steps: Int[Tensor, " asked"],
    ) -> Float[Tensor, "asked 2"]:
        """Return the share of h0 alive after some steps, as `Mamba.survival` does."""
        return self.mixer.survival(self.norm(x), step_mask, cu_seqlens, steps)
