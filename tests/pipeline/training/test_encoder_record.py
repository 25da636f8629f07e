"""A checkpoint says in which precision its embeddings were computed, never "auto"."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.store.embeddings import EmbeddingStore
from pipeline.store.manifest import EmbeddingKey
from pipeline.testing.cohort import TINY_MODEL, tiny_cohort
from pipeline.training.checkpoints import CONFIG_FILE
from pipeline.training.config import TrainingConfig
from pipeline.training.method import train

CONFIG = TrainingConfig(epochs=1, batch_pieces=4, warmup_epochs=0.0, tensorboard=False, device="cpu")


@pytest.mark.parametrize(("label", "precision"), [("tiny", "float32"), ("tiny_bfloat16_r2", "bfloat16")])
def test_auto_is_saved_as_what_it_came_to(tmp_path: Path, label: str, precision: str) -> None:
    cohort = tiny_cohort(n_patients=8, hours=1.5, draws=4)
    store = EmbeddingStore.open(tmp_path / "store", create=True)
    for patient, windows in cohort.store.windows.items():
        key = EmbeddingKey(source_hash="s", encoder_name=label, weights_hash="w", preprocessing_version="1")
        with store.stage(patient, replace(key, device="cuda"), width=windows.width) as writer:
            writer.append(windows.start_us, windows.embeddings, windows.quality)
            store.commit([writer.finish()])
    train(
        "lstm", cohort.aligned, store, cohort.scaler, cohort.splits, dict(TINY_MODEL), CONFIG, tmp_path / "run",
        experiment={"encoder_precision": "auto", "name": "x"},
    )  # fmt: skip
    saved = json.loads((tmp_path / "run" / "best" / CONFIG_FILE).read_text())
    assert saved["experiment"]["encoder_precision"] == precision
    assert saved["provenance"]["encoder"]["precision"] == precision
    assert saved["provenance"]["encoder"]["device"] == "cuda"
