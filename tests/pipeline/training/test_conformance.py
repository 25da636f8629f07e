"""Every source of training batches keeps one book: what it promises of an item is what it loads."""

from collections.abc import Callable

import numpy as np
import pytest

from pipeline.foundation.schema import LAB_NAMES
from pipeline.testing.cohort import TinyCohort, tiny_cohort
from pipeline.testing.conformance import forgotten
from pipeline.training.base import BatchSource
from pipeline.training.batches import PieceSource
from pipeline.training.draw_source import DrawSource

PROTOCOLS = ("start", "anchored")


def pieces(cohort: TinyCohort) -> PieceSource:
    return PieceSource(
        cohort.aligned, cohort.store, cohort.scaler, patients=list(cohort.splits.patients("train")),
        protocols=PROTOCOLS, labs=LAB_NAMES, twin=False, seed=0,
    )  # fmt: skip


def draws(cohort: TinyCohort) -> DrawSource:
    return DrawSource(
        cohort.aligned, cohort.store, cohort.scaler, patients=list(cohort.splits.patients("train")),
        protocols=PROTOCOLS,
    )  # fmt: skip


SOURCES: dict[type, Callable[[TinyCohort], BatchSource]] = {PieceSource: pieces, DrawSource: draws}


@pytest.fixture(scope="module")
def cohort() -> TinyCohort:
    return tiny_cohort()


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, cohort: TinyCohort) -> BatchSource:
    return SOURCES[request.param](cohort)


def test_none_is_forgotten() -> None:
    assert forgotten(BatchSource, SOURCES) == []


def test_keeps_the_protocol(source: BatchSource) -> None:
    assert isinstance(source, BatchSource)
    assert source.labs == LAB_NAMES
    assert all(size > 0 for size in source.group_sizes)
    counts = source.counts()
    assert counts["pieces"] == sum(source.group_sizes)
    assert all(type(count) is int and count >= 0 for count in counts.values())
    means = source.target_means()
    assert (means.shape, means.dtype) == ((len(LAB_NAMES),), np.float64)
    assert ((means >= 0) & (means <= 1)).all()


def test_an_item_is_as_long_and_weighs_as_much_as_was_said(source: BatchSource) -> None:
    for group, size in enumerate(source.group_sizes):
        for items in ([0], list(range(size)), [size - 1, 0]):
            batch = source.load(group, items, epoch=1)
            mask = batch.inputs.step_mask if hasattr(batch.inputs, "step_mask") else batch.inputs.mask
            assert mask.numel() == sum(source.lengths(group, items))
            assert batch.targets.shape == batch.weights.shape
            weights = batch.weights.double().sum(dim=0).numpy()
            np.testing.assert_allclose(weights, source.weight_sums(group, items), rtol=1e-5)
            assert (batch.targets[batch.weights == 0] == 0).all()


def test_two_reads_give_the_same_bits(source: BatchSource, cohort: TinyCohort) -> None:
    again = SOURCES[type(source)](cohort)
    for group in range(len(source.group_sizes)):
        one, other = (it.load(group, [0], epoch=2) for it in (source, again))
        for name in vars(one.inputs):
            assert np.array_equal(getattr(one.inputs, name), getattr(other.inputs, name), equal_nan=True)
        assert np.array_equal(one.targets, other.targets)
    sampled = [it.sample(seed=3) for it in (source, again)]
    assert np.array_equal(sampled[0].embeddings, sampled[1].embeddings)
