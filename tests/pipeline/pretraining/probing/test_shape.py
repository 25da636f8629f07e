"""The quick probe reads every read-out of a model in training, leaves it as it was, and says what is known of it."""

import numpy as np
import pytest
import torch

from models.encoders.ppg_gpt import PPGGPT, PPGGPTConfig
from pipeline.pretraining.probing.rows import PlantedSize, check_seed
from pipeline.pretraining.probing.shape import CHOOSING, READOUTS, ShapeProbe, readouts
from pipeline.pretraining.probing.windows import ProbeWindows
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.windows.resample import prepare_ppg_gpt

SMALL = PPGGPTConfig(d_model=16, n_layers=3, n_heads=2)


@pytest.fixture
def model() -> PPGGPT:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PPGGPT(SMALL).eval()


def test_readouts_are_those_of_the_model(model: PPGGPT) -> None:
    samples = np.random.default_rng(0).standard_normal((10, 3750)).astype(np.float32)
    windows = ProbeWindows(
        samples=samples,
        sampling_rate_hz=125.0,
        patients=np.repeat(np.arange(5), 2),
        targets={},
        exclusions={},
    )
    values = readouts(model, windows)
    assert tuple(values) == READOUTS
    assert model.readout == "last"
    prepared = torch.from_numpy(prepare_ppg_gpt(samples, 125.0, (-np.inf, np.inf)).copy())
    for readout, x in values.items():
        model.readout = readout
        assert x.shape[1] == model.width
        assert np.allclose(x, model.embed(prepared).numpy(), atol=1e-5)


def test_probe_knows_more_of_real_patterns_than_of_nothing(model: PPGGPT) -> None:
    probe = ShapeProbe(size=PlantedSize(fitted=24, judged=12, bursts=3, seed=7))
    result = probe(model)
    assert set(result) == {"planted_r2"}
    assert set(result["planted_r2"]) == set(READOUTS)
    shapes = result["planted_r2"]["mean"]
    assert set(shapes) == set(CohortParameters.load().morphology)
    assert shapes["heart_rate"] > 0.2  # even random weights see it
    assert result == probe(model)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    assert max(probe(model)["planted_r2"]["mean"].values()) < 0.05


def test_patients_of_the_probe_may_be_chosen_by() -> None:
    check_seed(CHOOSING.seed)
    assert CHOOSING.seed in (7, 8)
