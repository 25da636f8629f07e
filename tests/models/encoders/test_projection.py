"""A projected read-out: its numbers, its bits, that no weights' hash sees it, and what it is refused for."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from models.encoders.base import EMBED_BATCH
from models.encoders.ppg_gpt import PPGGPT
from models.encoders.projection import Projection
from models.errors import CheckpointMismatch

READOUT, INPUTS, WIDTH = "layers+spread", 1280, 24


def windows(n: int) -> Tensor:
    return torch.rand(n, 1200, generator=torch.Generator().manual_seed(5))


def projection_of(model: PPGGPT, seed: int = 0, **about: str) -> Projection:
    rng = torch.Generator().manual_seed(seed)
    known = {
        "weights_hash": model.weights_hash,
        "readout": model.readout,
        "licence": "none",
        "fitted_on": "{}",
    }
    inputs = model.readout_width
    return Projection(
        torch.randn(inputs, generator=rng), torch.randn(inputs, WIDTH, generator=rng) / 30, known | about
    )


def plain(precision: str = "float32") -> PPGGPT:
    model = PPGGPT.random("1m", precision=precision)
    model.readout = READOUT
    return model


def projected(precision: str = "float32") -> PPGGPT:
    model = plain(precision)
    model.project(projection_of(model))
    return model


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_is_the_readout_times_the_directions(precision: str) -> None:
    model, x = projected(precision), windows(EMBED_BATCH + 3)
    assert model.projection is not None
    directions, centre = model.projection.directions.double(), model.projection.centre.double()
    expected = (plain(precision).embed(x).double() - centre) @ directions
    assert expected.shape == (len(x), WIDTH) == (len(x), model.width)
    assert torch.allclose(model.embed(x).double(), expected, atol=1e-5)
    assert model.embed(x).dtype == torch.float32
    if precision == "float32":
        assert torch.allclose(model.features(x).detach().double(), expected, atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_row_depends_on_its_own_window_alone(precision: str) -> None:
    model, x = projected(precision), windows(EMBED_BATCH + 9)
    whole = model.embed(x)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    assert torch.equal(model.embed(x[order]), whole[order])
    assert torch.equal(torch.cat([model.embed(x[:1]), model.embed(x[1:20]), model.embed(x[20:])]), whole)
    assert torch.equal(pickle.loads(pickle.dumps(model)).embed(x[:2]), whole[:2])
    assert model.embed(windows(0)).shape == (0, WIDTH)


def test_weights_and_their_hash_know_nothing_of_it() -> None:
    before, model = plain(), projected()
    assert model.weights_hash == before.weights_hash
    assert model.state_dict().keys() == before.state_dict().keys()
    before.load_state_dict(model.state_dict())
    assert (before.projection_hash, len(model.projection_hash)) == ("none", 64)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in before.parameters())


def test_the_autocast_of_a_gpu_leaves_it_in_float32() -> None:
    model = projected()
    assert model.projection is not None
    x = 100 * torch.randn(5, INPUTS, generator=torch.Generator().manual_seed(3))
    expected = model.projection(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.projection(x), expected)


def test_it_follows_the_model_to_its_device() -> None:
    model = projected().to("meta")
    assert model.projection is not None
    assert {model.projection.centre.device.type, model.projection.directions.device.type} == {"meta"}


def test_its_hash_follows_its_numbers_and_what_it_belongs_to() -> None:
    model = plain()
    same = projection_of(model, licence="another note").hash
    assert projection_of(model).hash == same
    others = [projection_of(model, seed=1), projection_of(model, readout="mean"),
              projection_of(model, weights_hash="ab" * 32)]  # fmt: skip
    assert len({same, *(other.hash for other in others)}) == 4


def test_the_file_gives_the_same_bits_back(tmp_path: Path) -> None:
    first = projected().projection
    assert first is not None
    (tmp_path / "a.safetensors").write_bytes(first.to_bytes())
    again = Projection.from_file(tmp_path / "a.safetensors")
    assert again.hash == first.hash
    assert again.about == first.about
    assert torch.equal(again.directions, first.directions)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"weights_hash": "ab" * 32}, "a.safetensors is a projection of weights_hash abababababab, here "),
        ({"readout": "mean"}, "a.safetensors is a projection of readout mean, here layers"),
    ],
)
def test_of_other_weights_or_another_readout(change: dict[str, str], complaint: str) -> None:
    model = plain()
    with pytest.raises(CheckpointMismatch, match=complaint):
        model.project(projection_of(model, **change), "a.safetensors")
    assert model.projection is None


def test_of_another_width() -> None:
    model = plain()
    narrow = projection_of(model)
    narrow.centre, narrow.directions = narrow.centre[:640], narrow.directions[:640]
    with pytest.raises(CheckpointMismatch, match="a projection of 640 numbers, here 1280"):
        model.project(narrow)


def test_a_projected_model_keeps_its_readout() -> None:
    model = projected()
    with pytest.raises(ValueError, match="the read-out of a projected model is fixed"):
        model.readout = "mean"
    assert model.readout == READOUT


CENTRE, DIRECTIONS = torch.zeros(4), torch.ones(4, 2)
ABOUT = {"weights_hash": "ab", "readout": "mean", "licence": "none", "fitted_on": "{}"}


@pytest.mark.parametrize(
    ("tensors", "about", "complaint"),
    [
        ({"centre": CENTRE}, ABOUT, "it holds centre, and its metadata lack nothing"),
        ({"centre": CENTRE, "directions": DIRECTIONS}, {"readout": "mean"}, "lack weights_hash, licence, fitted_on"),
        ({"centre": CENTRE[:3], "directions": DIRECTIONS}, ABOUT, "do not fit"),
        ({"centre": CENTRE, "directions": DIRECTIONS[0]}, ABOUT, "do not fit"),
        ({"centre": CENTRE, "directions": DIRECTIONS / 0}, ABOUT, "not finite"),
    ],
)  # fmt: skip
def test_what_is_no_projection(
    tensors: dict[str, Tensor], about: dict[str, str], complaint: str, tmp_path: Path
) -> None:
    save_file(tensors, tmp_path / "a.safetensors", metadata=about)
    with pytest.raises(CheckpointMismatch, match=f"a.safetensors is no projection: .*{complaint}"):
        Projection.from_file(tmp_path / "a.safetensors")


def test_unreadable(tmp_path: Path) -> None:
    (tmp_path / "noise.safetensors").write_bytes(b"no tensors at all")
    for name in ("noise", "absent"):
        with pytest.raises(CheckpointMismatch, match=f"{name}.safetensors: not a readable projection"):
            Projection.from_file(tmp_path / f"{name}.safetensors")
