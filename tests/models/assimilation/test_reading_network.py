import numpy as np
import pytest
import torch

from models.assimilation.events import HOUR_US
from models.assimilation.reading_network import (
    CHUNK_STEPS,
    ReadingNetwork,
    ReadingNetworkConfig,
    ReadingNetworks,
    gaps,
    read_alone,
)
from models.errors import BadAssimilationInput

SMALL = ReadingNetworkConfig(features=3, d_model=8, n_blocks=2, d_state=4, members=2, dropout=0.5)
BLOCK_US = HOUR_US // 6
N = 2 * CHUNK_STEPS + 40


def network(seed: int = 0) -> ReadingNetwork:
    torch.manual_seed(seed)
    made = ReadingNetwork(SMALL, 2)
    torch.nn.init.normal_(made.head.weight)  # which starts at zero
    return made.eval()


def recording(n: int = N) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    blocks = np.sort(rng.choice(2 * n, n, replace=False)).astype(np.int64)
    return rng.normal(size=(n, 3)), (blocks + 1) * BLOCK_US


@pytest.mark.parametrize("cut", [1, CHUNK_STEPS - 1, CHUNK_STEPS, CHUNK_STEPS + 7, N])
def test_no_bit_of_a_reading_depends_on_later_blocks(cut: int) -> None:
    features, ends = recording()
    whole = read_alone(network(), features, ends)
    assert (read_alone(network(), features[:cut], ends[:cut]) == whole[:cut]).all()
    other = features.copy()
    other[cut:] = 1e3
    later = np.where(np.arange(N) < cut, ends, ends + 5 * HOUR_US)
    changed = read_alone(network(), other, later)
    assert (changed[:cut] == whole[:cut]).all()
    assert (changed[cut:] != whole[cut:]).all()


def test_a_reading_remembers_earlier_blocks_and_how_long_there_was_none() -> None:
    features, ends = recording()
    whole = read_alone(network(), features, ends)
    other = features.copy()
    other[10] += 1.0
    assert (read_alone(network(), other, ends)[15] != whole[15]).any()
    later = np.where(np.arange(N) < 10, ends, ends + 5 * HOUR_US)
    assert (read_alone(network(), features, later)[10] != whole[10]).any()


def test_packed_recordings_are_read_as_each_alone_but_for_rounding() -> None:
    features, ends = recording(300)
    bounds = torch.tensor([0, 110, 300])
    parts = [slice(0, 110), slice(110, 300)]
    gap = torch.from_numpy(np.concatenate([gaps(ends[part]) for part in parts])).float()
    with torch.no_grad():
        packed, _ = network()(torch.from_numpy(features).float(), gap, bounds)
    alone = np.concatenate([read_alone(network(), features[part], ends[part]) for part in parts])
    np.testing.assert_allclose(packed.numpy(), alone, atol=1e-5)


def test_gaps_are_hours_without_a_block() -> None:
    ends = np.array([1, 2, 8, 9]) * BLOCK_US
    assert gaps(ends).tolist() == pytest.approx([0, 0, np.log1p(5 / 6), 0])
    assert gaps(ends[:0]).tolist() == []


def test_several_networks_say_their_mean_on_the_features_that_they_see() -> None:
    networks = ReadingNetworks(SMALL, embed_width=5, n_labs=2)
    rng = np.random.default_rng(1)
    mean, directions, members = rng.normal(size=5), rng.normal(size=(3, 5)), [network(1), network(2)]
    networks.set(mean, directions, torch.tensor([0.5, 0.0], dtype=torch.float64), members)
    means, ends = rng.normal(size=(30, 5)), (np.arange(30, dtype=np.int64) + 1) * BLOCK_US
    features = (means - mean) @ directions.T
    expected = np.mean([read_alone(member, features, ends) for member in members], axis=0)
    np.testing.assert_allclose(networks.read(means, ends), expected, atol=1e-5)
    assert networks.read(means[:0], ends[:0]).shape == (0, 2)
    assert not any(parameter.requires_grad for parameter in networks.parameters())
    assert networks.checked() is networks


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    networks = ReadingNetworks(SMALL, embed_width=5, n_labs=2)
    networks.share[1] = share
    with pytest.raises(BadAssimilationInput, match=r"each must lie in 0\.\.1"):
        networks.checked()


@pytest.mark.parametrize(
    ("field", "value"), [("features", 0), ("d_model", 0), ("members", 0), ("dropout", 1.0)]
)
def test_sizes_that_cannot_be_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        ReadingNetworkConfig(**{"features": 3, field: value})
