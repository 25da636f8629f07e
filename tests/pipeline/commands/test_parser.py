"""Every sub-command's help says what it does, and ends in an example that the command line takes."""

import argparse
import shlex
from collections.abc import Iterator

import pytest

from pipeline import __main__ as command_line
from pipeline.commands.examples import EXAMPLES


def commands(parser: argparse.ArgumentParser, *words: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield every sub-command by its words, groups of them too."""
    yield " ".join(words), parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from commands(inner, *words, name)


ALL = dict(commands(command_line._parser()))


def test_every_sub_command_has_an_example_and_there_is_none_of_another() -> None:
    assert set(EXAMPLES) == set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_the_example_is_in_the_help_and_is_taken(name: str) -> None:
    parser = ALL[name]
    line = parser.format_help().rstrip().splitlines()[-1].strip()
    assert line == f"python -m pipeline {name} {EXAMPLES[name]}".replace("  ", " ").rstrip()
    words = shlex.split(line.split(" < ")[0])[3:]
    parsed = command_line._parser().parse_args(words)
    assert callable(parsed.run)
    assert name in " ".join(words)


@pytest.mark.parametrize("name", [name for name in ALL if name])
def test_the_help_begins_with_what_the_command_does(name: str) -> None:
    said = ALL[name].description
    assert said is not None
    assert len(said) > 10
    assert said[0] == said[0].upper()


def test_the_console_command_calls_itself_by_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/uniphy", "plot", "--help"])
    with pytest.raises(SystemExit) as stopped:
        command_line.main(["plot", "--help"])
    assert stopped.value.code == 0
    told = capsys.readouterr().out
    assert told.startswith("usage: uniphy plot")
    assert told.rstrip().endswith("uniphy plot estimates.parquet --row 1 --out trajectory")


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command_line.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("uniphy-lab 0.")
