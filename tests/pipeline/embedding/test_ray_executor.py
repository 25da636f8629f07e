"""Actors give what one process gives; without Ray the user is told what to install."""

import importlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from models.encoders.ppg_gpt import PPGGPT
from pipeline.embedding.config import EncodingConfig
from pipeline.embedding.progress import EmbeddingProgress
from pipeline.embedding.run import embed
from pipeline.foundation.errors import ConfigError
from pipeline.sources.array_folder import ArrayFolder
from pipeline.store.embeddings import EmbeddingStore


@pytest.fixture
def source(tmp_path: Path) -> ArrayFolder:
    root = tmp_path / "waveforms"
    root.mkdir()
    for number in range(5):
        samples = np.random.default_rng(number).standard_normal(40 * 30 * (4 + number)).astype(np.float32)
        np.save(root / f"bed{number}.npy", samples)
        about = {"patient_id": f"A{number}", "start": "2111-05-02T10:00:00", "sampling_rate_hz": 40}
        (root / f"bed{number}.json").write_text(json.dumps(about))
    return ArrayFolder(root)


def test_without_ray(source: ArrayFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "pipeline.embedding.ray_executor", raising=False)
    store = EmbeddingStore.open(tmp_path / "store", create=True)
    with pytest.raises(ConfigError, match=r"pip install .uniphy-lab\[ray\]"):
        embed(source, store, PPGGPT.random("1m"), EncodingConfig(executor="ray"))
    importlib.invalidate_caches()


@pytest.mark.slow
def test_two_actors_give_the_same_bytes(
    source: ArrayFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    )
    encoder = PPGGPT.random("1m")
    stores = [EmbeddingStore.open(tmp_path / name, create=True) for name in ("local", "ray")]
    seen: list[EmbeddingProgress] = []
    local = embed(source, stores[0], encoder, EncodingConfig())
    config = EncodingConfig(executor="ray", actors=2, batch_patients=3)
    distributed = embed(source, stores[1], encoder, config, progress=seen.append)
    assert (distributed.embedded, distributed.windows) == (local.embedded, local.windows) == (5, 30)
    assert (seen[-1].patients_done, seen[-1].windows) == (5, 30)
    for number in range(5):
        one, other = (store.read(f"A{number}") for store in stores)
        assert one.entry.data_hash == other.entry.data_hash
    assert embed(source, stores[1], encoder, config).unchanged == 5
