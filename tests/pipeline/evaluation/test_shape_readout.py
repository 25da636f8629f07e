"""Blocks never cross a draw; a read-out finds what is planted, and says how it errs."""

import numpy as np
import pytest

from pipeline.evaluation.shape_readout import (
    BLOCK_US,
    BlockErrors,
    LabelledBlocks,
    block_means,
    error_law,
    fit_readout,
    shape_blocks,
)
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.schema import HOUR_US, WINDOW_US


def test_blocks_are_known_before_the_draw_that_cuts_them() -> None:
    start = 7 * BLOCK_US + WINDOW_US * np.r_[0:25, 40:61]
    draws = np.array([start[7] + 10_000_000, start[30] + WINDOW_US])
    blocks = shape_blocks(start, draws)
    assert blocks.count.sum() == len(start)
    assert blocks.first.tolist() == np.append(0, np.cumsum(blocks.count)[:-1]).tolist()
    assert blocks.count.max() <= BLOCK_US // WINDOW_US
    for first, count, end in zip(blocks.first, blocks.count, blocks.end_us, strict=True):
        ends = start[first : first + count] + WINDOW_US
        assert end == ends[-1]
        for draw in draws:  # all of a block's windows end by the draw, or none of them
            assert len(set(ends <= draw)) == 1
    assert (blocks.time_us < blocks.latest_us + WINDOW_US).all()
    assert (blocks.latest_us < blocks.end_us).all()


def test_no_window_gives_no_block() -> None:
    blocks = shape_blocks(np.zeros(0, np.int64), np.array([5]))
    assert len(blocks.first) == 0
    assert block_means(np.zeros((0, 3)), blocks).shape == (0, 3)


def test_means_are_of_the_blocks_windows() -> None:
    start = WINDOW_US * np.arange(30)
    values = np.random.default_rng(0).normal(size=(30, 4))
    blocks = shape_blocks(start, np.zeros(0, np.int64))
    means = block_means(values, blocks)
    for first, count, mean in zip(blocks.first, blocks.count, means, strict=True):
        assert mean == pytest.approx(values[first : first + count].mean(axis=0))


def walk(rng: np.random.Generator, steps: int, hours: float, width: int) -> np.ndarray:
    """A stationary unit-variance Ornstein-Uhlenbeck path, a step every five minutes."""
    kept = np.exp(-BLOCK_US / HOUR_US / hours)
    path = rng.normal(size=(1, width))
    for _ in range(steps - 1):
        path = np.vstack([path, kept * path[-1] + np.sqrt(1 - kept**2) * rng.normal(size=width)])
    return path


def planted(rng: np.random.Generator, *, products: bool, patients: int = 24) -> dict[str, LabelledBlocks]:
    mixing = np.random.default_rng(1).normal(size=(3 + 3 * products, 12))
    found, steps = {}, rng.integers(120, 150, size=patients)
    for patient, n in enumerate(steps):
        shape = walk(rng, n, 6.0, 3) + rng.normal(size=3)
        seen = np.hstack([shape, np.tanh(shape) ** 2]) if products else shape
        embedding = seen @ mixing + 0.3 * rng.normal(size=(n, 12))
        found[f"{patient:02d}"] = LabelledBlocks(
            mean=embedding, shape=shape, time_us=BLOCK_US * np.arange(n), count=np.full(n, 10)
        )
    return found


def test_reads_what_is_planted_and_unshrinks_it() -> None:
    training = planted(np.random.default_rng(2), products=False)
    readout = fit_readout(training)
    assert (readout.explained > 0.9).all()
    unseen = planted(np.random.default_rng(3), products=False)
    read = np.concatenate([readout.of(blocks.mean) for blocks in unseen.values()])
    true = np.concatenate([blocks.shape for blocks in unseen.values()])
    slope = np.linalg.lstsq(np.column_stack([true, np.ones(len(true))]), read, rcond=None)[0][:3]
    assert slope == pytest.approx(np.eye(3), abs=0.05)


def test_products_enter_where_they_tell_more() -> None:
    rng = np.random.default_rng(4)
    plain = planted(rng, products=False)
    folded = {
        name: LabelledBlocks(
            mean=np.hstack([np.abs(blocks.shape), np.sign(blocks.shape)])
            + 0.05 * rng.normal(size=(len(blocks.shape), 6)),
            shape=blocks.shape, time_us=blocks.time_us, count=blocks.count,
        )
        for name, blocks in plain.items()
    }  # fmt: skip
    assert not fit_readout(plain).quadratic
    assert fit_readout(folded).quadratic  # |x| and its sign say x together, by their product alone


def test_errors_are_divided_into_what_lasts_drifts_and_is_new() -> None:
    rng = np.random.default_rng(5)
    patients = []
    for _ in range(200):
        lasting = 0.5 * rng.normal(size=2)
        errors = lasting + 0.8 * walk(rng, 300, 4.0, 2) + rng.normal(size=(300, 2)) / np.sqrt(10)
        patients.append(BlockErrors(error=errors, time_us=BLOCK_US * np.arange(300), count=np.full(300, 10)))
    law = error_law(patients)
    assert law.constant == pytest.approx(0.25 * np.eye(2), abs=0.08)
    assert law.drift == pytest.approx(0.64 * np.eye(2), abs=0.08)
    assert law.window == pytest.approx(np.eye(2), abs=0.1)
    assert 2.5 < law.drift_hours < 6.5


def test_single_blocks_have_new_errors_alone() -> None:
    errors = np.random.default_rng(6).normal(size=(40, 1, 2))
    law = error_law(
        [
            BlockErrors(error=error, time_us=np.zeros(1, np.int64), count=np.ones(1, np.int64))
            for error in errors
        ]
    )
    assert not law.constant.any()
    assert not law.drift.any()
    assert np.linalg.eigvalsh(law.window).min() > 0


def test_too_few_patients_are_refused() -> None:
    few = dict(list(planted(np.random.default_rng(7), products=False).items())[:3])
    with pytest.raises(ConfigError, match="read on 3 training patients; 5 are needed"):
        fit_readout(few)
