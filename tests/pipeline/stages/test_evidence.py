"""What the embedding store tells by itself; the other artefacts' evidence is tested with the refusals."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.experiments import experiment
from pipeline.foundation.provenance import config_hash, to_plain
from pipeline.foundation.schema import QUALITY_COLUMNS
from pipeline.foundation.workspace import Workspace
from pipeline.stages.evidence import contradictions
from pipeline.store.embeddings import EmbeddingStore
from pipeline.store.manifest import EmbeddingKey

TINY = dataclasses.replace(experiment("tiny"), encoder="ppg_gpt_1m")
WINDOWS = f"{TINY.window.version}-{config_hash(TINY.window)[:12]}"


def embed(workspace: Workspace, patient: str, encoder: str, windows: str = WINDOWS) -> EmbeddingStore:
    store = EmbeddingStore.open(workspace.store, create=True)
    key = EmbeddingKey(source_hash="s", encoder_name=encoder, weights_hash="w", preprocessing_version=windows)
    with store.stage(patient, key, width=2) as writer:
        quality = np.full((1, len(QUALITY_COLUMNS)), 0.5, np.float32)
        writer.append(np.zeros(1, np.int64), np.ones((1, 2), np.float32), quality)
        store.commit([writer.finish()])
    return store


def fields(workspace: Workspace, encoder: str = "ppg_gpt_1m") -> list[str]:
    chosen = dataclasses.replace(TINY, encoder=encoder)
    return [problem.field for problem in contradictions("ppg_embeddings", workspace, chosen)]


@pytest.mark.parametrize("name", ["ppg_gpt_1m", "ppg_gpt_1m_bfloat16_r2"])
def test_the_precision_is_no_part_of_the_encoders_name(tmp_path: Path, name: str) -> None:
    embed(Workspace(root=tmp_path), "a", name)
    assert fields(Workspace(root=tmp_path)) == []
    assert fields(Workspace(root=tmp_path), "ppg_gpt_1m+mean") == ["encoder"]


@pytest.mark.parametrize(
    ("name", "held"), [("ppg_gpt_1m", "float32"), ("ppg_gpt_1m_bfloat16_r2", "bfloat16")]
)
@pytest.mark.parametrize("wanted", ["auto", "float32", "bfloat16"])
def test_the_precision_is_what_the_store_holds_whatever_auto_meant(
    tmp_path: Path, name: str, held: str, wanted: str
) -> None:
    embed(Workspace(root=tmp_path), "a", name)
    chosen = dataclasses.replace(TINY, encoder_precision=wanted)
    found = contradictions("ppg_embeddings", Workspace(root=tmp_path), chosen)
    assert found == ([] if wanted in ("auto", held) else [("encoder_precision", held, wanted)])
    others = dataclasses.replace(chosen, encoder="pulse_features")  # which has one precision
    assert "encoder_precision" not in [
        problem.field for problem in contradictions("ppg_embeddings", Workspace(root=tmp_path), others)
    ]


def test_an_interrupted_embedding_with_another_encoder_is_seen(tmp_path: Path) -> None:
    workspace = Workspace(root=tmp_path)
    embed(workspace, "a", "ppg_gpt_1m")
    store = embed(workspace, "b", "ppg_gpt_19m")
    assert fields(workspace) == ["encoder"]
    store.commit([], retired=[store.patient_key("b")])  # whose recordings are gone: nobody embeds it again
    assert fields(workspace) == []


def test_other_windows_are_seen(tmp_path: Path) -> None:
    embed(Workspace(root=tmp_path), "a", "ppg_gpt_1m", "windows-1-000000000000")
    assert fields(Workspace(root=tmp_path)) == ["window"]


@pytest.mark.parametrize("path", ["weights/mine.safetensors", "papagei_s:mine.pt"])
def test_the_name_of_an_encoder_from_a_path_tells_nothing(tmp_path: Path, path: str) -> None:
    embed(Workspace(root=tmp_path), "a", "ppg_gpt_custom")
    assert fields(Workspace(root=tmp_path), path) == []


def test_lines_are_not_another_experiments_because_networks_are_trained_longer(tmp_path: Path) -> None:
    """A fit's checkpoint tells of its whole experiment; what the method does not heed contradicts nothing."""
    workspace = Workspace(root=tmp_path)
    config = experiment("tiny")
    folder = workspace.checkpoint("lines", 0) / "best"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"experiment": to_plain(config)}))
    longer = experiment("tiny", {"training.epochs": "9", "model.d_model": "32", "assimilation.features": "4"})
    assert contradictions("train_lines", workspace, longer) == []
    other = experiment("tiny", {"lines.slow_features": "4"})
    assert [found.field for found in contradictions("train_lines", workspace, other)] == [
        "lines.slow_features"
    ]
