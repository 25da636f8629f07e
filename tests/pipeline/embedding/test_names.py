"""One grammar of an encoder's name: what it means, that it comes back as it was, and what is refused."""

import re
from pathlib import Path

import pytest

from models.encoders.pulse.features import PulseFeatures
from models.encoders.readout_names import READOUTS
from pipeline.embedding.encoders import ADAPTERS, encoder_fields, encoder_label, kept_encoder, make_encoder
from pipeline.embedding.names import WITHOUT_READOUTS, EncoderName
from pipeline.foundation.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "weights", "readout", "width", "words"),
    [
        ("ppg_gpt_1m", "ppg_gpt_1m", "last", None, ""),
        ("ppg_gpt_1m+last", "ppg_gpt_1m", "last", None, ""),
        ("ppg_gpt_1m+last+spread", "ppg_gpt_1m", "last+spread", None, "+last+spread"),
        ("ppg_gpt_1m_long+mean", "ppg_gpt_1m_long", "mean", None, "+mean"),
        ("ppg_gpt_1m_long+layers+spread+to256", "ppg_gpt_1m_long", "layers+spread", 256, "+layers+spread+to256"),
        ("ppg_gpt_1m_long+to64", "ppg_gpt_1m_long", "last", 64, "+to64"),
        ("/data/a+b/w.pth+layers", "/data/a+b/w.pth", "layers", None, "+layers"),
        ("/data/w+mean/w.safetensors", "/data/w+mean/w.safetensors", "last", None, ""),
        ("a+b@0123456789abcdef+mean", "a+b@0123456789abcdef", "mean", None, "+mean"),
        ("papagei_s:/data/a+b.pt", "papagei_s:/data/a+b.pt", "last", None, ""),
    ],
)  # fmt: skip
def test_parts(text: str, weights: str, readout: str, width: int | None, words: str) -> None:
    name = EncoderName.parse(text)
    assert name == EncoderName(weights=weights, readout=readout, width=width)
    assert name.words == words
    assert EncoderName.parse(weights + words) == name


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("+median", r"there is no \+median"),
        ("+", r"there is no \+;"),
        ("+Mean", r"there is no \+Mean"),
        ("+mean ", r"there is no \+mean ;"),
        ("+to0", r"there is no \+to0"),
        ("+to", r"there is no \+to;"),
        ("+mean+spread+spread", r"\+spread stands twice"),
        ("+mean+mean", r"\+mean stands twice"),
        ("+spread", r"\+spread is not in order"),
        ("+mean+layers", r"\+mean\+layers is not in order"),
        ("+to64+mean", r"\+to64\+mean is not in order"),
        ("+spread+mean", "is not in order"),
        ("+mean+to64+to32", "is not in order"),
    ],
)
def test_what_is_no_name_ends_in_what_is_allowed(words: str, complaint: str) -> None:
    for build in (make_encoder, kept_encoder):
        with pytest.raises(ConfigError, match=f"encoder 'ppg_gpt_1m.*{complaint}") as error:
            build(f"ppg_gpt_1m{words}")
        assert "may stand +last, +mean, +layers" in str(error.value)
        assert "+spread, then +to" in str(error.value)


def test_a_file_with_such_a_name_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "a+b"
    with pytest.raises(ConfigError, match=r"there is no \+b"):
        EncoderName.parse(str(path))
    path.touch()
    for text in (str(path), f"papagei_s:{path}"):
        assert EncoderName.parse(text) == EncoderName(weights=text)


@pytest.mark.parametrize("adapter", ["papagei_s", "pulse_ppg"])
@pytest.mark.parametrize("words", ["+mean", "+layers+spread", "+to64"])
def test_other_encoders_have_no_readout(adapter: str, words: str, tmp_path: Path) -> None:
    """Before their weights are read, which here are not there."""
    rule = f"{re.escape(words)} is for PPG-GPT alone; after the name or path of a PPG-GPT may stand"
    with pytest.raises(ConfigError, match=rule):
        make_encoder(f"{adapter}:{tmp_path}/absent{words}")


def test_every_encoder_but_ppg_gpt_has_one_way_to_be_read() -> None:
    assert set(WITHOUT_READOUTS) == {*ADAPTERS, PulseFeatures.name}


@pytest.mark.parametrize("readout", READOUTS)
def test_each_readout_is_in_name_label_and_key(readout: str) -> None:
    words = "" if readout == "last" else f"+{readout}"
    for precision, ending in (("float32", ""), ("bfloat16", "_bfloat16_r2")):
        encoder = make_encoder(f"ppg_gpt_1m+{readout}", precision=precision, device="cpu")
        assert encoder.name == f"ppg_gpt_1m{words}"
        assert encoder_label(encoder) == f"ppg_gpt_1m{words}{ending}"
        assert encoder_fields(encoder)["readout"] == readout
