"""The fast forward of a frozen PPG-GPT against the plain ones, and that it never outlives the weights it copied."""

import copy
import pickle
from pathlib import Path

import pytest
import torch

from benchmarks.plain_ppg_gpt import plain_embedding
from models.encoders import ppg_gpt_frozen
from models.encoders.base import EMBED_BATCH
from models.encoders.lora import add_lora
from models.encoders.ppg_gpt import PPGGPT, PPGGPTConfig

WEIGHTS = Path(__file__).parents[3] / "models" / "encoders" / "weights" / "ppg_gpt_1m.safetensors"
TINY = PPGGPTConfig(d_model=32, n_layers=3, n_heads=2)


def model_of(config=TINY, precision="float32", seed=0):
    """Return a model in which no parameter is at a special value."""
    torch.manual_seed(seed)
    model = PPGGPT(config, precision=precision).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("scale", "bias")):
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def windows(n, seed=0):
    return torch.rand(n, 1200, generator=torch.Generator().manual_seed(seed))


def relative_error(actual, expected):
    return float(((actual - expected).norm() / expected.norm()).detach())


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    "config",
    [
        TINY,
        PPGGPTConfig(d_model=32, n_layers=1, n_heads=4),
        PPGGPTConfig(d_model=24, n_layers=2, n_heads=3, patch=60, head=60),
    ],
)
def test_equals_the_plain_forward(config, packed, monkeypatch):
    if not packed:
        monkeypatch.setattr(ppg_gpt_frozen, "_has_packed_products", lambda dtype: False)
    model, x = model_of(config), windows(5)
    assert relative_error(model.embed(x), model.features(x)) < 1e-5
    if config.is_laplace:
        plain = plain_embedding(model.state_dict(), config.n_layers, config.n_heads, x)
        assert relative_error(model.embed(x), plain) < 1e-5


def test_bfloat16_of_the_shipped_weights_stays_within_a_hundredth():
    full, half = (PPGGPT.from_checkpoint(WEIGHTS, precision=p) for p in ("float32", "bfloat16"))
    phase = torch.linspace(0, 2 * torch.pi, 1200) * torch.arange(20, 60)[:, None]
    pulse = (0.5 + 0.35 * phase.sin() + 0.1 * (2 * phase + 1).sin()).clamp(0, 1)
    x = torch.cat([pulse, windows(20)])
    assert 0 < relative_error(half.embed(x), full.embed(x)) < 1e-2


def test_the_mean_over_positions_equals_the_plain_forward():
    model, x = model_of(), windows(5)
    last = model.embed(x)
    model.readout = "mean"
    assert relative_error(model.embed(x), model.features(x)) < 1e-5
    assert relative_error(model.embed(x), last) > 1e-2


def test_small_batches_equal_large_ones_in_bits():
    model = model_of(precision="bfloat16")
    x = windows(2 * EMBED_BATCH + 3)
    assert torch.equal(torch.cat([model.embed(row[None]) for row in x[-5:]]), model.embed(x)[-5:])


def test_follows_every_change_of_the_weights():
    model, x = model_of(), windows(2)
    seen = [model.embed(x)]
    model.load_state_dict(model_of(seed=1).state_dict())
    seen.append(model.embed(x))
    optimiser = torch.optim.AdamW(model.parameters(), 0.1)
    model.features(x).sum().backward()
    optimiser.step()
    seen.append(model.embed(x))
    model.load_state_dict(model_of(seed=2).state_dict(), assign=True)
    seen.append(model.embed(x))
    model.precision = "bfloat16"
    seen.append(model.embed(x))
    for i, embedding in enumerate(seen):
        assert all(not torch.equal(embedding, other) for other in seen[:i])
    assert relative_error(seen[3], model.features(x)) < 1e-5


def test_copies_the_weights_once_while_they_stay(monkeypatch):
    model, x = model_of(), windows(2)
    first = model.embed(x)
    monkeypatch.setattr(ppg_gpt_frozen, "product", None)
    assert torch.equal(model.embed(x), first)


def test_holds_low_rank_weights():
    model, x = model_of(), windows(3)
    before = model.embed(x)
    with torch.no_grad():
        for weight in add_lora(model):
            weight.add_(0.1)
    assert relative_error(model.embed(x), model.features(x)) < 1e-5
    assert relative_error(model.embed(x), before) > 1e-3


def test_travels_and_is_copied_without_it():
    model, x = model_of(), windows(2)
    expected = model.embed(x)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(other.embed(x), expected)
