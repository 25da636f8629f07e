"""The encoder's benchmark: its rows compute one function, on the device that is asked for."""

import pytest
import torch

from benchmarks import encoder, encoder_floor
from models.encoders.ppg_gpt import PPG_GPT_SCALES


def relative_distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


def test_all_rows_compute_one_function():
    rows = {row.name: row.run() for row in encoder.providers("1m", "cpu", 3) if not row.reason}
    plain = rows.pop("plain forward, float32")
    assert plain.shape == (3, 128)
    for name, embedded in rows.items():
        assert relative_distance(embedded, plain) < (1e-5 if "float32" in name else 2e-2), name


def test_the_row_under_autocast_is_the_plain_model():
    """It is a GPU's row; a CPU has autocast too."""
    model, windows = encoder.PPGGPT.random("1m"), encoder._windows("cpu", 3)
    assert 0 < relative_distance(encoder._autocast(model, windows), encoder._plain(model, windows)) < 2e-2


def test_readouts_are_compared_at_equal_projections():
    widths = {row.name: row.run().shape[1] for row in encoder.readouts("1m", "float32", "cpu", 2)}
    assert widths["mean"] == 128
    assert widths["layers+spread"] == 1280
    assert widths[encoder.PROJECTED] == encoder.WIDTH


@pytest.mark.parametrize(("there", "device", "count"), [(True, "cuda", 16384), (False, "cpu", 512)])
def test_a_gpu_is_where_a_run_embeds(monkeypatch, there, device, count):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert encoder.device_and_windows() == (device, count)
    assert encoder.cases()[0].name == f"PPG-GPT 19m, {count} windows"


def test_a_gpus_rate_counts_the_operations_of_its_best_product(monkeypatch):
    """The products run on the CPU here, the clock is ours: a tenth of a second for the first, ever shorter ones."""
    monkeypatch.setattr(encoder_floor, "GPU_EMBED_BATCH", 2)
    seconds = iter([0.4, 0.1, 0.3, 0.2])
    monkeypatch.setattr(encoder_floor, "device_seconds", lambda run: run() is not None and next(seconds))
    config = PPG_GPT_SCALES["1m"]
    per_row = [2 * 128 * 128, 2 * 128 * 384, 2 * 128 * 512, 2 * 512 * 128]
    expected = 62 * max(work / time for work, time in zip(per_row, (0.4, 0.1, 0.3, 0.2), strict=True))
    assert encoder_floor.gpu_gemm_rate(config, "cpu", rounds=1) == pytest.approx(expected)
