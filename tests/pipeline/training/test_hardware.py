"""What a run takes from its machine, and that none of it makes a finished run another one."""

import threading
from dataclasses import replace

import pytest
import torch

from pipeline.foundation.provenance import config_hash
from pipeline.testing.cohort import TINY_MODEL, tiny_cohort
from pipeline.training import hardware
from pipeline.training.batches import PieceSource
from pipeline.training.checkpoints import load_model
from pipeline.training.config import CPU_MICRO_STEPS, TrainingConfig
from pipeline.training.embedding_cache import FREE_SHARE, EmbeddingCache
from pipeline.training.method import train
from pipeline.training.run import TrainingRun

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
CONFIG = TrainingConfig(
    epochs=2, batch_pieces=4, learning_rate=1e-2, warmup_epochs=1.0, tensorboard=False, device="cpu"
)


@pytest.fixture(scope="module")
def cohort():
    return tiny_cohort(n_patients=8, hours=1.5, draws=4)


def run(cohort, out, config=CONFIG, **model):
    shape = dict(TINY_MODEL) | {"dropout": 0.0} | model
    return train("mt_pcs", cohort.aligned, cohort.store, cohort.scaler, cohort.splits, shape, config, out)


def test_runs_from_before_the_machine_decided_are_recognised():
    """The two hashes were computed at commit 82a2eec, before these fields were there."""
    before = {
        "59ab29fe28ae047e69991566618c439a92c56648749af6b68a99c59651aa1bef": TrainingConfig(),
        "225ce3cc6eb2b4ae4b0725d1bc37a7b1956a723b78b79920dd1f603249678371": TrainingConfig(
            steps_per_micro_batch=2048, amp=True
        ),
    }
    for identity, config in before.items():
        described = {"model": {"d_model": 8}, "training": config.identity(), "split_hash": "ab"}
        assert config_hash({"method": "mt_pcs", "part": "all", **described}) == identity


@pytest.mark.parametrize("machine", [
    {"device": "cuda:1"}, {"tensorboard": False}, {"prefetch_micro_batches": 0}, {"embedding_cache_bytes": 1},
    {"steps_per_micro_batch": CPU_MICRO_STEPS}, {"amp": False},
], ids=str)  # fmt: skip
def test_what_changes_no_number_is_no_other_run(machine):
    assert replace(TrainingConfig(), **machine).identity() == TrainingConfig().identity()


@pytest.mark.parametrize("change", [{"seed": 1}, {"amp": True}, {"steps_per_micro_batch": 64}], ids=str)
def test_what_changes_numbers_is_another_run(change):
    assert replace(TrainingConfig(), **change).identity() != TrainingConfig().identity()


def test_a_finished_run_is_recognised_under_other_machine_fields(cohort, tmp_path):
    first = run(cohort, tmp_path)
    other = replace(CONFIG, prefetch_micro_batches=0, embedding_cache_bytes=0, amp=False)
    assert run(cohort, tmp_path, other) == first


@pytest.mark.parametrize("bad", [
    {"amp": "sometimes"}, {"steps_per_micro_batch": 0}, {"prefetch_micro_batches": -1},
    {"embedding_cache_bytes": -1},
], ids=str)  # fmt: skip
def test_values_without_sense_are_refused(bad):
    name = next(iter(bad))
    with pytest.raises(Exception, match=name):
        TrainingConfig(**bad)


def test_bfloat16_is_for_gpus_that_have_it(monkeypatch):
    for amp, native, expected in (("auto", "bfloat16", True), ("auto", "float32", False), (True, "float32", True),
                                  (False, "bfloat16", False)):  # fmt: skip
        monkeypatch.setattr(hardware, "fast_precision", lambda device, native=native: native)
        assert hardware.uses_bfloat16(replace(CONFIG, amp=amp), GPU) is expected
        assert hardware.uses_bfloat16(replace(CONFIG, amp=amp), CPU) is False


def test_tf32_ends_with_its_block():
    before = torch.get_float32_matmul_precision()

    def failing():
        with hardware.matrix_precision(tf32=True):
            assert torch.get_float32_matmul_precision() == "high"
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        failing()
    assert torch.get_float32_matmul_precision() == before
    with hardware.matrix_precision(tf32=False):
        assert torch.get_float32_matmul_precision() == before


