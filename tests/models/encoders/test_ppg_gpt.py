from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.encoders.base import EMBED_BATCH, Encoder
from models.encoders.ppg_gpt import (
    PPG_GPT_SCALES,
    PPGGPT,
    PPGGPTConfig,
    fast_precision,
    logit_laplace_nll,
)
from models.errors import CheckpointMismatch

SHARED = Path(__file__).parents[3].parent / "shared"
GOLDEN = SHARED / "golden" / "ppg_gpt_1m"
needs_golden = pytest.mark.skipif(not GOLDEN.exists(), reason="../shared is absent")
TINY = PPGGPTConfig(d_model=32, n_layers=2, n_heads=2)


def windows(n, seed=0):
    return torch.rand(n, 1200, generator=torch.Generator().manual_seed(seed))


def relative_error(actual, expected):
    return float(((actual - expected).norm() / expected.norm()).detach())


@needs_golden
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_golden_numbers(suffix):
    golden = {k: torch.from_numpy(v) for k, v in np.load(GOLDEN / "golden.npz", allow_pickle=False).items()}
    model = PPGGPT.from_checkpoint(GOLDEN / f"ppg_gpt_1m_random.{suffix}")
    tokens = model.tokens(golden["windows"])
    head = model.head(tokens).unflatten(-1, (2, 40)).transpose(1, 2)
    assert relative_error(model.embed(golden["windows"]), golden["embedding"]) < 1e-5
    assert relative_error(model.features(golden["windows"]), golden["embedding"]) < 1e-5
    assert relative_error(tokens, golden["tokens_last_layer"]) < 1e-5
    assert relative_error(head, golden["head"]) < 1e-5


@needs_golden
def test_the_published_wrappers_hold_the_same_weights(tmp_path):
    flat = GOLDEN / "ppg_gpt_1m_random.safetensors"
    state = load_file(flat)
    wrapped = {f"module._orig_mod.gpt.{key}": value for key, value in state.items()}
    torch.save({"model": wrapped, "config": {"n_heads": 4, "lr": 1e-4}}, tmp_path / "a.pth")
    hashes = {PPGGPT.from_checkpoint(path).weights_hash for path in (flat, tmp_path / "a.pth")}
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("scale", "millions"), [("1m", 1.006), ("19m", 18.97), ("85m", 85.1), ("345m", 345), ("1b", 1000)]
)
def test_parameter_counts_fit_the_names(scale, millions):
    with torch.device("meta"):
        count = sum(p.numel() for p in PPGGPT(PPG_GPT_SCALES[scale]).parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.015)


