"""`embed` in ``torch.inference_mode()``: the same bits, and nothing left behind that an ordinary caller cannot use."""

import pytest
import torch

from models.encoders.base import EMBED_BATCH, GPU_EMBED_BATCH, device_kind, fixed_batch
from models.encoders.papagei import PaPaGeiS
from models.encoders.ppg_gpt import PPGGPT


def windows(n: int, samples: int = 1200) -> torch.Tensor:
    return torch.rand(n, samples, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("readout", ["last", "mean"])
def test_same_bits_in_inference_mode(precision, readout):
    model = PPGGPT.random("1m", precision=precision)
    model.readout = readout
    expected = model.embed(windows(EMBED_BATCH + 5))
    other = PPGGPT.random("1m", precision=precision)
    other.readout = readout
    with torch.inference_mode():
        first = other.embed(windows(EMBED_BATCH + 5))
        assert torch.equal(other.embed(windows(3)), expected[:3])
    assert torch.equal(first, expected)
    assert not first.is_inference()
    assert torch.equal(other.embed(windows(EMBED_BATCH + 5)), expected), (
        "the copy that the mode made still serves"
    )


def test_a_model_made_in_inference_mode_embeds_in_and_out_of_it():
    expected = PPGGPT.random("1m").embed(windows(4))
    with torch.inference_mode():
        model = PPGGPT.random("1m")
        assert torch.equal(model.embed(windows(4)), expected)
    assert torch.equal(model.embed(windows(4)), expected)


def test_encoders_without_a_frozen_copy_too():
    model = PaPaGeiS().eval()
    expected = model.embed(windows(3, 3750))
    with torch.inference_mode():
        assert torch.equal(model.embed(windows(3, 3750)), expected)


def test_the_fixed_batch_follows_the_device():
    model = PPGGPT.random("1m")
    assert (device_kind(model), fixed_batch(model)) == ("cpu", EMBED_BATCH)
    there = model.to("meta")
    assert fixed_batch(there) == GPU_EMBED_BATCH >= 1000
    there.gpu_batch_windows = 512
    assert fixed_batch(there) == 512
