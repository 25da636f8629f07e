"""Encoders by name or path, and what they say when there is none."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.encoders.papagei import PaPaGeiS
from models.encoders.ppg_gpt import PPGGPT
from pipeline.embedding import encoders
from pipeline.embedding.encoders import (
    REDUCED_ROUNDING,
    encoder_label,
    kept_encoder,
    make_encoder,
    prepare_for,
    release_encoder,
)
from pipeline.foundation.errors import CheckpointError, ConfigError
from pipeline.windows.resample import prepare_ppg_gpt


def test_random_weights_are_seeded() -> None:
    first, second = (
        make_encoder("ppg_gpt_1m_random", device="cpu"),
        make_encoder("ppg_gpt_1m_random", device="cpu"),
    )
    assert (first.name, first.width) == ("ppg_gpt_1m_random", 128)
    assert first.weights_hash == second.weights_hash
    assert prepare_for(first) is prepare_ppg_gpt


def test_checkpoint_by_path(tmp_path: Path) -> None:
    model = PPGGPT.random("1m", seed=3)
    torch.save({"model": model.state_dict(), "config": {"n_heads": 4}}, tmp_path / "mine.pth")
    loaded = make_encoder(str(tmp_path / "mine.pth"), device="cpu")
    assert loaded.weights_hash == model.weights_hash


def test_shipped_weights_keep_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    save_file(PPGGPT.random("1m", seed=4).state_dict(), tmp_path / "ppg_gpt_1m.safetensors")
    monkeypatch.setattr(encoders, "WEIGHTS", tmp_path)
    assert make_encoder("ppg_gpt_1m", device="cpu").name == "ppg_gpt_1m"


def test_reduced_precision_is_another_encoder() -> None:
    full, reduced = (
        make_encoder("ppg_gpt_1m_random", precision=p, device="cpu") for p in ("float32", "bfloat16")
    )
    assert encoder_label(full) == "ppg_gpt_1m_random"
    assert encoder_label(reduced) == f"ppg_gpt_1m_random_bfloat16_r{REDUCED_ROUNDING['cpu']}"
    with torch.device("meta"), pytest.MonkeyPatch.context() as patched:  # a GPU rounds otherwise
        patched.setattr(encoders, "device_kind", lambda model: "cuda")
        assert encoder_label(reduced) == f"ppg_gpt_1m_random_bfloat16_r{REDUCED_ROUNDING['cuda']}"
    assert len(set(REDUCED_ROUNDING.values())) == 2


def test_the_mean_over_positions_is_another_encoder() -> None:
    windows = torch.rand(3, 1200, generator=torch.Generator().manual_seed(0))
    last, mean = (make_encoder(f"ppg_gpt_1m{suffix}", device="cpu") for suffix in ("", "+mean"))
    assert encoder_label(mean) == "ppg_gpt_1m+mean"
    assert mean.weights_hash == last.weights_hash
    assert isinstance(last, PPGGPT)
    assert torch.allclose(mean.embed(windows), last.tokens(windows)[:, 1:].mean(1), atol=1e-5)
    assert not torch.allclose(mean.embed(windows), last.embed(windows), atol=1e-2)


@pytest.mark.parametrize("name", ["ppg_gpt_7m_random", "ppg_gpt_345m", "nothing", "papagei_s:"])
def test_unknown_names(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "WEIGHTS", tmp_path)
    with pytest.raises(ConfigError, match=r"there is no encoder .*none yet"):
        make_encoder(name)


def test_unknown_precision() -> None:
    with pytest.raises(ConfigError, match="choose float32 or bfloat16"):
        make_encoder("ppg_gpt_1m_random", precision="float8")


def test_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"x\.pth"):
        make_encoder(str(tmp_path / "x.pth"))


def test_adapter_prepares_in_its_own_way(tmp_path: Path) -> None:
    torch.save(PaPaGeiS().state_dict(), tmp_path / "papagei.pt")
    encoder = make_encoder(f"papagei_s:{tmp_path / 'papagei.pt'}", device="cpu")
    samples = np.random.default_rng(0).standard_normal((2, 3750)).astype(np.float32)
    prepared = prepare_for(encoder)(samples, 125.0, (-10.0, 10.0))
    assert prepared.shape == (2, encoder.samples_per_window)


def test_the_kept_encoder_is_read_once_and_again_when_its_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    torch.save({"model": PPGGPT.random("1m", seed=3).state_dict()}, path)
    first = kept_encoder(str(path))
    assert kept_encoder(str(path)) is first
    assert kept_encoder(str(path), precision="bfloat16").weights_hash == first.weights_hash
    other = PPGGPT.random("1m", seed=4)
    torch.save({"model": other.state_dict()}, tmp_path / "new.pth")
    (tmp_path / "new.pth").replace(path)
    assert kept_encoder(str(path)).weights_hash == other.weights_hash
    again = kept_encoder(str(path))
    release_encoder()
    assert kept_encoder(str(path)) is not again
    release_encoder()


def test_the_kept_encoder_knows_shipped_weights_and_their_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file

    monkeypatch.setattr(encoders, "WEIGHTS", tmp_path)
    for seed in (4, 5):
        model = PPGGPT.random("1m", seed=seed)
        save_file(model.state_dict(), tmp_path / f"{seed}")
        (tmp_path / f"{seed}").replace(tmp_path / "ppg_gpt_1m.safetensors")
        kept = kept_encoder("ppg_gpt_1m+mean")
        assert (kept.name, kept.weights_hash) == ("ppg_gpt_1m+mean", model.weights_hash)
    release_encoder()
