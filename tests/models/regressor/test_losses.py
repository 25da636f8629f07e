import math

import pytest
import torch

from models.regressor.config import LabRegressorConfig
from models.regressor.lab_regressor import LabRegressor
from models.regressor.losses import parameter_groups, uncertainty_weighted_l1, weighted_l1


def test_worked_example():
    prediction = torch.tensor([[0.5, 0.0], [0.1, 0.0]])
    target = torch.tensor([[0.3, 1.0], [0.4, 0.0]])
    weight = torch.tensor([[1.0, 0.2], [0.5, 0.0]])
    first, second = (0.2 + 0.15) / 1.5, 1.0
    v = torch.tensor([0.4, -1.0])
    expected = 0.5 * math.exp(-0.4) * first + 0.2 + 0.5 * math.exp(1.0) * second - 0.5
    assert float(uncertainty_weighted_l1(prediction, target, weight, v)) == pytest.approx(expected)
    assert float(weighted_l1(prediction, target, weight)) == pytest.approx(first + second)


def test_a_lab_without_targets_drops_both_terms():
    v = torch.tensor([0.4, 3.0], requires_grad=True)
    prediction = torch.zeros(3, 2, requires_grad=True)
    weight = torch.tensor([[1.0, 0.0]]).expand(3, 2)
    uncertainty_weighted_l1(prediction, torch.ones(3, 2), weight, v).backward()
    assert v.grad is not None
    assert v.grad[0] != 0
    assert v.grad[1] == 0
    assert (prediction.grad[:, 1] == 0).all()
    nothing = uncertainty_weighted_l1(prediction, torch.ones(3, 2), torch.zeros(3, 2), v)
    assert float(nothing.detach()) == 0
    assert float(weighted_l1(prediction, torch.ones(3, 2), torch.zeros(3, 2)).detach()) == 0


def test_log_variance_is_clamped():
    weight = torch.ones(1, 1)
    at = [
        float(uncertainty_weighted_l1(torch.ones(1, 1), torch.zeros(1, 1), weight, torch.tensor([v])))
        for v in (-50.0, -10.0)
    ]
    assert at[0] == at[1]


def test_micro_batches_add_up_to_the_whole():
    generator = torch.Generator().manual_seed(0)
    prediction, target = torch.randn(2, 12, 3, generator=generator)
    weight = (torch.rand(12, 3, generator=generator) > 0.5).float()
    v = torch.randn(3, generator=generator)
    total = weight.sum(0)
    whole = uncertainty_weighted_l1(prediction, target, weight, v)
    parts = sum(
        uncertainty_weighted_l1(prediction[s], target[s], weight[s], v, total_weight=total, share=0.25)
        for s in torch.arange(12).chunk(4)
    )
    assert torch.allclose(parts, whole, atol=1e-6)
    plain = sum(weighted_l1(prediction[s], target[s], weight[s], total) for s in torch.arange(12).chunk(4))
    assert torch.allclose(plain, weighted_l1(prediction, target, weight), atol=1e-6)


@pytest.mark.parametrize("mode", ["learned", "pcs"])
def test_parameter_groups(mode):
    model = LabRegressor(
        LabRegressorConfig(embed_width=8, d_model=16, n_blocks=1, patient_state=mode, trunk_width=8)
    )
    decayed, kept = parameter_groups(model, 0.01)
    names = {id(p): name for name, p in model.named_parameters()}
    spared = {names[id(p)] for p in kept["params"]}
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.01, 0.0)
    assert len(decayed["params"]) + len(kept["params"]) == len(names)
    assert {n.rpartition(".")[2] for n in spared if n.endswith(("A_log", "D"))} == {"A_log", "D"}
    assert {"log_variance", "missing_embedding", "input_norm.weight"} <= spared
    assert ("patient_state.initial_state" in spared) == (mode == "learned")
    assert not any(n.endswith("weight") and "norm" not in n for n in spared)
    assert all(n.endswith("weight") and "norm" not in n for n in names.values() if n not in spared)
