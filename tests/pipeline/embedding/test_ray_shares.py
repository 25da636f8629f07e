"""Actors that are more than the GPUs or cores share them; each that asked for a whole one would wait for ever."""

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.embedding.base import BatchResult
from pipeline.embedding.plan import PatientTask
from pipeline.embedding.progress import ProgressMeter
from pipeline.foundation.errors import ConfigError
from pipeline.store.manifest import EmbeddingKey
from pipeline.testing.fake_ray import FakeRay


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give a function that loads the module over a cluster of these resources."""

    def over(**resources: float) -> Any:
        monkeypatch.setitem(sys.modules, "ray", FakeRay(**resources))
        monkeypatch.delitem(sys.modules, "pipeline.embedding.ray_executor", raising=False)
        return importlib.import_module("pipeline.embedding.ray_executor")

    yield over
    sys.modules.pop("pipeline.embedding.ray_executor", None)


def tasks(n: int) -> list[PatientTask]:
    key = EmbeddingKey(source_hash="", encoder_name="e", weights_hash="w", preprocessing_version="p")
    return [
        PatientTask(
            patient=f"{i}", patient_id=f"A{i}", records=(), fingerprint=None, key=key, planned_windows=1
        )
        for i in range(n)
    ]


@pytest.mark.parametrize(
    ("resources", "n_actors", "on_gpu"),
    [
        ({"CPU": 16.0, "GPU": 1.0}, 2, True),
        ({"CPU": 16.0, "GPU": 2.0}, 3, True),
        ({"CPU": 16.0, "GPU": 1.0}, 3, True),
        ({"CPU": 16.0, "GPU": 1.0}, 7, True),
        ({"CPU": 2.0}, 5, False),
        ({"CPU": 2.0, "GPU": 0.0}, 2, False),
    ],
)
def test_every_actor_finds_a_place(
    executor: Any, resources: dict[str, float], n_actors: int, on_gpu: bool
) -> None:
    module = executor(**resources)
    given = tasks(40)
    meter = ProgressMeter(given, None)
    with module.actors(
        lambda part: BatchResult(embedded_windows=len(part)), n_actors, meter, on_gpu=on_gpu
    ) as pool:
        assert pool.embed(given).embedded_windows == 40
    assert min(module.ray.free.values()) >= 0


def test_whole_ones_while_there_are_enough(executor: Any) -> None:
    module = executor()
    assert module.shares({"CPU": 16.0, "GPU": 4.0}, 4, on_gpu=True) == {"num_cpus": 1, "num_gpus": 1}
    assert module.shares({"CPU": 16.0, "GPU": 4.0}, 2, on_gpu=False) == {"num_cpus": 1, "num_gpus": 0}
    assert module.shares({"CPU": 16.0, "GPU": 2.0}, 3, on_gpu=True)["num_gpus"] == 0.5, (
        "two on a GPU, not 2/3"
    )
    assert module.shares({"CPU": 16.0, "GPU": 1.0}, 3, on_gpu=True)["num_gpus"] == 0.3333


def test_a_cluster_without_a_gpu_is_an_error(executor: Any) -> None:
    module = executor(CPU=16.0)
    with (
        pytest.raises(ConfigError, match=r"Ray's cluster has none.*embedding\.device=cpu"),
        module.actors(lambda part: BatchResult(), 2, ProgressMeter([], None), on_gpu=True),
    ):
        pass