def test_random_is_seeded_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    first, again, other = PPGGPT.random("1m", 0), PPGGPT.random("1m", 0), PPGGPT.random("1m", 1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert first.weights_hash == again.weights_hash != other.weights_hash
    assert (first.name, first.width, first.training) == ("ppg_gpt_1m_random", 128, False)
    assert isinstance(first, Encoder)


@pytest.mark.parametrize("readout", ["last", "mean"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_embedding_bits_depend_on_the_window_alone(precision, readout):
    model = PPGGPT.random("1m", 0, precision=precision)
    model.readout = readout
    x = windows(EMBED_BATCH + 37)
    whole = model.embed(x)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    assert torch.equal(model.embed(x[order]), whole[order])
    assert torch.equal(torch.cat([model.embed(x[:5]), model.embed(x[5:70]), model.embed(x[70:])]), whole)
    assert torch.equal(model.embed(x[3:4].expand(EMBED_BATCH, -1)), whole[3:4].expand(EMBED_BATCH, -1))


def test_embed_is_frozen_and_leaves_the_mode_as_it_was():
    model = PPGGPT(PPGGPTConfig(d_model=32, n_layers=2, n_heads=2, dropout=0.5)).train()
    first, second = model.embed(windows(3)), model.embed(windows(3))
    assert model.training
    assert not first.requires_grad
    assert torch.equal(first, second)
    assert model.embed(windows(0)).shape == (0, 32)


def test_bfloat16_stays_within_a_hundredth():
    x = windows(16)
    full = PPGGPT.random("1m", 0).embed(x)
    half = PPGGPT.random("1m", 0, precision="bfloat16").embed(x)
    assert half.dtype == torch.float32
    assert fast_precision() in ("float32", "bfloat16")
    assert 0 < relative_error(half, full) < 1e-2


def test_the_last_position_alone_equals_the_full_pass():
    model = PPGGPT(TINY).eval()
    assert torch.allclose(model.features(windows(4)), model.tokens(windows(4))[:, -1], atol=1e-6)


def test_no_position_sees_later_samples():
    model = PPGGPT(TINY).eval()
    x = windows(2)
    changed = x.clone()
    changed[:, 600:] = 0.5
    before, after = model.tokens(x), model.tokens(changed)
    assert torch.equal(before[:, :16], after[:, :16])
    assert not torch.equal(before[:, 16:], after[:, 16:])


def test_logit_laplace_is_a_density():
    x = torch.linspace(1e-6, 1 - 1e-6, 400_001, dtype=torch.float64)
    density = torch.exp(-logit_laplace_nll(x, torch.full_like(x, 0.3), torch.full_like(x, -0.7)))
    assert float(torch.trapezoid(density, x)) == pytest.approx(1, abs=1e-4)


def test_loss_is_finite_at_the_ends_of_the_range_and_falls():
    torch.manual_seed(0)
    model = PPGGPT(PPGGPTConfig(d_model=32, n_layers=2, n_heads=2, dropout=0.0))
    x = torch.cat([windows(6), torch.zeros(1, 1200), torch.ones(1, 1200)])
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = model.loss(x)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0] - 0.1


def test_a_plain_regression_head_does_not_squeeze():
    torch.manual_seed(0)
    squeezed = PPGGPT(TINY).eval()
    plain = PPGGPT(PPGGPTConfig(d_model=32, n_layers=2, n_heads=2, head=40)).eval()
    state = {k: v for k, v in squeezed.state_dict().items() if not k.startswith("head.")}
    plain.load_state_dict(state, strict=False)
    x = windows(2)
    assert torch.equal(plain.tokens(x * 0.8 + 0.1), squeezed.tokens(x))
    assert plain.loss(x).isfinite()


def test_trainable_last_layers():
    model = PPGGPT(TINY).trainable_last_layers(1)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {name for name, _ in model.named_parameters() if name.startswith("gpt_layers.1.")}
    model.features(windows(2)).sum().backward()
    assert all(p.grad is not None for p in model.gpt_layers[1].parameters())
    with pytest.raises(ValueError, match="n is 3"):
        model.trainable_last_layers(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s | {"extra.weight": torch.zeros(2)}, "unknown extra.weight"),
        (
            lambda s: {k: v for k, v in s.items() if k != "gpt_layers.1.norm_2.scale"},
            "missing gpt_layers.1.norm_2.scale",
        ),
        (lambda s: s | {"head.weight": torch.zeros(80, 8)}, r"head.weight is \(80, 8\), needs \(80, 32\)"),
        (lambda s: {"something": torch.zeros(2)}, "is no PPG-GPT: missing patch_embedding"),
        (lambda s: s | {"head.bias": torch.zeros(41)}, "head is 41"),
    ],
)
def test_a_misfit_names_keys_and_shapes(tmp_path, change, message):
    save_file(change(PPGGPT(TINY).state_dict()), tmp_path / "w.safetensors")
    with pytest.raises(CheckpointMismatch, match=message):
        PPGGPT.from_checkpoint(tmp_path / "w.safetensors")


def test_unreadable_weights(tmp_path):
    with pytest.raises(CheckpointMismatch, match="no such weights file"):
        PPGGPT.from_checkpoint(tmp_path / "absent.pt")
    torch.save({"model": TINY}, tmp_path / "objects.pt")
    with pytest.raises(CheckpointMismatch, match="never unpickled"):
        PPGGPT.from_checkpoint(tmp_path / "objects.pt")
    (tmp_path / "noise.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(CheckpointMismatch, match="not a readable weights file"):
        PPGGPT.from_checkpoint(tmp_path / "noise.safetensors")
    torch.save({"model_state_dict": {}}, tmp_path / "empty.pt")
    with pytest.raises(CheckpointMismatch, match="no tensors found"):
        PPGGPT.from_checkpoint(tmp_path / "empty.pt")


@pytest.mark.parametrize(
    ("field", "value"),
    [("d_model", 30), ("n_layers", 0), ("patch", 7), ("head", 79), ("dropout", 1.0)],
)
def test_config_names_the_field(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        PPGGPTConfig(**{"d_model": 32, "n_layers": 1, "n_heads": 2, field: value})


def test_wrong_inputs():
    with pytest.raises(ValueError, match="windows have 1000 samples"):
        PPGGPT(TINY).embed(torch.zeros(2, 1000))
    with pytest.raises(ValueError, match="scale is '2m'"):
        PPGGPT.random("2m")


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    encoder = PPGGPT.random("1m", seed=0)
    windows = torch.rand(130, 1200, generator=torch.Generator().manual_seed(3))
    before = torch.get_num_threads()
    try:
        rows = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            rows.append(encoder.embed(windows))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*rows)
