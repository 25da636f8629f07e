"""Cases of training: one step of our regressor beside the same model on mamba.py's pscan.

Tokens per second are the steps of the case over its seconds. The peer is our own model with nothing but the
scan (and the convolution before it) exchanged, so that widths, blocks and losses are equal; pscan knows neither
gaps nor packing nor a first state, and the inputs have none.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import peers
from benchmarks.driver import Case, Provider
from models.regressor.config import LabRegressorConfig
from models.regressor.inputs import PackedInputs
from models.regressor.lab_regressor import LabRegressor
from models.regressor.losses import uncertainty_weighted_l1
from models.regressor.mamba_block import Mamba, MambaState

WIDTH, LABS = 512, 5
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


def model_of(d_model: int, *, peer: bool = False) -> LabRegressor:
    """Return the model with its default sizes at a width; `peer`: on pscan."""
    torch.manual_seed(0)
    model = LabRegressor(
        LabRegressorConfig(embed_width=WIDTH, d_model=d_model, dropout=0.0, patient_state="none")
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("head.weight"):  # at its zero start no gradient would reach the blocks
                parameter.normal_(std=0.02)
    if peer:
        for module in model.modules():
            if type(module) is Mamba:
                module.__class__ = PscanMamba
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


def _beside_the_peer() -> list[Provider]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    inputs = inputs_of(1, PEER_STEPS).to(device)
    model = model_of(256).to(device)
    made = [
        Provider(name=name, run=partial(training_step, model, inputs, chunk))
        for name, chunk in (("ours", None), ("ours, chunks of 1024", 1024))
    ]
    if peers.pscan() is None:
        return [*made, Provider(name="mamba.py pscan", reason="not measured: mambapy is not installed")]
    peer = model_of(256, peer=True).to(device)
    return [*made, Provider(name="mamba.py pscan", run=partial(training_step, peer, inputs, None), rounds=2)]


def _full_batch() -> list[Provider]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    step = partial(training_step, model_of(256).to(device), inputs_of(4, 20160).to(device), 4096)
    return [Provider(name="ours, chunks of 4096", run=step, rounds=1)]


CASES = [
    Case(name=f"training step B1 L{PEER_STEPS} d256", providers=_beside_the_peer),
    Case(name="training step B4 L20160 d256", providers=_full_batch),
]
