"""A Mamba layer started from a state: against a layer written out step by step, and against mamba-ssm's on a GPU."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.selective_scan.mamba_layer import run_mamba_layer, take_initial_state
from kernels.testing import assert_close

WIDTH, CHANNELS, STATES, TAPS = 6, 12, 4, 4


class StandIn(nn.Module):
    """What mamba-ssm's ``Mamba`` computes, a step at a time, with its names; the state can be asked for."""

    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        self.d_inner, self.d_state, self.dt_rank = CHANNELS, STATES, math.ceil(WIDTH / 16)
        self.in_proj = nn.Linear(WIDTH, 2 * CHANNELS, bias=bias)
        self.conv1d = nn.Conv1d(CHANNELS, CHANNELS, TAPS, groups=CHANNELS, padding=TAPS - 1, bias=not bias)
        self.x_proj = nn.Linear(CHANNELS, self.dt_rank + 2 * STATES, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, CHANNELS)
        self.A_log = nn.Parameter(torch.arange(1.0, STATES + 1).log().repeat(CHANNELS, 1))
        self.D = nn.Parameter(torch.rand(CHANNELS))
        self.out_proj = nn.Linear(CHANNELS, WIDTH, bias=bias)

    def forward(self, hidden_states: Tensor, inference_params=None, h0: Tensor | None = None):
        if inference_params is not None:
            return "decoded"
        x, z = self.in_proj(hidden_states).transpose(1, 2).chunk(2, dim=1)
        x = F.silu(self.conv1d(x)[..., : x.shape[-1]])
        h = x.new_zeros(len(x), CHANNELS, STATES) if h0 is None else h0
        rates, outputs = -self.A_log.exp(), []
        for step, gate in zip(x.unbind(-1), z.unbind(-1), strict=True):
            dt, b, c = self.x_proj(step).split([self.dt_rank, STATES, STATES], dim=-1)
            delta = F.softplus(self.dt_proj(dt))
            h = torch.exp(delta[..., None] * rates) * h + (delta * step)[..., None] * b[:, None]
            outputs.append(((h * c[:, None]).sum(-1) + self.D * step) * F.silu(gate))
        return self.out_proj(torch.stack(outputs, dim=1))


def made(bias: bool = False, seed: int = 0) -> tuple[StandIn, Tensor, Tensor]:
    torch.manual_seed(seed)
    layer = StandIn(bias).double()
    return layer, torch.randn(2, 9, WIDTH).double(), torch.randn(2, CHANNELS, STATES).double()


@pytest.mark.parametrize("bias", [False, True])
def test_from_zeros_it_is_the_layer_and_from_a_state_it_starts_there(bias: bool) -> None:
    layer, x, h0 = made(bias)
    want = layer(x), layer(x, h0=h0)
    names = list(layer.state_dict())
    assert take_initial_state(layer) is layer
    torch.testing.assert_close(layer(x), want[0])
    torch.testing.assert_close(layer(x, initial_state=h0), want[1])
    assert not torch.allclose(want[0], want[1])
    assert list(layer.state_dict()) == names


def test_every_gradient_is_that_of_the_layer_the_initial_states_too() -> None:
    layer, x, h0 = made()
    found = []
    for run in (lambda h: layer(x, h0=h), lambda h: run_mamba_layer(layer, x, initial_state=h)[0]):
        start = h0.clone().requires_grad_()
        layer.zero_grad()
        run(start).square().sum().backward()
        found.append([start.grad, *(p.grad for p in layer.parameters())])
    for want, got in zip(*found, strict=True):
        assert want is not None
        assert got is not None
        torch.testing.assert_close(got, want)


def test_stretches_that_hand_their_states_on_are_the_whole() -> None:
    layer, x, h0 = made()
    layer = take_initial_state(layer)
    start = h0.requires_grad_()
    whole, last, conv = layer(x, initial_state=start, return_states=True)
    parts, state, tail = [], start, None
    for stretch in x.split([4, 1, 4], dim=1):
        y, state, tail = layer(stretch, initial_state=state, initial_conv=tail, return_states=True)
        parts.append(y)
    for got, want in ((torch.cat(parts, dim=1), whole), (state, last), (tail, conv)):
        torch.testing.assert_close(got, want)
    one, other = (torch.autograd.grad(y.square().sum(), start)[0] for y in (whole, torch.cat(parts, dim=1)))
    torch.testing.assert_close(one, other)


def test_a_masked_step_leaves_the_state_and_a_pack_is_its_sequences() -> None:
    layer, x, h0 = made()
    masked = run_mamba_layer(layer, x, initial_state=h0, step_mask=torch.zeros(2, 9, dtype=torch.bool))
    assert torch.equal(masked[1], h0)
    pack = x.reshape(1, 18, WIDTH)
    bounds = torch.tensor([0, 9, 18])
    together = run_mamba_layer(layer, pack, initial_state=h0, cu_seqlens=bounds)
    apart = run_mamba_layer(layer, x, initial_state=h0)
    torch.testing.assert_close(together[0].reshape_as(x), apart[0])
    torch.testing.assert_close(together[1], apart[1])


def test_decoding_and_copies_stay_what_they_were() -> None:
    layer, x, h0 = made()
    layer = take_initial_state(layer)
    assert layer(x, inference_params={}) == "decoded"
    with pytest.raises(ValueError, match="initial_state together with inference_params"):
        layer(x, inference_params={}, initial_state=h0)
    other = copy.deepcopy(layer)
    other.D.data.zero_()
    assert not torch.allclose(other(x), layer(x))  # the copy runs with its own weights


def test_another_kind_of_layer_is_refused_by_what_it_lacks() -> None:
    with pytest.raises(ValueError, match=r"layer has Linear without in_proj, conv1d, .*out_proj"):
        take_initial_state(nn.Linear(2, 2))


def test_bfloat16_weights_keep_a_float32_state() -> None:
    layer, x, h0 = made()
    layer = take_initial_state(layer.bfloat16())
    y, state, _ = layer(x.bfloat16(), initial_state=h0.float(), return_states=True)
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.gpu
def test_mamba_ssms_own_layer_on_a_gpu() -> None:
    """From zeros ours is theirs; from the state of a first half, the second half of theirs."""
    mamba_ssm = pytest.importorskip("mamba_ssm")
    torch.manual_seed(0)
    layer = mamba_ssm.Mamba(d_model=64).cuda()
    x = torch.randn(2, 200, 64, device="cuda")
    with torch.no_grad():
        want = layer(x)
        take_initial_state(layer)
        assert_close({"y": layer(x)}, {"y": want}, torch.float32)
        first, state, conv = layer(x[:, :90], return_states=True)
        second = layer(x[:, 90:], initial_state=state, initial_conv=conv)
        assert_close({"y": torch.cat([first, second], dim=1)}, {"y": want}, torch.float32)
