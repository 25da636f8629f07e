import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.encoders.bandpass import bandpass_windows
from models.encoders.base import EMBED_BATCH, Encoder
from models.encoders.papagei import PaPaGeiS
from models.encoders.pulse_ppg import PulsePPG
from models.encoders.resnet1d import ResNet1D
from models.errors import CheckpointMismatch
from pipeline.testing.networks import seeded


def published_papagei(seed=0):
    """The checkpoint's layout: every key under ``module.``, morphology heads included."""
    state = seeded(PaPaGeiS, seed).state_dict()
    for head, second in (("expert_layers_1", 2), ("expert_layers_2", 3)):
        for i in range(3):
            first = nn.Linear(512, 256).state_dict()
            last = nn.Linear(256, 1).state_dict()
            state |= {f"{head}.{i}.0.{k}": v for k, v in first.items()}
            state |= {f"{head}.{i}.{second}.{k}": v for k, v in last.items()}
    for i in (1, 2):
        state |= {f"gating_network_{i}.0.{k}": v for k, v in nn.Linear(512, 3).state_dict().items()}
    return {f"module.{key}": value for key, value in state.items()}


def plain_resnet(state, x, n_blocks):
    """The published forward pass, written out over a state dict."""

    def norm(x, name):
        s = {k: state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")}
        return F.relu(F.batch_norm(x, **s))

    def conv(x, name, stride):
        weight, bias = state[f"{name}.conv.weight"], state[f"{name}.conv.bias"]
        pad = max(0, ((x.shape[-1] + stride - 1) // stride - 1) * stride + weight.shape[-1] - x.shape[-1])
        return F.conv1d(F.pad(x, (pad // 2, pad - pad // 2)), weight, bias, stride)

    x = norm(conv(x, "first_block_conv", 1), "first_block_bn")
    for i in range(n_blocks):
        name, stride = f"basicblock_list.{i}", 2 if i % 2 == 1 else 1
        out = conv(norm(x, f"{name}.bn1") if i else x, f"{name}.conv1", stride)
        out = conv(norm(out, f"{name}.bn2"), f"{name}.conv2", 1)
        if stride == 2:
            x = F.max_pool1d(F.pad(x, (0, 1)), 2)
        grown = out.shape[1] - x.shape[1]
        x = F.pad(x.transpose(1, 2), (grown // 2, grown - grown // 2)).transpose(1, 2) + out
    return x, norm


@pytest.fixture(scope="module")
def papagei(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "papagei_s.pt"
    torch.save(published_papagei(), path)
    return PaPaGeiS.from_checkpoint(path)


@pytest.fixture(scope="module")
def pulse(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "checkpoint_best.pkl"
    state = seeded(PulsePPG).state_dict()
    torch.save({"net": state, "optimizer": {"lr": 1e-4}, "epoch": 5, "test_loss": 0.3}, path)
    return PulsePPG.from_checkpoint(path)


def test_papagei_computes_what_is_published(papagei):
    assert isinstance(papagei, Encoder)
    assert sum(p.numel() for p in papagei.parameters()) / 1e6 == pytest.approx(5.0, abs=0.8)
    windows = torch.randn(2, 3750, generator=torch.Generator().manual_seed(0))
    x, norm = plain_resnet(papagei.state_dict(), windows.reshape(6, 1, 1250), 18)
    assert x.shape == (6, 512, 3)
    expected = papagei.dense(norm(x, "final_bn").mean(-1)).reshape(2, 3, 512).mean(1)
    assert torch.allclose(papagei.embed(windows), expected, atol=1e-4)


def test_pulse_ppg_computes_what_is_published(pulse):
    assert isinstance(pulse, Encoder)
    assert sum(p.numel() for p in pulse.parameters()) / 1e6 == pytest.approx(28.5, abs=1)
    windows = torch.randn(2, 1500, generator=torch.Generator().manual_seed(0)) * 3 + 1
    scaled = (windows - windows.mean(1, keepdim=True)) / (
        windows.var(1, keepdim=True, correction=0) + 1e-5
    ).sqrt()
    x, _ = plain_resnet(pulse.state_dict(), scaled[:, None], 12)
    assert x.shape == (2, 512, 24)
    assert torch.allclose(pulse(windows), x.amax(-1), atol=1e-4, rtol=1e-4)


def test_embedding_bits_depend_on_the_window_alone(papagei):
    x = torch.randn(EMBED_BATCH + 3, 3750, generator=torch.Generator().manual_seed(0))
    whole = papagei.embed(x)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    assert torch.equal(papagei.embed(x[order]), whole[order])
    assert torch.equal(papagei.embed(x[:5]), whole[:5])


def test_odd_lengths_keep_their_ceiling():
    net = ResNet1D(base_filters=4, kernel=3, n_blocks=6).eval()
    assert net.blocks(torch.randn(1, 1, 37)).shape == (1, 8, 5)


def test_misfits_are_named(tmp_path, papagei, pulse):
    torch.save({"net": pulse.state_dict()}, tmp_path / "pulse.pkl")
    with pytest.raises(
        CheckpointMismatch, match=r"pulse\.pkl does not fit PaPaGeiS: missing basicblock_list\.12"
    ):
        PaPaGeiS.from_checkpoint(tmp_path / "pulse.pkl")
    torch.save(published_papagei(), tmp_path / "papagei_s.pt")
    with pytest.raises(
        CheckpointMismatch, match=r"unknown basicblock_list\.12.*bn1\.bias is \(32,\), needs \(128,\)"
    ):
        PulsePPG.from_checkpoint(tmp_path / "papagei_s.pt")
    for encoder in (papagei, pulse):
        with pytest.raises(ValueError, match="windows have 1200 samples"):
            encoder.embed(torch.zeros(1, 1200))


@pytest.mark.parametrize("rate", [125.0, 124.945, 62.4725, 240.0])
def test_preparation_passes_the_pulse_and_stops_the_rest(rate):
    t = np.arange(int(30 * rate)) / rate
    pulse, drift, hum = np.sin(2 * np.pi * 1.5 * t), 0.5 * t, np.sin(2 * np.pi * 25 * t)
    prepared = PulsePPG.prepare(
        np.stack([pulse + drift + hum, np.full_like(t, 0.7)]).astype(np.float32), rate
    )
    expected = np.sqrt(2) * np.sin(2 * np.pi * 1.5 * np.arange(1500) / 50)
    inner = slice(150, -150)
    assert np.abs(prepared[0, inner] - expected[inner]).max() < 0.25
    assert (prepared[1] == 0).all()
    assert PaPaGeiS.prepare(np.stack([pulse]), rate).shape == (1, 3750)


def test_each_segment_is_standardised_by_itself_and_windows_are_independent():
    x = np.random.default_rng(0).normal(size=(4, 3750)) * np.linspace(1, 9, 3750)
    prepared = PaPaGeiS.prepare(x, 125.0).reshape(4, 3, 1250)
    assert np.allclose(prepared.mean(-1), 0, atol=1e-5)
    assert np.allclose(prepared.std(-1), 1, atol=1e-4)
    assert np.array_equal(PaPaGeiS.prepare(x[2:3], 125.0)[0], prepared[2].ravel())
    with pytest.raises(ValueError, match="sampling_rate_hz is 20"):
        bandpass_windows(x, 20.0, 50.0)
