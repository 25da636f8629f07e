"""Weights in parts: rounded as bfloat16 rounds, each file below the limit, and read only where all are there."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.encoders.part_names import PARTS_INDEX, first_part, part_name
from models.encoders.ppg_gpt import PPGGPT, PPGGPTConfig
from pipeline.__main__ import main
from pipeline.cohort.encoder_patients import PATIENTS_KEY
from pipeline.embedding.encoders import kept_encoder, make_encoder, release_encoder
from pipeline.embedding.weights_files import file_of
from pipeline.foundation.artefact_notes import HEADER_KEY
from pipeline.foundation.errors import CheckpointError, ConfigError
from pipeline.foundation.tensor_files import weights_texts
from pipeline.pretraining.config import PretrainingConfig
from pipeline.pretraining.data import divide
from pipeline.pretraining.parts import write_parts
from pipeline.pretraining.run import RECORD_FILE, pretrain
from pipeline.sources.challenge2015 import Challenge2015
from pipeline.stages.encoder_files import shown_encoder
from pipeline.testing.notes import lacking

SMALL = PPGGPTConfig(d_model=16, n_layers=2, n_heads=2)
LIMIT = 6000


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """Weights that say what they were made of, as those of a fine-tuned encoder do."""
    torch.manual_seed(3)
    path = tmp_path / "trained" / "model.safetensors"
    path.parent.mkdir()
    note = json.dumps({"licences": ["made up"]})
    save_file(PPGGPT(SMALL).state_dict(), path, {HEADER_KEY: note, PATIENTS_KEY: "[]"})
    return path


@pytest.fixture
def parts(trained: Path, tmp_path: Path) -> Path:
    write_parts(PPGGPT.from_checkpoint(trained), tmp_path / "parts", most_bytes=LIMIT)
    return tmp_path / "parts"


def test_they_are_the_weights_rounded_to_bfloat16(trained: Path, parts: Path) -> None:
    whole = PPGGPT.from_checkpoint(trained)
    joined = make_encoder(str(parts), device="cpu")
    assert isinstance(joined, PPGGPT)
    assert joined.config == whole.config
    assert all(value.dtype == torch.float32 for value in joined.parameters())
    for (name, value), (_, wanted) in zip(joined.named_parameters(), whole.named_parameters(), strict=True):
        assert torch.equal(value, wanted.bfloat16().float()), name
    for (name, value), (_, wanted) in zip(joined.named_buffers(), whole.named_buffers(), strict=True):
        assert torch.equal(value, wanted), name  # the rotary frequencies are not trained, and not rounded


def test_each_part_is_a_safetensors_file_below_the_limit_and_no_tensor_is_split(
    trained: Path, parts: Path
) -> None:
    files = sorted(parts.glob("*.safetensors"))
    assert len(files) > 2
    assert [file.name for file in files] == [part_name(i + 1, len(files)) for i in range(len(files))]
    assert max(file.stat().st_size for file in files) <= LIMIT
    held = [name for file in files for name in load_file(file)]
    assert sorted(held) == sorted(load_file(trained))


@pytest.mark.parametrize("limit", [4000, 5000, 8000, 100_000])
def test_no_limit_is_passed(limit: int, trained: Path, tmp_path: Path) -> None:
    files = write_parts(PPGGPT.from_checkpoint(trained), tmp_path / "parts", most_bytes=limit)
    assert max(file.stat().st_size for file in files) <= limit


def test_training_goes_on_from_them(parts: Path, tmp_path: Path) -> None:
    rng, time = np.random.default_rng(1), np.arange(4800) / 40
    pleth = np.stack([np.sin(2 * np.pi * rng.uniform(1, 2) * time) for _ in range(4)])
    pleth += 0.05 * rng.standard_normal(pleth.shape)
    names = np.array([f"r{i}" for i in range(4)])
    np.savez(tmp_path / "pleth.npz", pleth=pleth.ravel(), length=np.full(4, 4800), record=names)
    source = Challenge2015(tmp_path / "pleth.npz")
    training, validation = divide("made_up", source, 1.0, validation_share=0.25, seed=0)
    start = make_encoder(str(parts), device="cpu")
    assert isinstance(start, PPGGPT)
    config = PretrainingConfig(epochs=1, batch_windows=8, device="cpu", precision="float32")
    state = pretrain([training], [validation], config, tmp_path / "on", model=SMALL, start=start)
    assert state.epoch == 1
    described = json.loads((tmp_path / "on" / RECORD_FILE).read_text())
    assert described["started_from"] == start.weights_hash
    assert described["weights_hash"] != start.weights_hash


def test_command(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "parts"
    command = ["encoder-parts", "--encoder", str(trained), "--out", str(out), "--part-mib", "0.006"]
    assert main(command) == 0
    assert "in bfloat16: " in (said := capsys.readouterr().out)
    assert f"pretrain --from {out}" in said
    assert [path.name for path in out.parent.iterdir()] == ["parts"]
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert main(command) == 1
    assert "parts are never written over: name a new folder" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert lacking(out) == {}
    for path in out.glob("*.safetensors"):
        texts = weights_texts(path)
        assert json.loads(texts[HEADER_KEY])["licences"] == ["made up"]
        assert texts[PATIENTS_KEY] == "[]"
    # Pretraining takes the folder, and says that these are no weights of 1M.
    assert main(["pretrain", "--from", str(out), "--out", str(tmp_path / "on")]) == 1
    assert "give --scale as the weights have it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("encoder", "arguments", "said"),
    [
        ("pulse_features", [], "only a PPG-GPT is written in parts"),
        ("ppg_gpt_1m+mean", [], "name the weights alone, without a read-out"),
        ("ppg_gpt_1m", ["--part-mib", "0"], "--part-mib 0 must be above 0"),
        ("ppg_gpt_1m", ["--part-mib", "nan"], "--part-mib nan must be above 0"),
    ],
)
def test_command_refuses_in_one_line(
    encoder: str, arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["encoder-parts", "--encoder", encoder, "--out", str(tmp_path / "parts"), *arguments]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_tensor_larger_than_a_part_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"patch_embedding\.\S+ takes [\d,]+ bytes .* at most 1,500 bytes.*larger parts"
    ):
        write_parts(PPGGPT.from_checkpoint(trained), tmp_path / "parts", most_bytes=1500)
    assert not (tmp_path / "parts").exists()


def test_parts_that_are_not_all_of_those_that_were_written_are_refused(
    parts: Path, trained: Path, tmp_path: Path
) -> None:
    count = len(list(parts.glob("*.safetensors")))
    second, other = part_name(2, count), tmp_path / "other"
    write_parts(make_encoder("ppg_gpt_1m", device="cpu"), other, most_bytes=2**21)  # type: ignore[arg-type]
    name = next(path.name for path in other.glob("*.safetensors"))

    def refused(said: str) -> None:
        with pytest.raises(CheckpointError, match=said) as refusal:
            make_encoder(str(damaged), device="cpu")
        assert str(damaged) in str(refusal.value)

    damaged = tmp_path / "missing"
    shutil.copytree(parts, damaged)
    (damaged / second).unlink()
    refused(f"lacks {second} of the {count} parts that parts.json lists; bring all")
    damaged = tmp_path / "foreign"
    shutil.copytree(parts, damaged)
    shutil.copy(other / name, damaged / "else.safetensors")
    refused(r"holds else\.safetensors, which parts.json does not list; move it elsewhere")
    damaged = tmp_path / "twice"
    shutil.copytree(parts, damaged)
    shutil.copy(damaged / part_name(1, count), damaged / second)
    refused(f"{second} is not the part that parts.json was written for .*bring it anew")
    damaged = tmp_path / "no index"
    shutil.copytree(parts, damaged)
    (damaged / PARTS_INDEX).unlink()
    refused(r"parts\.json: no readable list of the parts")
    damaged = tmp_path / "another index"
    shutil.copytree(parts, damaged)
    (damaged / PARTS_INDEX).write_text(
        json.dumps({"parts": {"../trained/model.safetensors": ""}, "model": {}})
    )
    refused(r"parts\.json: lists no parts, or others than model-00001-of-00001")
    with pytest.raises(ConfigError, match=r"checkpoint \(file or folder of parts\)"):
        make_encoder(str(trained.parent), device="cpu")


def test_artefacts_name_a_folder_of_parts_by_its_content(parts: Path, tmp_path: Path) -> None:
    assert file_of(f"{parts}+mean") == first_part(parts)
    shown = shown_encoder(f"{parts}+mean")
    assert shown.startswith("parts@")
    assert shown.endswith("+mean")
    shutil.copytree(parts, tmp_path / "elsewhere" / "parts")
    assert shown_encoder(f"{tmp_path / 'elsewhere' / 'parts'}+mean") == shown
    assert kept_encoder(str(parts), device="cpu") is kept_encoder(str(parts), device="cpu")
    release_encoder()
