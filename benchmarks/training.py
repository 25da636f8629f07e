"""Cases of training: one step of our regressor beside the same model on mamba.py's pscan and on mamba-ssm's scan.

Tokens per second are the steps of the case over its seconds. A peer is our own model with nothing but the
scan (and the convolution before it) exchanged, so that widths, blocks and losses are equal; peers know neither
gaps nor packing nor a first state, and the inputs have none. On a GPU the same steps by the scan's first design tell
before from after.

On a GPU each step is timed on the device too: its time over the wall's is the share in which the card computes. What
share of a training's time has work on the device, instead of waiting for data, is no case here: each epoch's
``busy_share`` in a training's own ``metrics.jsonl`` tells it (gaps between launches count as work there).
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import peers
from benchmarks.driver import Case, Provider
from benchmarks.first_design import in_first_design
from models.regressor.config import LabRegressorConfig
from models.regressor.inputs import PackedInputs
from models.regressor.lab_regressor import LabRegressor
from models.regressor.losses import uncertainty_weighted_l1
from models.regressor.mamba_block import Mamba, MambaState

WIDTH, LABS = 512, 5
WEEK_STEPS = 20160
PEER_STEPS = 8192
"""Largest length (pscan pads to a power of two) at which the peer's training step stays within 16 GB."""


class PscanMamba(Mamba):
    """The same layer and parameters, scanned by mamba.py's pscan."""

    def forward(
        self,
        hidden: Tensor,
        state: MambaState | None = None,
        *,
        step_mask: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, MambaState]:
        """Return the output for one sequence without gaps; the state is not kept."""
        scan = peers.pscan()
        assert scan is not None
        x, z = self.in_proj(hidden).chunk(2, dim=-1)
        u = functional.silu(self.conv1d(x.mT)[..., : x.shape[1]].mT)
        delta, b, c = self._select(u)
        delta = functional.softplus(delta + self.dt_proj.bias)
        y = scan(u, delta, self._rates(), b, c, self.D)
        return self.out_proj(y * functional.silu(z)), MambaState()


class MambaSsmMamba(Mamba):
    """The same layer and parameters, as mamba-ssm's layer computes them: time innermost, gate and bias in its scan."""

    def forward(
        self,
        hidden: Tensor,
        state: MambaState | None = None,
        *,
        step_mask: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, MambaState]:
        """Return the output for one sequence without gaps; the state is not kept."""
        scan: Any = peers.mamba_ssm_cuda()
        x, z = (self.in_proj.weight @ hidden[0].mT)[None].chunk(2, dim=1)
        u = functional.silu(self.conv1d(x)[..., : x.shape[2]])
        c = self.config
        projected = self.x_proj.weight @ u[0]
        dt, b, c_ = projected.split([c.dt_rank, c.d_state, c.d_state])
        delta = (self.dt_proj.weight @ dt)[None]
        y = scan(
            u, delta, self._rates(), b[None], c_[None], self.D,
            z=z, delta_bias=self.dt_proj.bias, delta_softplus=True,
        )  # fmt: skip
        return self.out_proj(y.mT), MambaState()


def model_of(d_model: int, layer: type[Mamba] = Mamba) -> LabRegressor:
    """Return the model with its default sizes at a width, on ours or a peer's layer."""
    torch.manual_seed(0)
    model = LabRegressor(
        LabRegressorConfig(embed_width=WIDTH, d_model=d_model, dropout=0.0, patient_state="none")
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("head.weight"):  # at its zero start no gradient would reach the blocks
                parameter.normal_(std=0.02)
    for module in model.modules():
        if type(module) is Mamba:
            module.__class__ = layer
    return model


def inputs_of(batch: int, length: int) -> PackedInputs:
    """Return `batch` pieces of `length` steps without gaps."""
    generator = torch.Generator().manual_seed(0)
    return PackedInputs(
        embeddings=torch.randn(batch * length, WIDTH, generator=generator),
        step_mask=torch.ones(batch * length, dtype=torch.bool),
        cu_seqlens=torch.arange(batch + 1) * length,
        history=torch.zeros(batch, LABS, 4), history_present=torch.zeros(batch, LABS, dtype=torch.bool),
        pooled=torch.zeros(batch, WIDTH), pooled_present=torch.zeros(batch, dtype=torch.bool),
    )  # fmt: skip


def training_step(model: LabRegressor, inputs: PackedInputs, chunk_steps: int | None) -> float:
    """Run forward, loss and backward; the gradients are dropped again."""
    prediction = model(inputs, chunk_steps=chunk_steps)
    target, weight = torch.zeros_like(prediction), torch.ones_like(prediction)
    loss = uncertainty_weighted_l1(prediction, target, weight, model.log_variance)
    loss.backward()
    model.zero_grad(set_to_none=True)
    return float(loss.detach())


def providers(length: int, device: str, chunk_steps: int) -> list[Provider]:
    """Return ours, whole and in chunks, on a GPU by its scan's first design too, and its peers on one piece."""
    inputs = inputs_of(1, length).to(device)
    model = model_of(256).to(device)
    made = [
        Provider(name=name, run=partial(training_step, model, inputs, chunk))
        for name, chunk in (("ours", None), (f"ours, chunks of {chunk_steps}", chunk_steps))
    ]
    if device == "cuda":
        made.append(in_first_design(made[0], torch.float32, device))
    for name, layer, reason in (
        ("mamba.py pscan", PscanMamba, "" if peers.pscan() else "mambapy is not installed"),
        ("mamba-ssm CUDA scan", MambaSsmMamba, "" if peers.mamba_ssm_cuda() else "needs a GPU and its scan"),
    ):
        if layer is PscanMamba and length > PEER_STEPS:
            reason = reason or "holds every state, does not fit"
        if reason:
            made.append(Provider(name=name, reason=f"not measured: {reason}"))
            continue
        peer = model_of(256, layer).to(device)
        rounds = 2 if layer is PscanMamba else None
        made.append(Provider(name=name, run=partial(training_step, peer, inputs, None), rounds=rounds))
    return made


def _full_batch(device: str) -> list[Provider]:
    step = partial(training_step, model_of(256).to(device), inputs_of(4, WEEK_STEPS).to(device), 4096)
    ours = Provider(name="ours, chunks of 4096", run=step, rounds=None if device == "cuda" else 1)
    return [ours, in_first_design(ours, torch.float32, device)] if device == "cuda" else [ours]


def cases(device: str) -> list[Case]:
    """Return a piece that all peers hold and four weeks; on a GPU a week too, and each timed on the device as well."""
    made = [(f"B1 L{PEER_STEPS} d256", partial(providers, PEER_STEPS, device, 1024))]
    if device == "cuda":
        made.append((f"B1 L{WEEK_STEPS} d256", partial(providers, WEEK_STEPS, device, 4096)))
    made.append((f"B4 L{WEEK_STEPS} d256", partial(_full_batch, device)))
    steps = [Case(name=f"training step {name}", providers=run) for name, run in made]
    if device != "cuda":
        return steps
    return [
        case for step in steps for case in (step, replace(step, name=f"{step.name}, device", device=True))
    ]


CASES = cases("cuda" if torch.cuda.is_available() else "cpu")
