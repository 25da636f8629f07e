"""The thread that reads ahead: order, bounds, errors and end; and that training's bits do not depend on it."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from pipeline.testing.cohort import TINY_MODEL, tiny_cohort
from pipeline.training.batches import PieceSource
from pipeline.training.checkpoints import load_model
from pipeline.training.config import TrainingConfig
from pipeline.training.method import train
from pipeline.training.prefetch import ReadAhead

CONFIG = TrainingConfig(
    epochs=3, batch_pieces=4, learning_rate=1e-2, warmup_epochs=1.0, tensorboard=False, device="cpu",
    steps_per_micro_batch=100,
)  # fmt: skip


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.fixture(scope="module")
def cohort():
    return tiny_cohort(n_patients=8, hours=1.5, draws=4)


def run(cohort, out, config=CONFIG, progress=None, method="mt_pcs"):
    shape = dict(TINY_MODEL) | {"dropout": 0.3}
    return train(
        method, cohort.aligned, cohort.store, cohort.scaler, cohort.splits, shape, config, out, progress
    )


def bits(result):
    weights = load_model(result.checkpoint_dir / "last").model.state_dict()
    numbers = [(row["loss"], row["lab_losses"], row["validation"]) for row in result.epochs]
    return numbers, {name: tensor.numpy().tobytes() for name, tensor in weights.items()}


def readers():
    return [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


@pytest.mark.parametrize("depth", [0, 1, 2, 100])
def test_everything_comes_once_and_in_order(depth):
    with ReadAhead(iter(range(50)), depth) as items:
        assert list(items) == list(range(50))
        assert next(items, None) is None
    assert readers() == []


def test_no_more_is_made_than_may_wait():
    made = []
    with ReadAhead((made.append(i) or i for i in range(50)), 3) as items:
        for taken in range(50):
            assert next(items) == taken
            time.sleep(0.002)
            assert len(made) <= taken + 1 + 3
    assert made == list(range(50))


@pytest.mark.parametrize("depth", [0, 2])
def test_an_error_is_raised_where_its_item_would_have_come(depth):
    def failing():
        yield 1
        yield 2
        raise OSError("the disk is gone")

    with ReadAhead(failing(), depth) as items:
        assert [next(items), next(items)] == [1, 2]
        for _ in range(2):
            with pytest.raises((OSError, StopIteration)) as raised:
                next(items)
            if depth:
                assert raised.type is OSError
    assert readers() == []


def test_leaving_early_ends_the_thread_and_what_it_reads_from():
    closed = []

    def endless():
        try:
            while True:
                yield np.zeros(3)
        finally:
            closed.append(True)

    def killed():
        with ReadAhead(endless(), 2) as items:
            next(items)
            raise Killed

    with pytest.raises(Killed):
        killed()
    assert readers() == []
    assert closed == [True]


def test_the_thread_has_numpys_error_state_of_its_maker():
    with np.errstate(divide="raise"), ReadAhead((np.float64(1) / np.float64(i) for i in (1, 0)), 2) as items:
        assert next(items) == 1
        with pytest.raises(FloatingPointError):
            next(items)


@pytest.mark.parametrize("method", ["mt_pcs", "lstm"])
def test_training_gives_the_same_bits_with_and_without_and_when_resumed(cohort, tmp_path, method):
    plain = bits(run(cohort, tmp_path / "plain", replace(CONFIG, prefetch_micro_batches=0), method=method))
    ahead = bits(run(cohort, tmp_path / "ahead", replace(CONFIG, prefetch_micro_batches=3), method=method))
    assert ahead == plain

    def killer(progress):
        if (progress.epoch, progress.batch, progress.validation) == (2, 1, None):
            raise Killed

    with pytest.raises(Killed):
        run(cohort, tmp_path / "cut", replace(CONFIG, prefetch_micro_batches=3), killer, method)
    assert readers() == []
    assert (
        bits(run(cohort, tmp_path / "cut", replace(CONFIG, prefetch_micro_batches=1), method=method)) == plain
    )


def test_batches_are_read_in_the_thread_and_its_error_ends_the_run(cohort, tmp_path, monkeypatch):
    load, names = PieceSource.load, []

    def watched(self, *arguments):
        names.append(threading.current_thread().name)
        if len(names) == 5:
            raise OSError("the disk is gone")
        return load(self, *arguments)

    monkeypatch.setattr(PieceSource, "load", watched)
    with pytest.raises(OSError, match="disk is gone"):
        run(cohort, tmp_path)
    assert set(names) == {"read-ahead"}
    assert len(names) == 5
    assert readers() == []
