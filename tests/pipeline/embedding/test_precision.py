"""Where "auto" becomes a precision: at the device that the encoder lies on, never at the host's processor."""

import logging

import pytest
import torch

from models.encoders import base, ppg_gpt
from pipeline.embedding import encoders
from pipeline.embedding.encoders import chosen_device, chosen_precision, encoder_fields, make_encoder
from pipeline.embedding.plan import key_template
from pipeline.foundation.errors import ConfigError
from pipeline.windows.cutting import WindowConfig

NATIVE, NONE = {"avx512_bf16": True}, {"avx2": True}


@pytest.mark.parametrize(("processor", "gpu", "cpu_means", "cuda_means"), [
    (NATIVE, False, "bfloat16", "float32"),
    (NONE, True, "float32", "bfloat16"),
])  # fmt: skip
def test_auto_is_the_devices_own(
    monkeypatch: pytest.MonkeyPatch, processor: dict, gpu: bool, cpu_means: str, cuda_means: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: gpu)
    assert chosen_precision("auto", "cpu") == cpu_means
    assert chosen_precision("auto", "cuda") == cuda_means
    assert chosen_precision("float32", "cuda") == chosen_precision("float32", "cpu") == "float32"


def test_auto_takes_the_gpu_and_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (chosen_device("auto"), chosen_device("cpu")) == ("cuda", "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert chosen_device("auto") == "cpu"
    with pytest.raises(ConfigError, match=r"finds no GPU here.*embedding\.device=cpu"):
        make_encoder("ppg_gpt_1m_random", device="cuda")


@pytest.mark.parametrize(("processor", "expected"), [(NATIVE, "bfloat16"), (NONE, "float32")])
def test_the_key_never_says_auto(monkeypatch: pytest.MonkeyPatch, processor: dict, expected: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    encoder = make_encoder("ppg_gpt_1m_random+mean", precision="auto", device="cpu")
    key = key_template(encoder, WindowConfig())
    assert (key.precision, key.device, key.batch_windows, key.readout) == (expected, "cpu", 32, "mean")
    assert key.projection == "none"


def test_the_gpus_batch_is_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make_encoder("ppg_gpt_1m_random", device="cpu", gpu_batch_windows=512)
    assert encoder_fields(encoder)["batch_windows"] == 32
    for module in (encoders, base):
        monkeypatch.setattr(module, "device_kind", lambda model: "cuda")
    assert (encoder_fields(encoder)["device"], encoder_fields(encoder)["batch_windows"]) == ("cuda", 512)


def test_bfloat16_by_emulation_is_said_and_is_no_other_embedding(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The products that PyTorch falls back on where oneDNN has none, as on a processor without AVX-512."""
    windows = torch.rand(3, 1200, generator=torch.Generator().manual_seed(0))
    full, native = (
        make_encoder("ppg_gpt_1m_long+mean", precision=precision, device="cpu").embed(windows)
        for precision in ("float32", "bfloat16")
    )
    caplog.clear()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: NONE)
    monkeypatch.setattr("models.encoders.ppg_gpt_frozen._has_packed_products", lambda dtype: False)
    with caplog.at_level(logging.WARNING):
        encoder = make_encoder("ppg_gpt_1m_long+mean", precision="bfloat16", device="cpu")
    assert encoders.EMULATED in caplog.text
    assert key_template(encoder, WindowConfig()).precision == "bfloat16"
    emulated = encoder.embed(windows)
    assert distance(emulated, native) < 2e-3, "0.0005 measured: rounding"
    assert distance(emulated, full) > distance(emulated, native), "it is bfloat16, not float32 under its name"


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


def test_native_bfloat16_is_no_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: NATIVE)
    make_encoder("ppg_gpt_1m_random", precision="bfloat16", device="cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: NONE)
    make_encoder("ppg_gpt_1m_random", precision="float32", device="cpu")
    assert ppg_gpt.fast_precision("cpu") == "float32"
    assert caplog.text == ""


@pytest.mark.parametrize(("seen", "wanted", "told"), [
    (2, "cuda:2", r"sees 2 \(numbered from 0\)"), (0, "cuda:0", "finds no GPU here"), (0, "cuda", "finds no GPU here"),
])  # fmt: skip
def test_a_gpu_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, seen: int, wanted: str, told: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: seen > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    with pytest.raises(ConfigError, match=told):
        chosen_device(wanted)


def test_the_second_gpu_is_taken_and_the_stores_key_has_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert chosen_device("cuda:1") == "cuda:1"
    moved = []
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, device: moved.append(device) or self)
    encoder = make_encoder("ppg_gpt_1m_random", device="cuda:1")
    assert moved == ["cuda:1"]
    weight = torch.empty(0, device="meta")
    monkeypatch.setattr(type(encoder), "parameters", lambda self: iter([weight]))
    assert encoder_fields(encoder)["device"] == "meta", "the kind of device that the weights lie on"
