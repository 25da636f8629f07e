"""``recovery`` refuses what it cannot run before it runs anything, and hands on what was asked for."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.__main__ import main
from pipeline.commands.evaluation import add_evaluation_commands
from pipeline.evaluation.recovery_conditions import CONDITIONS, LONG_CONDITIONS
from pipeline.stages import recovery


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "oracle"], "--method oracle cannot be trained; choose from lstm, "),
        (
            ["--condition", "coupling 2"],
            "--condition 'coupling 2' is none of the regime short: choose from coupling 1,",
        ),
        (
            ["--regime", "long", "--condition", "null B"],
            "is none of the regime long: choose from rendered, coupling 1",
        ),
        (["--seeds", "0"], "--seeds 0: at least one training run is needed"),
        (
            ["--regime", "long", "--hours", "9", "3"],
            "recovery --regime long: CohortSize needs 0 < hours_low <= hours_high",
        ),
        (
            ["--regime", "long", "--patients", "0", "9"],
            "recovery --regime long: CohortSize.n_patients must lie in 1..",
        ),
    ],
)
def test_refused(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recovery", "--artifacts", str(tmp_path), *words]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def run(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    add_evaluation_commands(parser.add_subparsers())
    parsed = parser.parse_args(words)
    parsed.run(parsed)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []

    def noting(*arguments: Any, methods: Sequence[str] | None, workers: int) -> pd.DataFrame:
        assert workers >= 1
        calls.append((*arguments[2:], methods))
        raise KeyboardInterrupt

    for name in ("run_recovery", "run_long_recovery"):
        monkeypatch.setattr(recovery, name, noting)
    return calls


def test_short_is_what_runs_unless_asked_otherwise(tmp_path: Path, asked: list[tuple[Any, ...]]) -> None:
    for words in ([], ["--condition", "null B", "--seeds", "2", "--method", "lines"]):
        with pytest.raises(KeyboardInterrupt):
            run(["recovery", "--artifacts", str(tmp_path), *words])
    (everything, every_condition_its_own), (chosen, methods) = asked
    assert everything == list(CONDITIONS)
    assert every_condition_its_own is None
    assert [(condition.name, condition.seeds) for condition in chosen] == [("null B", 2)]
    assert methods == ["lines"]


def test_long_has_sizes_of_its_own(tmp_path: Path, asked: list[tuple[Any, ...]]) -> None:
    for words in ([], ["--patients", "9", "0", "--hours", "2", "3", "--seeds", "3"], ["--days", "2", "4"]):
        with pytest.raises(KeyboardInterrupt):
            run(["recovery", "--regime", "long", "--artifacts", str(tmp_path), *words])
    (cohorts, everything, _), (small, rendered, _), (days, _, _) = asked
    assert everything == list(LONG_CONDITIONS)
    assert (cohorts.rendered.n_patients, cohorts.emulated.n_patients, cohorts.emulated.hours_low) == (
        160,
        1000,
        168,
    )
    assert (small.rendered.n_patients, small.rendered.hours_low, small.rendered.hours_high) == (9, 2, 3)
    assert [(condition.emulated, condition.seeds) for condition in rendered] == [(False, 3), (False, 3)]
    assert (days.emulated.hours_low, days.emulated.hours_high) == (48, 96)
