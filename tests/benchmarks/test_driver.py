"""Ratios of a benchmark's providers: paired by round, and bounded without a word on how times are distributed."""

import csv
import math
import random
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import driver
from benchmarks.driver import Case, Provider, paired_ratio, rows, run_case, save, table


@pytest.fixture
def no_commit_is_kept() -> Iterator[None]:
    driver.commit_name.cache_clear()
    yield
    driver.commit_name.cache_clear()


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


@pytest.mark.parametrize(("each", "rounds"), [(0.0, 15), (0.2, 6), (0.13, 8)])
def test_a_case_ends_after_enough_seconds_but_not_before_there_are_bounds(
    each: float, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def run(took: float) -> None:
        now[0] += took

    monkeypatch.setattr(driver.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(driver, "seconds", lambda run: run() or 1.0)
    made = [
        Provider(name="ours", run=lambda: run(each / 2)),  # twice a round: once to warm up
        Provider(name="slow peer", run=lambda: run(100.0), rounds=2),
    ]
    ours, peer = run_case(Case(name="case", providers=lambda: made), 15, lambda *_: None, 1.0)
    assert (ours.rounds, peer.rounds) == (rounds, 2)
    ours, _ = run_case(Case(name="case", providers=lambda: made), 15, lambda *_: None)
    assert ours.rounds == 15  # nobody asked for less


def test_kept_are_this_machines_rows_of_these_versions_and_this_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "RESULTS", tmp_path)
    monkeypatch.setattr(driver, "commit_name", lambda: "abc")
    assert driver.kept("x") == {}
    times = {"ours": [1.0] * 8, "peer": [2.0] * 8, "absent": []}
    first, second = (
        rows(case, times, {"ours": 3.0}, {"ours": "", "peer": "", "absent": "not installed"}, floor=0.5)
        for case in ("first", "second")
    )
    save("x", first)
    for other in ({"commit": "abd"}, {"machine": "another"}, {"versions": "torch 1.0"}, {"versions": ""}):
        save("x", [replace(row, **other) for row in second])
    assert driver.kept("x") == {"first": first}
    again = [replace(row, rounds=9) for row in first]
    save("x", again)
    assert driver.kept("x") == {"first": again}


def test_a_row_names_the_versions_of_what_ran() -> None:
    assert f"torch {torch.__version__}" in driver.versions()
    assert rows("case", {"ours": [1.0]}, {}, {"ours": ""}, None)[0].versions == driver.versions()


@pytest.mark.usefixtures("no_commit_is_kept")
def test_a_commit_from_which_files_differ_is_marked_but_not_for_new_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, results = tmp_path / "benchmarks/driver.py", tmp_path / "benchmarks/results/x.csv"
    monkeypatch.setattr(driver, "__file__", str(source))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    source.parent.mkdir()

    def named() -> str:
        driver.commit_name.cache_clear()
        return driver.commit_name()

    assert named() == driver.UNKNOWN
    monkeypatch.setenv("BENCHMARK_COMMIT", "abc1234")
    assert named() == "abc1234"
    results.parent.mkdir()
    for path in (source, results):
        path.write_text("1\n")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    for command in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "first")):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    clean = named()
    assert len(clean) >= 7
    assert not clean.endswith(driver.CHANGED)
    results.write_text("2\n")
    assert named() == clean
    source.write_text("2\n")
    assert driver.commit_name() == clean  # asked once: what runs was there before
    assert named() == clean + driver.CHANGED