def test_micro_batches_come_from_the_gpus_free_memory(monkeypatch):
    assert hardware.fitting_steps(80 * 2**30, 250_000.0) == int(0.6 * 80 * 2**30 / 250_000) // 1024 * 1024
    assert hardware.fitting_steps(2**30, 250_000.0) == CPU_MICRO_STEPS
    assert hardware.fitting_steps(2**40, 250_000.0) == hardware.MOST_MICRO_STEPS
    monkeypatch.setattr(hardware, "_free_bytes", lambda device: 10 * 2**30)

    def steps(config, device, held):
        return hardware.micro_batch_steps(config, device, held, lambda: 250_000.0)

    fitting = hardware.fitting_steps(10 * 2**30, 250_000.0)
    assert steps(CONFIG, GPU, None) == fitting
    assert steps(CONFIG, GPU, fitting + 5000) == fitting + 5000  # a resumed run keeps its own
    assert steps(CONFIG, GPU, 2 * fitting) == fitting  # unless the card is now too small for it
    assert steps(CONFIG, CPU, 200_000) == CPU_MICRO_STEPS
    assert steps(replace(CONFIG, steps_per_micro_batch=77), GPU, 200_000) == 77


def test_too_little_memory_names_the_field(cohort, tmp_path, monkeypatch):
    def too_large(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("pipeline.training.step.forward", too_large)
    with pytest.raises(Exception, match=r"training\.steps_per_micro_batch to 50 or less"):
        run(cohort, tmp_path, replace(CONFIG, steps_per_micro_batch=100))


def test_the_cache_takes_its_share_of_free_memory(cohort, monkeypatch):
    monkeypatch.setattr("pipeline.training.embedding_cache.available_memory_bytes", lambda: 8_000)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert EmbeddingCache(cohort.store).max_bytes == FREE_SHARE * 8_000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert EmbeddingCache(cohort.store).max_bytes == FREE_SHARE * 2_000
    assert EmbeddingCache(cohort.store, 5).max_bytes == 5


def test_the_cache_of_a_run_can_be_set(cohort, tmp_path, monkeypatch):
    made = []

    class Watched(EmbeddingCache):
        def __init__(self, store, max_bytes=None):
            made.append(max_bytes)
            super().__init__(store, max_bytes)

    monkeypatch.setattr("pipeline.training.method.EmbeddingCache", Watched)
    run(cohort, tmp_path, replace(CONFIG, epochs=1, embedding_cache_bytes=12_345))
    assert made == [12_345]


def test_an_epoch_says_how_busy_it_was(cohort, tmp_path, monkeypatch):
    load, never = PieceSource.load, threading.Event()

    def slow(self, *arguments):
        never.wait(0.2)  # costs no processor
        return load(self, *arguments)

    busy = run(cohort, tmp_path / "a").epochs
    monkeypatch.setattr(PieceSource, "load", slow)
    waiting = run(cohort, tmp_path / "b", replace(CONFIG, prefetch_micro_batches=0)).epochs
    assert all(0 < row["busy_share"] <= 1 and row["steps_per_second"] > 0 for row in busy + waiting)
    for row in busy + waiting:
        assert min(row["training_seconds"], row["validation_seconds"], row["saving_seconds"]) > 0
        assert row["training_seconds"] + row["validation_seconds"] <= row["seconds"] + 0.001
    assert min(row["busy_share"] for row in busy) > max(row["busy_share"] for row in waiting)
    assert load_model(tmp_path / "a" / "last").provenance["training_precision"] == "float32"


def agree(cohort, folder, exact, fast):
    """Two epochs in float32 and in bfloat16: losses within 1 %."""
    losses = {
        name: [row["loss"] for row in run(cohort, folder / name, config, d_model=32, d_state=8).epochs]
        for name, config in (("exact", exact), ("fast", fast))
    }
    assert losses["exact"] != losses["fast"]
    assert losses["fast"] == pytest.approx(losses["exact"], rel=0.01)


def test_two_epochs_in_bfloat16_have_the_losses_of_float32(cohort, tmp_path, monkeypatch):
    """Autocast on the CPU stands for the GPU's: the same layers, casts and losses, another library's products."""
    step = TrainingRun._step
    monkeypatch.setattr(
        TrainingRun, "_step", lambda self, state: replace(step(self, state), bfloat16=self.config.amp is True)
    )
    agree(cohort, tmp_path, replace(CONFIG, amp=False), replace(CONFIG, amp=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_two_epochs_on_a_gpu_have_the_losses_of_float32_there(cohort, tmp_path):
    on_gpu = replace(CONFIG, device="cuda")
    agree(cohort, tmp_path, replace(on_gpu, amp=False), replace(on_gpu, amp="auto"))
    steps = load_model(tmp_path / "fast" / "last").provenance["steps_per_micro_batch"]
    assert CPU_MICRO_STEPS <= steps <= hardware.MOST_MICRO_STEPS


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no two CUDA devices")
def test_the_second_gpu_trains_as_the_first(cohort, tmp_path):
    exact = replace(CONFIG, amp=False, steps_per_micro_batch=CPU_MICRO_STEPS)
    losses = [
        [row["loss"] for row in run(cohort, tmp_path / name[-1], replace(exact, device=name)).epochs]
        for name in ("cuda:0", "cuda:1")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
