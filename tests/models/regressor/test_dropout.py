"""Dropout on a CPU, against its definition."""

import pytest
import torch

from models.regressor.dropout import Dropout


def _dropped(p: float, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return Dropout(p).train()(torch.ones(shape))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_it_drops_its_share_and_keeps_the_mean(p):
    out = _dropped(p, (400, 500))
    kept = out != 0
    deviation = (p * (1 - p) / out.numel()) ** 0.5
    assert abs(kept.float().mean().item() - (1 - p)) < 5 * deviation
    assert torch.allclose(out[kept], torch.tensor(1 / (1 - p)), rtol=1e-3)
    assert abs(out.mean().item() - 1) < 5 * deviation / (1 - p)


def test_every_place_of_a_draw_is_dropped_alike_and_by_itself():
    zero = (_dropped(0.25, (40_000, 4)) == 0).float()
    assert torch.allclose(zero.mean(0), torch.tensor(0.25), atol=0.01)
    assert torch.corrcoef(zero.T).fill_diagonal_(0).abs().max() < 0.03
    assert torch.corrcoef(torch.stack([zero[1:].flatten(), zero[:-1].flatten()]))[0, 1].abs() < 0.02


def test_the_seed_decides():
    assert torch.equal(_dropped(0.3, (7, 5)), _dropped(0.3, (7, 5)))
    assert not torch.equal(_dropped(0.3, (7, 5)), _dropped(0.3, (7, 5), seed=1))


@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (0, 4)])
def test_every_shape_is_kept(shape):
    assert _dropped(0.5, shape).shape == shape


def test_the_gradient_passes_where_the_value_does():
    torch.manual_seed(0)
    x = torch.randn(50, 3, requires_grad=True)
    out = Dropout(0.4).train()(x)
    out.sum().backward()
    assert torch.allclose(x.grad * x, out)


@pytest.mark.parametrize(("p", "training"), [(0.5, False), (0.0, True)])
def test_nothing_is_dropped_outside_training_or_without_a_share(p, training):
    x = torch.randn(20)
    assert torch.equal(Dropout(p).train(training)(x), x)


def test_everything_goes_where_the_share_is_one():
    assert not Dropout(1.0).train()(torch.ones(20)).any()


def test_a_sixteen_bit_tensor_keeps_its_type():
    assert Dropout(0.5).train()(torch.ones(20, dtype=torch.bfloat16)).dtype == torch.bfloat16
