"""Ratios of a benchmark's providers: paired by round, and bounded without a word on how times are distributed."""

import csv
import math
import random
from pathlib import Path

import pytest

from benchmarks import driver
from benchmarks.driver import paired_ratio, rows, save, table


def test_a_machine_that_slows_down_for_both_changes_no_ratio() -> None:
    ours = [1.0, 1.1, 5.0, 1.0, 3.0, 1.2, 1.0]
    theirs = [2.0 * t for t in ours]
    ratio, low, high = paired_ratio(ours, theirs)
    assert ratio == pytest.approx(2.0)
    assert low is not None
    assert high is not None
    assert low == pytest.approx(2.0)
    assert high == pytest.approx(2.0)


def test_bounds_hold_the_median_as_often_as_they_say() -> None:
    rng = random.Random(0)
    held = 0
    for _ in range(500):
        theirs = [math.exp(rng.gauss(0.0, 0.3)) for _ in range(15)]
        _, low, high = paired_ratio([1.0] * 15, theirs)
        assert low is not None
        assert high is not None
        held += low <= 1.0 <= high
    assert 0.94 < held / 500 <= 1.0  # the coin's own level is .965


@pytest.mark.parametrize(("n", "bounded"), [(0, False), (5, False), (6, True), (15, True)])
def test_few_rounds_have_no_bounds(n: int, bounded: bool) -> None:
    ratio, low, high = paired_ratio([1.0] * n, [float(k + 1) for k in range(n)])
    assert (ratio is None) == (n == 0)
    assert (low is not None) == bounded
    if n == 6:  # the smallest and the largest: 2 / 2**6 = .031 that all lie on one side
        assert (low, high) == (1.0, 6.0)


def test_a_peer_with_fewer_rounds_is_paired_with_its_own() -> None:
    ratio, *_ = paired_ratio([1.0, 1.0, 10.0], [3.0, 3.0])
    assert ratio == 3.0


def test_rows_are_shown_and_appended_under_the_columns_of_what_lies_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "RESULTS", tmp_path)
    times = {"ours": [1.0] * 8, "peer": [2.0] * 8, "absent": []}
    made = rows("case", times, {}, {"ours": "", "peer": "", "absent": "not installed"}, floor=0.5)
    shown = table(made).splitlines()
    assert "2.00-2.00" in shown[2]
    assert "not installed" in shown[3]
    assert "0.50" in shown[4]
    save("x", made)
    save("x", made)
    with (tmp_path / "x.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 8
    assert float(lines[1]["ratio_low"]) == 2.0


def test_results_that_are_kept_have_todays_columns() -> None:
    for path in Path(__file__).parents[2].glob("benchmarks/results/*.csv"):
        with path.open(newline="") as file:
            assert next(csv.reader(file)) == list(driver.Row.__dataclass_fields__), path.name
