import numpy as np
import pytest
import torch

from models.regressor.slow_features import RunningMeans, SlowFeatures


def planted(pieces=200, steps=40, width=6, seed=0):
    """Noise in every direction, and two directions that last over a piece, the first more than the second."""
    g = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(width, width, generator=g))
    noise = torch.randn(pieces * steps, width, generator=g) * torch.tensor([0.3, 0.3, 5, 5, 5, 5.0])
    lasting = torch.randn(pieces, 2, generator=g).repeat_interleave(steps, 0) * torch.tensor([1.0, 0.3])
    noise[:, :2] += lasting
    piece = torch.arange(pieces).repeat_interleave(steps)
    return noise @ basis.T + 7, piece, lasting, basis


def test_the_directions_that_last_are_found_in_order_below_louder_noise():
    x, piece, lasting, _ = planted()
    slow = SlowFeatures(6, 2)
    slow.fit(x, torch.ones(len(x), dtype=torch.bool), piece)
    means = slow(x).unflatten(0, (200, 40)).mean(1)
    truth = lasting.unflatten(0, (200, 40)).mean(1)
    for k in range(2):
        assert abs(np.corrcoef(means[:, k], truth[:, k])[0, 1]) > 0.95
    assert torch.allclose(slow(x).mean(0), torch.zeros(2), atol=1e-4)
    assert torch.allclose(slow(x).std(0), torch.ones(2), atol=0.02)


def test_absent_rows_and_the_numbering_of_pieces_change_nothing():
    x, piece, _, _ = planted(pieces=30)
    present = torch.rand(len(x), generator=torch.Generator().manual_seed(1)) > 0.3
    one, two = SlowFeatures(6, 3), SlowFeatures(6, 3)
    one.fit(x.masked_fill(~present[:, None], torch.nan), present, piece)
    two.fit(x[present], present[present], 100 - piece[present])
    assert torch.allclose(one.directions, two.directions, atol=1e-5)


def test_a_constant_entry_or_a_single_row_is_no_trouble():
    x, piece, _, _ = planted(pieces=10)
    x[:, 0] = 4.0
    slow = SlowFeatures(6, 6)
    slow.fit(x, torch.ones(len(x), dtype=torch.bool), piece)
    assert slow(x).isfinite().all()
    fresh = SlowFeatures(6, 6)
    fresh.fit(x[:1], torch.ones(1, dtype=torch.bool), piece[:1])
    assert torch.equal(fresh.directions, torch.eye(6))


@pytest.mark.parametrize("with_history", [True, False])
def test_running_means_are_the_exponential_means_by_hand(with_history):
    g = torch.Generator().manual_seed(0)
    x, mask = torch.randn(12, 3, generator=g).double(), torch.rand(12, generator=g) > 0.3
    mask[:2] = False
    pooled, present = torch.randn(1, 3, generator=g).double(), torch.tensor([with_history])
    means = RunningMeans(3, (2.0, 10.0)).double()
    found, last = means(x, mask, torch.tensor([0, 12]), means.start(pooled, present))
    total = np.where(with_history, pooled.numpy(), 0.0).repeat(2, 0)
    seen, kept = np.full((2, 1), float(with_history)), np.exp(-1 / np.array([[2.0], [10.0]]))
    for t in range(12):
        if mask[t]:
            total = kept * total + (1 - kept) * x[t].numpy()
            seen = kept * seen + (1 - kept)
        expected = total / seen if seen.any() else total
        assert np.allclose(found[t].unflatten(0, (2, 3)), expected, atol=1e-6)
    state = means.start(pooled, present)
    for t in range(12):
        stepped, state = means.step(x[t : t + 1], mask[t : t + 1], state)
        assert torch.allclose(stepped[0], found[t])
    assert torch.allclose(state, last)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_running_means_of_half_precision_features_are_float32(dtype):
    g = torch.Generator().manual_seed(0)
    x, mask = torch.randn(12, 3, generator=g), torch.ones(12, dtype=torch.bool)
    means, bounds = RunningMeans(3, (2.0, 10.0)), torch.tensor([0, 12], dtype=torch.int32)
    exact, last = means(x.to(dtype).float(), mask, bounds, means.start(x[:1].to(dtype).float(), mask[:1]))
    found, end = means(x.to(dtype), mask, bounds, means.start(x[:1].to(dtype), mask[:1]))
    assert found.dtype == end.dtype == torch.float32
    assert torch.equal(found, exact)
    assert torch.equal(end, last)
    stepped, _ = means.step(x[:1].to(dtype), mask[:1], means.start(x[:1].to(dtype), mask[:1]))
    assert stepped.dtype == torch.float32
