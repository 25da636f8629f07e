"""The quick probe finds what is planted, judges other patients than it fits, and reads all layers in one pass."""

import numpy as np
import pytest
import torch

from models.encoders.ppg_gpt import PPGGPT, PPGGPTConfig
from pipeline.pretraining.probe_data import ProbeWindows
from pipeline.pretraining.shape_probe import READOUTS, half_of, readouts, split_r2
from pipeline.windows.resample import prepare_ppg_gpt

SMALL = PPGGPTConfig(d_model=16, n_layers=3, n_heads=2)


@pytest.fixture
def windows() -> ProbeWindows:
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((10, 3750)).astype(np.float32)
    return ProbeWindows(
        samples=samples, sampling_rate_hz=125.0, patients=np.repeat(np.arange(5), 2),
        targets={"heart_rate": np.arange(10.0)}, exclusions={},
    )  # fmt: skip


def test_readouts_are_those_of_the_model(windows: ProbeWindows) -> None:
    torch.manual_seed(0)
    model = PPGGPT(SMALL).eval()
    values = readouts(model, windows)
    assert tuple(values) == READOUTS
    assert [x.shape[1] for x in values.values()] == [16, 16, 48, 96]
    prepared = torch.from_numpy(
        prepare_ppg_gpt(windows.samples, windows.sampling_rate_hz, (-np.inf, np.inf)).copy()
    )
    assert np.allclose(values["last"], model.embed(prepared).numpy(), atol=1e-5)
    with torch.no_grad():
        assert np.allclose(values["mean"], model.patch_mean(prepared).numpy(), atol=1e-5)
        tokens = model.tokens(prepared)[:, 1:].double().numpy()
    assert np.allclose(values["layers"][:, -16:], tokens.mean(1), atol=1e-5)
    assert np.allclose(values["layers+spread"][:, -16:], tokens.std(1), atol=1e-5)


def test_planted_parameter_is_found_and_noise_is_not() -> None:
    rng = np.random.default_rng(1)
    features = rng.standard_normal((600, 12))
    targets = {
        "planted": features @ rng.standard_normal(12) + 0.1 * rng.standard_normal(600),
        "noise": rng.standard_normal(600),
    }
    found = split_r2(features, targets, np.arange(600) < 400)
    assert found["planted"] > 0.95
    assert found["noise"] < 0.1


def test_judged_patients_teach_nothing() -> None:
    rng = np.random.default_rng(2)
    features, fitted = rng.standard_normal((600, 12)), np.arange(600) < 400
    target = features @ rng.standard_normal(12)
    target[~fitted] = rng.standard_normal(200)  # on the others there is nothing to find
    assert split_r2(features, {"target": target}, fitted)["target"] < 0


def test_halves_share_no_patient(windows: ProbeWindows) -> None:
    one, other = half_of(windows, 0), half_of(windows, 1)
    assert not set(one.patients) & set(other.patients)
    assert len(one.samples) + len(other.samples) == 10
    assert np.array_equal(one.targets["heart_rate"], [0, 1, 4, 5, 8, 9])
