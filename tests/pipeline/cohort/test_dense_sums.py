"""Sums forget points and keep every digit; methods that were not scored on the same points are refused."""

import itertools
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from pipeline.cohort.dense_sums import DenseBlock, DenseSums, accumulate_dense_sums
from pipeline.cohort.summed_set import dense_sets
from pipeline.foundation.errors import ConfigError, LeakError
from pipeline.foundation.schema import DENSE_SUM_COLUMNS

METHODS = ("locf", "mt_pcs")


def block(truth, *, patient="a", lab="glucose", split="test", start=0, **estimates):
    truth = np.asarray(truth, dtype=float)
    return DenseBlock(
        patient=patient,
        split=split,
        protocol="start",
        lab=lab,
        sampled_at_us=np.arange(start, start + len(truth), dtype=np.int64),
        truth=truth,
        estimates={name: np.asarray(values, dtype=float) for name, values in estimates.items()},
    )


def random_blocks(n_points=600, n_patients=3, cuts=(0, 100, 101, 350, 600), seed=0, methods=METHODS):
    rng = np.random.default_rng(seed)
    for number in range(n_patients):
        truth = 100 + 40 * number + rng.normal(size=n_points).cumsum()
        estimates = {name: truth + rng.normal(size=n_points) for name in METHODS}
        for first, stop in itertools.pairwise(cuts):
            yield block(truth[first:stop], patient=str(number), start=first,
                        **{name: estimates[name][first:stop] for name in methods})  # fmt: skip


def test_one_row_a_method_and_patient_with_plain_sums():
    table = accumulate_dense_sums([block([1, 2, 6], mt_pcs=[2, 2, 4], locf=[0, 0, 0])], seed=3)
    assert tuple(table.columns) == DENSE_SUM_COLUMNS
    row = table.set_index("method").loc["mt_pcs"]
    assert (row["n_points"], row["absolute_error"], row["signed_error"], row["squared_error"]) == (
        3,
        3,
        -1,
        5,
    )
    assert (row["truth_mean"], row["truth_spread"], row["seed"]) == (3, 14, 3)
    assert table.set_index("method").loc["locf", "absolute_error"] == 9


def test_how_points_are_cut_into_blocks_changes_nothing():
    whole, cut = (
        accumulate_dense_sums(random_blocks(cuts=cuts), seed=0) for cuts in ((0, 600), (0, 1, 77, 500, 600))
    )
    assert whole["points_digest"].tolist() == cut["points_digest"].tolist()
    pd.testing.assert_frame_equal(whole, cut, rtol=1e-13)


@pytest.mark.parametrize("level", [0.0, 1e3, 1e7])
def test_no_digit_is_lost_however_far_the_level_lies_from_zero(level):
    """The spread of a patient's truths against exact fractions; a sum of squares minus a square would keep none."""
    rng = np.random.default_rng(1)
    truth = level + 1e-3 * rng.integers(0, 1000, size=3000) / 1024
    cut = [block(part, start=i, m=part) for i, part in enumerate(np.split(truth, [1, 500, 501, 2000]))]
    row = accumulate_dense_sums(cut, seed=0).iloc[0]
    exact = [Fraction(float(value)) for value in truth]
    mean = sum(exact) / len(exact)
    spread = sum((value - mean) ** 2 for value in exact)
    assert row["truth_mean"] == pytest.approx(float(mean), rel=1e-15)
    assert row["truth_spread"] == pytest.approx(float(spread), rel=1e-9)


def test_equal_truths_have_a_spread_of_exactly_zero():
    cut = [block([139.7] * n, start=n, m=[140.0] * n) for n in (3, 7, 500)]
    row = accumulate_dense_sums(cut, seed=0).iloc[0]
    assert row["truth_spread"] == 0
    assert row["truth_mean"] == 139.7


def test_a_block_without_points_is_nothing():
    assert accumulate_dense_sums([block([], m=[])], seed=0).empty
    assert tuple(accumulate_dense_sums([], seed=0).columns) == DENSE_SUM_COLUMNS


def test_a_method_that_skips_a_block_is_refused():
    sums = DenseSums(seed=0)
    sums.add(block([1, 2], locf=[1, 2], mt_pcs=[1, 2]))
    with pytest.raises(
        ConfigError, match=r"glucose \(start, dense, seed 0\).*\['mt_pcs'\] estimated some blocks"
    ):
        sums.add(block([3], start=2, locf=[3]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_estimate_or_truth_that_is_not_finite_is_refused(bad):
    with pytest.raises(ConfigError, match=r"'m' was scored on 1 points of glucose .*without a finite"):
        accumulate_dense_sums([block([1, 2], m=[1, bad])], seed=0)
    with pytest.raises(ConfigError, match="without a finite"):
        accumulate_dense_sums([block([1, bad], m=[1, 2])], seed=0)


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ConfigError, match=r"different lengths: .*'m': 1"):
        accumulate_dense_sums([block([1, 2], m=[1])], seed=0)


def damaged(kind):
    """Blocks of a second method whose points are not those of the first."""
    for number, part in enumerate(random_blocks(methods=("mt_pcs",))):
        truth, times = part.truth.copy(), part.sampled_at_us.copy()
        if kind == "point missing" and number == 1:
            continue
        if kind == "other truth" and number == 2:
            truth[3] = np.nextafter(truth[3], np.inf)
        if kind == "other time" and number == 2:
            times[3] += 1
        yield DenseBlock(patient=part.patient, split=part.split, protocol=part.protocol, lab=part.lab,
                         sampled_at_us=times, truth=truth, estimates=part.estimates)  # fmt: skip


@pytest.mark.parametrize("kind", ["point missing", "other truth", "other time", "patient missing", "twice"])
def test_methods_scored_on_different_points_are_refused(kind):
    locf = accumulate_dense_sums(random_blocks(methods=("locf",)), seed=0)
    other = accumulate_dense_sums(damaged(kind), seed=0)
    if kind == "patient missing":
        other = other.iloc[1:]
    if kind == "twice":
        locf, other = (pd.concat([table, table.iloc[:1]]) for table in (locf, other))
    with pytest.raises(ConfigError, match=r"glucose \(start, dense, seed 0\) have not the same points"):
        dense_sets(pd.concat([locf, other], ignore_index=True))


def test_methods_scored_on_the_same_points_in_streams_of_their_own_are_one_set():
    tables = [
        accumulate_dense_sums(random_blocks(methods=("locf",), cuts=(0, 600)), seed=0),
        accumulate_dense_sums(random_blocks(methods=("mt_pcs",), cuts=(0, 5, 600)), seed=0),
        accumulate_dense_sums(random_blocks(methods=("mt_pcs",)), seed=1),
    ]
    sets = dense_sets(pd.concat(tables, ignore_index=True))
    # LOCF has no weights: it serves both seeds.
    assert [(found.seed, list(found.sums), found.n_labs, found.n_patients) for found in sets] == [
        (0, ["locf", "mt_pcs"], 1800, 3),
        (1, ["locf", "mt_pcs"], 1800, 3),
    ]
    assert sets[0].points == sets[1].points


def test_bad_tables_get_one_clear_error():
    table = accumulate_dense_sums(random_blocks(), seed=0)
    with pytest.raises(ConfigError, match="no row of split 'validation', only of \\['test'\\]"):
        dense_sets(table, "validation")
    with pytest.raises(ConfigError, match="'truth_spread'"):
        dense_sets(table.drop(columns="truth_spread"))
    with pytest.raises(LeakError, match="1 patients appear in more than one split of the dense sums"):
        dense_sets(pd.concat([table, table.head(1).assign(split="calibration")]))
