"""Projections by name: found beside the weights, part of the key, and refused in one sentence that tells the remedy."""

import itertools
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.encoders.ppg_gpt import PPGGPT
from models.encoders.projection import Projection
from pipeline.embedding import encoders
from pipeline.embedding.encoders import (
    encoder_fields,
    encoder_label,
    kept_encoder,
    make_encoder,
    release_encoder,
)
from pipeline.embedding.plan import key_template
from pipeline.foundation.errors import CheckpointError, ConfigError
from pipeline.windows.cutting import WindowConfig

SHIPPED = sorted(path.stem for path in encoders.WEIGHTS.glob("*+*.safetensors"))


def write(path: Path, model: PPGGPT, readout: str = "mean", width: int = 16, seed: int = 0) -> str:
    """Write a projection to `path` and return its hash."""
    inputs = {"mean": 128, "layers": 640}[readout]
    about = {"weights_hash": model.weights_hash, "readout": readout, "licence": "none", "fitted_on": "{}"}
    directions = torch.randn(inputs, width, generator=torch.Generator().manual_seed(seed))
    projection = Projection(torch.zeros(inputs), directions, about)
    path.write_bytes(projection.to_bytes())
    return projection.hash


@pytest.fixture
def model() -> PPGGPT:
    return PPGGPT.random("1m", seed=3)


@pytest.fixture
def weights(tmp_path: Path, model: PPGGPT) -> Path:
    save_file(model.state_dict(), tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors"


def test_it_lies_beside_weights_named_by_their_path(weights: Path, model: PPGGPT) -> None:
    found = write(weights.with_name("mine+mean+to16.safetensors"), model)
    encoder = make_encoder(f"{weights}+mean+to16", device="cpu")
    assert encoder.width == 16
    assert encoder.weights_hash == model.weights_hash
    assert encoder_fields(encoder)["projection"] == found
    assert encoder_fields(encoder)["readout"] == "mean"
    assert encoder.name.endswith("+mean+to16")


def test_it_lies_beside_shipped_weights(
    weights: Path, model: PPGGPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoders, "WEIGHTS", weights.parent)
    weights.rename(weights.with_name("ppg_gpt_mine.safetensors"))
    first = write(weights.with_name("ppg_gpt_mine+mean+to16.safetensors"), model)
    encoder = make_encoder("ppg_gpt_mine+mean+to16", precision="bfloat16", device="cpu")
    assert encoder_label(encoder) == "ppg_gpt_mine+mean+to16_bfloat16_r2"
    kept = kept_encoder("ppg_gpt_mine+mean+to16", device="cpu")
    assert kept_encoder("ppg_gpt_mine+mean+to16", device="cpu") is kept
    second = write(weights.with_name("new"), model, seed=1)
    weights.with_name("new").replace(weights.with_name("ppg_gpt_mine+mean+to16.safetensors"))
    again = kept_encoder("ppg_gpt_mine+mean+to16", device="cpu")
    assert [encoder_fields(e)["projection"] for e in (kept, again)] == [first, second]
    release_encoder()
    with pytest.raises(ConfigError, match=r"a shipped one \(ppg_gpt_mine\)"):
        make_encoder("ppg_gpt_9m")


def test_each_projection_has_a_key_of_its_own(weights: Path, model: PPGGPT) -> None:
    """Another fit of the same width under the same name too: no store mixes them."""
    keys = [key_template(make_encoder(f"{weights}+mean", device="cpu"), WindowConfig())]
    for seed in (0, 1):
        write(weights.with_name("mine+mean+to16.safetensors"), model, seed=seed)
        keys.append(key_template(make_encoder(f"{weights}+mean+to16", device="cpu"), WindowConfig()))
    assert len({key.content_hash for key in keys}) == 3
    assert not any(a.serves(b) for a, b in itertools.pairwise(keys))


def test_absent(weights: Path, model: PPGGPT) -> None:
    remedy = r"; fit it: python -m pipeline projection --encoder \S+mine.safetensors\+layers --width 16"
    with pytest.raises(
        ConfigError, match=rf"no projection mine\+layers\+to16.safetensors .*there is none\){remedy}"
    ):
        make_encoder(f"{weights}+layers+to16", device="cpu")
    write(weights.with_name("mine+mean+to16.safetensors"), model)
    with pytest.raises(ConfigError, match=rf"\(there is mine\+mean\+to16\){remedy}"):
        make_encoder(f"{weights}+layers+to16", device="cpu")


def test_random_weights_have_none() -> None:
    with pytest.raises(
        ConfigError, match="'ppg_gpt_1m_random' has no projection: there is no file of weights"
    ):
        make_encoder("ppg_gpt_1m_random+mean+to16", device="cpu")


def test_of_other_weights(weights: Path) -> None:
    write(weights.with_name("mine+mean+to16.safetensors"), PPGGPT.random("1m", seed=4))
    with pytest.raises(
        CheckpointError, match=r"mine\+mean\+to16.* of weights_hash .*, here .*; fit it: python -m"
    ):
        make_encoder(f"{weights}+mean+to16", device="cpu")


def test_of_another_readout(weights: Path, model: PPGGPT) -> None:
    write(weights.with_name("mine+layers+to16.safetensors"), model, readout="mean")
    with pytest.raises(CheckpointError, match=r"of readout mean, here layers; fit it: .*\+layers --width 16"):
        make_encoder(f"{weights}+layers+to16", device="cpu")


def test_unreadable(weights: Path) -> None:
    weights.with_name("mine+mean+to16.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"not a readable projection .*; fit it"):
        make_encoder(f"{weights}+mean+to16", device="cpu")


def test_some_are_shipped() -> None:
    assert SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_ones_fit_their_weights_and_say_what_they_are(name: str) -> None:
    encoder = make_encoder(name, device="cpu")
    assert isinstance(encoder, PPGGPT)
    assert encoder.name == name
    assert encoder.width == int(name.rpartition("+to")[2])
    assert encoder.projection is not None
    assert "ODC-BY" in encoder.projection.about["licence"]
    assert '"seed":20150001' in encoder.projection.about["fitted_on"]
    assert encoder.embed(torch.rand(3, 1200)).isfinite().all()


def test_a_projection_to_another_width_than_its_name_says_is_refused(weights: Path, model: PPGGPT) -> None:
    write(weights.with_name("mine+mean+to32.safetensors"), model, width=16)
    with pytest.raises(
        CheckpointError, match=r"mine\+mean\+to32\.safetensors is a projection to 16 numbers; fit"
    ):
        make_encoder(f"{weights}+mean+to32", device="cpu")
