import math

import pytest
import torch
import torch.nn.functional as F

from models.regressor.mamba_block import GatedMLP, Mamba, MambaBlock, MambaConfig, MambaState

CONFIG = MambaConfig(d_model=24, d_state=5)


def plain_mamba(state, hidden):
    """mamba-ssm's layer written out step by step from its state dict; no code of ours."""
    d_inner, d_state = state["A_log"].shape
    rank = state["dt_proj.weight"].shape[1]
    x, z = (hidden @ state["in_proj.weight"].T).split(d_inner, -1)
    x = F.conv1d(
        x.transpose(1, 2),
        state["conv1d.weight"],
        state["conv1d.bias"],
        padding=state["conv1d.weight"].shape[2] - 1,
        groups=d_inner,
    )
    x = F.silu(x[..., : hidden.shape[1]]).transpose(1, 2)
    dt, b, c = (x @ state["x_proj.weight"].T).split([rank, d_state, d_state], -1)
    delta = F.softplus(dt @ state["dt_proj.weight"].T + state["dt_proj.bias"])
    a, h, ys = -torch.exp(state["A_log"]), torch.zeros(len(hidden), d_inner, d_state, dtype=hidden.dtype), []
    for t in range(hidden.shape[1]):
        h = torch.exp(delta[:, t, :, None] * a) * h + delta[:, t, :, None] * b[:, t, None] * x[:, t, :, None]
        ys.append((h * c[:, t, None]).sum(-1) + state["D"] * x[:, t])
    return (torch.stack(ys, 1) * F.silu(z)) @ state["out_proj.weight"].T


def layer(seed=0, config=CONFIG):
    torch.manual_seed(seed)
    return Mamba(config)


def test_a_mamba_ssm_state_dict_gives_mamba_ssm_output():
    torch.manual_seed(1)
    n, s, r = 48, 5, 2
    published = {
        "A_log": torch.randn(n, s) * 0.3, "D": torch.randn(n), "in_proj.weight": torch.randn(2 * n, 24) * 0.2,
        "conv1d.weight": torch.randn(n, 1, 4) * 0.3, "conv1d.bias": torch.randn(n) * 0.1,
        "x_proj.weight": torch.randn(r + 2 * s, n) * 0.2, "dt_proj.weight": torch.randn(n, r) * 0.3,
        "dt_proj.bias": torch.randn(n) - 3, "out_proj.weight": torch.randn(24, n) * 0.2,
    }  # fmt: skip
    mamba = layer()
    mamba.load_state_dict(published, strict=True)
    hidden = torch.randn(3, 37, 24)
    expected = plain_mamba({k: v.double() for k, v in published.items()}, hidden.double())
    out, _ = mamba(hidden)
    assert torch.allclose(out.double(), expected, atol=1e-5)
    zeros = MambaState(ssm=torch.zeros(3, n, s), conv=torch.zeros(3, n, 3))
    assert torch.equal(mamba(hidden, zeros)[0], out)


def test_initialisation_is_mamba_ssms():
    mamba = layer(config=MambaConfig(d_model=512))
    dt = F.softplus(mamba.dt_proj.bias.detach())
    assert mamba.config.dt_rank == 32
    assert dt.min() > 1e-3 * 0.999
    assert dt.max() < 0.1 * 1.001
    assert float(dt.log().mean()) == pytest.approx(math.log(0.01), abs=0.15)
    assert torch.allclose(torch.exp(mamba.A_log.detach())[7], torch.arange(1.0, 17))
    assert (mamba.D == 1).all()
    assert mamba.dt_proj.weight.abs().max() <= 32**-0.5


def test_halves_with_the_state_handed_on_equal_the_whole():
    block, x = MambaBlock(CONFIG), torch.randn(2, 31, 24)
    whole, last = block(x)
    first, state = block(x[:, :13])
    second, end = block(x[:, 13:], state)
    assert torch.allclose(torch.cat([first, second], 1), whole, atol=1e-6)
    assert torch.allclose(end.ssm, last.ssm, atol=1e-6)
    assert torch.allclose(end.conv, last.conv, atol=1e-6)


def test_streaming_equals_the_batch():
    block, x = MambaBlock(CONFIG), torch.randn(3, 20, 24)
    mask = torch.rand(3, 20) > 0.3
    h0 = torch.randn(3, 48, 5)
    expected, last = block(x, MambaState(ssm=h0), step_mask=mask)
    state, outputs = MambaState(ssm=h0), []
    for t in range(20):
        y, state = block.step(x[:, t], state, mask[:, t])
        outputs.append(y)
    assert torch.allclose(torch.stack(outputs, 1), expected, atol=1e-5)
    assert torch.allclose(state.ssm, last.ssm, atol=1e-5)


def test_a_pack_equals_its_members_alone_and_masked_steps_freeze_the_state():
    block, lengths = MambaBlock(CONFIG), [7, 0, 12, 1]
    pieces = [torch.randn(1, n, 24) for n in lengths]
    h0 = torch.randn(4, 48, 5)
    masks = [torch.rand(1, n) > 0.4 for n in lengths]
    masks[2][:] = False
    cu = torch.tensor([0, 7, 7, 19, 20])
    packed, last = block(
        torch.cat(pieces, 1), MambaState(ssm=h0), step_mask=torch.cat(masks, 1), cu_seqlens=cu
    )
    for i, part in enumerate(packed.split(lengths, dim=1)):
        alone, end = block(pieces[i], MambaState(ssm=h0[i : i + 1]), step_mask=masks[i])
        assert torch.allclose(part, alone, atol=1e-6)
        assert torch.allclose(last.ssm[i], end.ssm[0], atol=1e-6)
    assert torch.equal(last.ssm[1], h0[1])
    assert torch.equal(last.ssm[2], h0[2])


def test_later_content_changes_no_earlier_bit():
    block, x = MambaBlock(CONFIG), torch.randn(1, 40, 24)
    cu, mask = torch.tensor([0, 15, 40]), torch.ones(1, 40, dtype=torch.bool)
    changed, other_mask = x.clone(), mask.clone()
    changed[:, 22:] = torch.randn(1, 18, 24)
    other_mask[:, 25:30] = False
    before = block(x, step_mask=mask, cu_seqlens=cu)[0]
    after = block(changed, step_mask=other_mask, cu_seqlens=cu)[0]
    assert torch.equal(before[:, :22], after[:, :22])
    assert not torch.equal(before[:, 22:], after[:, 22:])


def test_survival_is_the_weight_of_the_initial_state():
    torch.manual_seed(0)
    mamba, x = layer().double(), torch.randn(1, 9, 24, dtype=torch.float64)
    mask = torch.rand(1, 9) > 0.3
    h0 = torch.randn(1, 48, 5, dtype=torch.float64)
    with_h0 = mamba(x, MambaState(ssm=h0), step_mask=mask)[1].ssm
    without = mamba(x, step_mask=mask)[1].ssm
    alive = ((with_h0 - without) / h0)[0].detach()
    (share,) = mamba.survival(x, mask, torch.tensor([0, 9]), torch.tensor([8])).detach()
    assert share.tolist() == pytest.approx([float(alive.mean()), float(alive.max())])


def test_gated_mlp_width():
    assert GatedMLP(256).fc2.weight.shape == (256, 704)
    assert GatedMLP(24).fc1.weight.shape == (128, 24)


@pytest.mark.parametrize(("field", "value"), [("d_model", 0), ("d_state", 0), ("d_conv", 1), ("dt_min", 0.5)])
def test_config_names_the_field(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        MambaConfig(**{"d_model": 8, field: value})
