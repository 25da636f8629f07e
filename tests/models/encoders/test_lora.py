import pytest
import torch

from models.encoders.lora import add_lora, merge_lora
from models.encoders.ppg_gpt import PPGGPT, PPGGPTConfig


def tiny():
    torch.manual_seed(0)
    return PPGGPT(PPGGPTConfig(d_model=32, n_layers=2, n_heads=2, dropout=0.0))


def test_lora_starts_neutral_trains_alone_and_merges():
    model, x = tiny(), torch.rand(3, 1200)
    keys, before = model.state_dict().keys(), model.features(x).detach()
    added = add_lora(model, rank=4)
    assert torch.allclose(model.features(x), before, atol=1e-6)
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in added}
    assert len(added) == 2 * 2 * 2
    optimiser = torch.optim.SGD(added, lr=1.0)
    for _ in range(2):
        optimiser.zero_grad()
        model.features(x).square().mean().backward()
        optimiser.step()
    tuned = model.features(x).detach()
    assert not torch.allclose(tuned, before, atol=1e-4)
    merge_lora(model)
    assert model.state_dict().keys() == keys
    assert torch.allclose(model.features(x), tuned, atol=1e-5)


def test_lora_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="no linear layer"):
        add_lora(tiny(), targets=("w_x",))
    with pytest.raises(ValueError, match="rank is 0"):
        add_lora(tiny(), rank=0)
