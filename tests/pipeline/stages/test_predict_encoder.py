"""`predict` embeds as the checkpoint's store was embedded, and looks at the encoder before any work."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.regressor.config import LabRegressorConfig
from models.regressor.lab_regressor import LabRegressor
from pipeline.embedding.config import EmbeddingConfig
from pipeline.embedding.encoders import make_encoder, release_encoder
from pipeline.embedding.plan import key_template
from pipeline.experiments import ExperimentConfig, tiny
from pipeline.foundation.errors import CheckpointError
from pipeline.foundation.provenance import to_plain
from pipeline.foundation.workspace import Workspace
from pipeline.stages import predict as stage
from pipeline.store.manifest import Encoding
from pipeline.testing.cohort import tiny_cohort
from pipeline.training.checkpoints import encoder_identity, encoding_of, save_checkpoint

SHAPE = LabRegressorConfig(embed_width=4, d_model=8, n_blocks=1, d_state=2, trunk_width=4)
TRAINED = replace(tiny(), name="trained", encoder="ppg_gpt_1m", encoder_precision="auto")
NEW_WORDS = {"readout", "projection", "precision", "device", "batch_windows"}


def encoder_note(precision: str, *, old: bool = False, **changes: object) -> dict[str, object]:
    """Return what a checkpoint says of the encoder, or what one said before it named more than four things."""
    encoder = make_encoder(TRAINED.encoder, precision=precision, device="cpu")
    found = replace(key_template(encoder, TRAINED.window).encoding, **changes)
    names = {"encoder_name": "name", "preprocessing_version": "preprocessing"}
    told = {names.get(name, name): value for name, value in to_plain(found).items()}
    return {name: value for name, value in told.items() if not (old and name in NEW_WORDS)}


def checkpoint(folder: Path, note: dict[str, object], experiment: ExperimentConfig = TRAINED) -> Path:
    plain = {name: value for name, value in to_plain(experiment).items() if name != "embedding"}
    save_checkpoint(
        folder / "best", LabRegressor(SHAPE), method="mt_pcs", scaler=tiny_cohort(n_patients=6).scaler,
        experiment=plain, provenance={"encoder": note, "alignment": to_plain(experiment.alignment)},
    )  # fmt: skip
    return folder


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("native", [False, True])
def test_the_precision_of_the_checkpoint_on_any_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, old: bool, native: bool
) -> None:
    folder = checkpoint(tmp_path, encoder_note(precision, old=old))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native})
    chosen = stage._experiment_of(folder, replace(tiny(), embedding=EmbeddingConfig(device="cpu")))
    assert (chosen.encoder_precision, chosen.encoder, chosen.name) == (precision, "ppg_gpt_1m", "tiny")
    assert stage._arithmetic(folder, chosen) == {"embedded": f"{precision} on cpu by 32"}
    release_encoder()


def test_the_machine_is_used_as_the_command_says_not_as_the_training_did(tmp_path: Path) -> None:
    trained = replace(TRAINED, embedding_executor="ray", embedding=EmbeddingConfig(decode_workers=99))
    here = replace(tiny(), embedding=EmbeddingConfig(decode_workers=3))
    chosen = stage._experiment_of(checkpoint(tmp_path, encoder_note("float32"), trained), here)
    assert (chosen.embedding.decode_workers, chosen.embedding_executor) == (3, "local")


def test_another_device_and_batch_are_printed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = checkpoint(tmp_path, encoder_note("float32", device="cuda", batch_windows=4096))
    chosen = stage._experiment_of(folder, replace(tiny(), embedding=EmbeddingConfig(device="cpu")))
    told = stage._arithmetic(folder, chosen)
    assert told == {
        "embedded": "float32 on cpu by 32",
        "checkpoint's embeddings": "float32 on cuda by 4096",
    }
    assert "differ by rounding" in caplog.text


@pytest.mark.parametrize(
    "change",
    [{"weights_hash": "ab" * 32}, {"readout": "mean"}, {"projection": "cd" * 32},
     {"preprocessing_version": "windows-0"}],
)  # fmt: skip
def test_another_encoder_is_refused_before_any_work(tmp_path: Path, change: dict[str, str]) -> None:
    folder = checkpoint(tmp_path / "trained", encoder_note("float32", **change))
    workspace = Workspace(root=tmp_path / "new")  # nothing is there: any work would complain of that
    with pytest.raises(
        CheckpointError, match=r"was trained on embeddings of .*embed with the same encoder weights"
    ):
        stage.predict_new_patients(workspace, tiny(), str(folder), str(tmp_path / "out.parquet"))
    assert not (tmp_path / "new").exists()


def test_older_notes_mean_what_they_meant() -> None:
    old = encoder_note("bfloat16", old=True)
    assert set(old) == {"name", "weights_hash", "preprocessing", "dtype"}
    encoding = encoding_of({"encoder": old})
    assert encoding is not None
    assert encoding.arithmetic == "bfloat16 on cpu by 32"
    assert (
        encoder_identity({"encoder": old}) == encoder_identity({"encoder": encoder_note("bfloat16")}) == old
    ), "a training of before goes on: its identity is the same"
    assert encoding_of({}) is None
    assert isinstance(encoding, Encoding)
    with pytest.raises(CheckpointError, match="does not know"):
        encoding_of({"encoder": {**old, "colour": "red"}})
