"""The fit keeps what tells the shape where plain components lose it; its command; what it refuses before any work."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.encoders.ppg_gpt import PPGGPT, PPGGPTConfig
from models.encoders.projection import Projection
from pipeline.__main__ import main
from pipeline.embedding.encoders import make_encoder
from pipeline.emulation.rendered import BurstPlan
from pipeline.foundation.errors import ConfigError
from pipeline.pretraining import projection as module
from pipeline.pretraining.data import SYNTHETIC_SEED
from pipeline.pretraining.projection import ProjectionConfig, fit_projection, solve
from pipeline.sources.challenge2015 import Challenge2015

SMALL = ProjectionConfig(
    width=8, planted=BurstPlan(patients=8, bursts=2, burst_windows=2, hours=1.0, seed=SYNTHETIC_SEED)
)


def readouts(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Read-outs of 60 numbers in which three shapes are hidden below 30 louder directions."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(99)
    shapes = rng.random((n, 3))
    loud = 5 * rng.standard_normal((n, 30)) @ fixed.standard_normal((30, 60))
    told = shapes @ fixed.standard_normal((3, 60))
    return loud + told + 0.01 * rng.standard_normal((n, 60)) + 100, shapes


def r2(x: np.ndarray, y: np.ndarray, at: np.ndarray, truth: np.ndarray) -> float:
    """Return the least R2 of a line from `x` to `y`, judged on others."""
    design, other = (np.c_[z, np.ones(len(z))] for z in (x, at))
    error = other @ np.linalg.lstsq(design, y, rcond=None)[0] - truth
    return float((1 - np.square(error).mean(axis=0) / truth.var(axis=0)).min())


def test_it_keeps_the_shape_that_components_lose() -> None:
    (x, shapes), (real, _), (other, truth) = readouts(1500, 0), readouts(400, 1), readouts(600, 2)
    config = ProjectionConfig(width=12, penalty=0.1)
    centre, directions = solve(real, x, shapes, config)
    assert directions.shape == (60, 12)
    kept = r2((x - centre) @ directions, shapes, (other - centre) @ directions, truth)
    components = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)[2][:12].T
    assert r2(x, shapes, other, truth) > 0.99
    assert kept > 0.98
    assert r2(x @ components, shapes, other @ components, truth) < 0.2


def test_numbers_come_out_centred_and_of_one_measure() -> None:
    (x, shapes), (real, _) = readouts(1500, 0), readouts(400, 1)
    centre, directions = solve(real, x, shapes, ProjectionConfig(width=20))
    out = [(part - centre) @ directions for part in (real, x)]
    weight = np.r_[np.full(400, 0.5 / 400), np.full(1500, 0.5 / 1500)]
    every = np.concatenate(out)
    assert np.abs(weight @ every).max() < 1e-8
    assert (weight @ np.square(every)).mean() == pytest.approx(1)
    assert np.linalg.matrix_rank(directions) == 20


def test_without_real_windows_and_with_numbers_that_never_change() -> None:
    x, shapes = readouts(1500, 0)
    x[:, 7] = 3.0
    shapes[:, 2] = shapes[:, 0]
    centre, directions = solve(np.empty((0, 60)), x, shapes, ProjectionConfig(width=10))
    assert np.isfinite(directions).all()
    assert not directions[7].any()
    assert centre == pytest.approx(x.mean(axis=0))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_WINDOWS", 20)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = PPGGPT(PPGGPTConfig(d_model=16, n_layers=2, n_heads=2))
    save_file(model.state_dict(), tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


@pytest.fixture
def pleth(tmp_path: Path) -> Path:
    rng, length = np.random.default_rng(0), 40 * 200
    wave = [np.sin(np.arange(length) * rng.uniform(0.1, 0.3)) + 0.1 * rng.random(length) for _ in range(8)]
    names = np.array([f"r{i}" for i in range(8)])
    np.savez(tmp_path / "pleth.npz", pleth=np.concatenate(wave), length=np.full(8, length), record=names)
    return tmp_path / "pleth.npz"


@pytest.mark.usefixtures("few")
def test_fitted_on_real_and_planted_windows(weights: Path, pleth: Path) -> None:
    encoder = make_encoder(f"{weights}+layers", device="cpu")
    assert isinstance(encoder, PPGGPT)
    (first, counts), (again, _) = (fit_projection(encoder, Challenge2015(pleth), SMALL) for _ in range(2))
    assert first.hash == again.hash
    assert (first.centre.shape, first.width) == ((32,), 8)
    assert counts["real windows"] >= 40
    assert {"readout": "layers", "weights_hash": encoder.weights_hash}.items() <= first.about.items()
    assert "ODC-BY" in first.about["licence"]
    assert "synthetic" in first.about["licence"]
    assert str(weights) not in first.about["fitted_on"]
    assert fit_projection(encoder, None, SMALL)[0].hash != first.hash


@pytest.mark.usefixtures("few")
def test_command(
    weights: Path, pleth: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "ProjectionConfig", partial(replace, SMALL))
    command = ["projection", "--encoder", f"{weights}+layers", "--width", "6", "--data", str(pleth)]
    assert main(command) == 0
    assert "32 numbers a window to 6, fitted on" in capsys.readouterr().out
    path = weights.with_name("tiny+layers+to6.safetensors")
    assert make_encoder(f"{weights}+layers+to6", device="cpu").width == 6
    first = Projection.from_file(path).hash
    assert main(command) == 0
    assert Projection.from_file(path).hash == first


@pytest.mark.parametrize(
    ("words", "arguments", "complaint"),
    [
        ("+layers", ["--width", "32"], "width = 32 must be below the 32 numbers"),
        ("+mean", ["--width", "400"], "width = 400 must be below the 16 numbers"),
        ("+mean", ["--width", "1"], "width = 1 must be at least 2"),
        ("+layers+to8", [], "leave +to8 out and give --width 8"),
        ("+median", [], "there is no +median"),
        ("+layers", ["--width", "8", "--data", "/nowhere"], "/nowhere does not exist"),
    ],
)
def test_refused_before_any_work(
    words: str, arguments: list[str], complaint: str, weights: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "render_windows", None)
    assert main(["projection", "--encoder", f"{weights}{words}", *arguments]) == 1
    assert complaint in capsys.readouterr().err
    assert list(weights.parent.iterdir()) == [weights]


def test_weights_without_a_file_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["projection", "--encoder", "ppg_gpt_1m_random+layers"]) == 1
    assert "a projection needs PPG-GPT with a file of weights" in capsys.readouterr().err


def test_too_few_windows(weights: Path) -> None:
    encoder = make_encoder(f"{weights}+layers", device="cpu")
    assert isinstance(encoder, PPGGPT)
    with pytest.raises(
        ConfigError, match=r"\d+ planted windows are too few to fit a projection: at least 1000"
    ):
        fit_projection(encoder, None, SMALL)
