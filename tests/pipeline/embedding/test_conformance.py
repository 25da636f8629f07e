"""Every executor of stage 1 gives the same entries, counts the same failures and commits nothing."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.embedding.base import BatchResult, Executor, PatientMeter
from pipeline.embedding.config import EncodingConfig
from pipeline.embedding.plan import EmbeddingPlan, PatientTask, plan_embedding
from pipeline.embedding.progress import EmbeddingProgress, ProgressMeter
from pipeline.embedding.run import executor
from pipeline.foundation.errors import StoreError
from pipeline.store.embeddings import EmbeddingStore
from pipeline.testing.conformance import forgotten
from pipeline.testing.fake_ray import FakeRay
from pipeline.testing.fake_source import FakeSource
from pipeline.testing.waveforms import CONFIG, FakeEncoder

KINDS = {
    "local": EncodingConfig(batch_windows=16, executor="local"),
    "local, two decoding processes": EncodingConfig(batch_windows=16, executor="local", decode_workers=2),
    "ray": EncodingConfig(batch_windows=16, executor="ray", actors=2),
}


class Listener:
    """Notes which patients have ended."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    def embedded(self, task: PatientTask, n_windows: int) -> None:
        pass

    def ended(self, task: PatientTask) -> None:
        self.ends.append(task.patient)


@pytest.fixture
def over_fake_ray(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Load the module of actors over a cluster of threads."""
    monkeypatch.setitem(sys.modules, "ray", FakeRay(CPU=2.0))
    monkeypatch.delitem(sys.modules, "pipeline.embedding.ray_executor", raising=False)
    yield importlib.import_module("pipeline.embedding.ray_executor")
    sys.modules.pop("pipeline.embedding.ray_executor", None)


@pytest.fixture(params=KINDS)
def embed(
    request: pytest.FixtureRequest, over_fake_ray: Any, source: FakeSource, store: EmbeddingStore
) -> Any:
    """Give a function that embeds tasks by one kind of executor."""

    def run(
        tasks: tuple[PatientTask, ...], encoder: FakeEncoder | None = None
    ) -> tuple[BatchResult, Listener]:
        heard = Listener()
        config = KINDS[request.param]
        with executor(source, store, encoder or FakeEncoder(), config, heard) as here:
            assert isinstance(here, Executor)
            return here.embed(tasks), heard

    return run


def plan(source: FakeSource, store: EmbeddingStore) -> EmbeddingPlan:
    return plan_embedding(source.catalog(), store, FakeEncoder(), CONFIG.window)


def test_none_is_forgotten(over_fake_ray: Any, source: FakeSource, store: EmbeddingStore) -> None:
    kinds = set()
    for config in KINDS.values():
        with executor(source, store, FakeEncoder(), config, Listener()) as here:
            kinds.add(type(here))
    assert forgotten(Executor, kinds) == []


def test_a_meter_hears_of_windows_and_ends_in_any_order(source: FakeSource, store: EmbeddingStore) -> None:
    assert forgotten(PatientMeter, [ProgressMeter]) == []
    tasks = plan(source, store).stale
    told: list[EmbeddingProgress] = []
    meter = ProgressMeter(tasks, told.append)
    assert isinstance(meter, PatientMeter)
    with executor(source, store, FakeEncoder(), KINDS["local"], meter) as here:
        embedded = here.embed(tasks).embedded_windows
    assert [it.windows for it in told] == sorted(it.windows for it in told)
    assert (told[-1].windows, told[-1].patients_done, told[-1].patients) == (embedded, len(tasks), len(tasks))
    assert told[-1].seconds_left == 0


def test_every_task_gives_one_entry_with_the_bytes_of_one_process(
    embed: Callable, source: FakeSource, store: EmbeddingStore, tmp_path: Path
) -> None:
    tasks = plan(source, store).stale
    result, heard = embed(tasks)
    assert sorted(entry.patient for entry in result.entries) == sorted(task.patient for task in tasks)
    assert sorted(heard.ends) == sorted(task.patient for task in tasks)
    assert result.embedded_windows == sum(entry.n_windows for entry in result.entries)
    assert len(store.manifest()) == 0, "committing is the caller's"
    store.commit(result.entries)
    alone = EmbeddingStore.open(tmp_path / "alone", create=True)
    with executor(source, alone, FakeEncoder(), KINDS["local"], Listener()) as here:
        alone.commit(here.embed(plan(source, alone).stale).entries)
    for number in range(4):
        one, other = (held.read(f"patient-{number}") for held in (store, alone))
        assert one.entry.data_hash == other.entry.data_hash


def test_no_task_is_no_result(embed: Callable) -> None:
    result, heard = embed(())
    assert (result, heard.ends) == (BatchResult(), [])


def test_an_unreadable_patient_is_counted_and_the_others_go_on(
    embed: Callable, source: FakeSource, store: EmbeddingStore
) -> None:
    tasks = plan(source, store).stale
    next(source.root.glob("patient-3/*.npy")).unlink()
    result, heard = embed(tasks)
    assert (len(result.entries), sum(result.failures.values())) == (3, 1)
    assert len(heard.ends) == 4


def test_an_embedding_that_cannot_be_stored_is_one_error(
    embed: Callable, source: FakeSource, store: EmbeddingStore
) -> None:
    with pytest.raises(StoreError, match="NaN or infinity"):
        embed(plan(source, store).stale, FakeEncoder(scale=float("nan")))
