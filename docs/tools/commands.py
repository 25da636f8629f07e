"""Commands that the documentation shows, and whether the programs that they call would understand them.

Nothing is run: each program's own parser reads the words.
"""

import argparse
import contextlib
import importlib
import io
import itertools
import re
import runpy
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from docs.tools.notebook_pages import joined, read

ROOT = Path(__file__).parents[2]
PAGES = (
    "*.md",
    "docs/**/*.md",
    "docs/tutorials/*.ipynb",
    "kernels/*/README.md",
    "models/encoders/weights/README.md",
)
PROGRAMS = ("python", "uniphy", "make", "dagster", "dg", "torchrun", "pip")
FENCE = re.compile(r"^ *```(?P<language>[^\n]*)\n(?P<text>.*?)^ *```", re.MULTILINE | re.DOTALL)
SHELL = ("", "bash", "sh", "console")
"""Languages of blocks that may hold commands."""
INLINE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
COMMENT = re.compile(r"(?:^|(?<=\s))#.*$", re.MULTILINE)
"""A word that begins with "#" and what follows it."""
SUBCOMMAND = "SUBCOMMAND"
"""Stands in prose for any sub-command."""
GROUPS = ("store", "asset", "sensor", "schedule", "instance", "concurrency", "run")
"""Words after which another word says what is done."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One command in one file.

    Attributes
    ----------
    file : relative to the root
    words : program first; assignments before it and redirections after it are left out
    named : it stands in prose without an option, as the name of a command, not as one to type
    """

    file: str
    words: tuple[str, ...]
    named: bool = False

    @property
    def kind(self) -> str:
        """Program and sub-command, which one entry of the table speaks for."""
        return kind(self.words)

    @property
    def refusal(self) -> str:
        """What the program says against it, "" where it takes it; of a name: that there is no such command."""
        return refusal((*self.words, "--help") if self.named and self.words[0] != "make" else self.words)


def shown(root: Path = ROOT) -> list[Shown]:
    """Return every command in a fenced block, in a line of code of the prose, or in a notebook's shell cell."""
    paths = sorted({path for pattern in PAGES for path in root.glob(pattern)})
    return [
        Shown(
            file=str(path.relative_to(root)),
            words=words,
            named=prose and not any(word.startswith("-") for word in words[3:]),
        )
        for path in paths
        for script, prose in _scripts(path)
        for words in commands(script)
    ]


def _scripts(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield each piece of a file that may hold commands, and whether it stands in prose."""
    if path.suffix == ".ipynb":
        cells = [(cell["cell_type"], joined(cell["source"])) for cell in read(path)["cells"]]
        yield from ((text.partition("\n")[2], False) for _, text in cells if text.startswith("%%bash"))
        text = "\n".join(text for cell_type, text in cells if cell_type == "markdown")
    else:
        text = path.read_text()
    yield from (
        (block["text"], False) for block in FENCE.finditer(text) if block["language"].strip() in SHELL
    )
    for inline in INLINE.finditer(FENCE.sub("", text)):
        first, *more = inline.group(1).split()
        if first in PROGRAMS and more:
            yield from ((line, True) for line in _alternatives(" ".join([first, *more]).rstrip(" …")))


def _alternatives(line: str) -> list[str]:
    r"""Return ``store ls \| verify`` of a table as ``store ls`` and ``store verify``."""
    first, *others = (part.strip() for part in line.split("\\|"))
    return [first, *(f"{first.rpartition(' ')[0]} {other}" for other in others)]


def commands(script: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of each command of a shell script that calls one of `PROGRAMS`.

    Variables that the script itself sets, by assignment or in a loop, are put in.
    """
    values: dict[str, list[list[str]]] = {}
    for words in _simple_commands(script):
        while words and (assigned := re.fullmatch(r"([A-Z_a-z]\w*)=(.*)", words[0], re.DOTALL)):
            values[assigned[1]] = list(_filled_in(assigned[2].split(), values))
            words = words[1:]
        if words and words[0] == "for":
            values[words[1]] = [[value] for value in words[3:]]
        words = words[words[:1] == ["do"] :]
        if words and words[0] in PROGRAMS and not _is_prose(words):
            yield from map(tuple, _filled_in(words, values))


def _simple_commands(script: str) -> Iterator[list[str]]:
    """Yield the words between two of the shell's separators, without redirections."""
    text = COMMENT.sub("", script).replace("\\\n", " ")
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;<>\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    words: list[str] = []
    redirected = False
    try:
        for token in lexer:
            if set(token) <= set("|&;\n"):
                yield words
                words, redirected = [], False
            elif set(token) <= set("<>&"):
                redirected = True
                words = words[: -1 if words and words[-1] in "12" else None]
            elif not redirected:
                words.append(token)
    except ValueError:  # an apostrophe: no script
        return
    yield words


def _is_prose(words: Sequence[str]) -> bool:
    """Return whether a line only names a program: ``python -m pipeline``, or one that has an ellipsis to fill in."""
    return len(words) == 1 or list(words) == ["python", "-m", "pipeline"]


def _filled_in(words: Sequence[str], values: dict[str, list[list[str]]]) -> Iterator[list[str]]:
    """Yield a command once for each value of the variables in it."""
    choices = [values.get(word[1:], [[word]]) if word.startswith("$") else [[word]] for word in words]
    for chosen in itertools.product(*choices):
        yield [word for part in chosen for word in part]


def kind(words: Sequence[str]) -> str:
    """Return program and sub-command: "python -m pipeline store ls", "make demo", "torchrun ... train"."""
    words = list(words)
    if words[0] == "uniphy":
        words = ["python", "-m", "pipeline", *words[1:]]
    if words[0] == "torchrun":
        module = words.index("-m")
        return f"torchrun -m {words[module + 1]} {words[module + 2]}"
    start = 3 if words[:2] == ["python", "-m"] else 1
    named = words[:start]
    for word in words[start:]:
        if word.startswith("-") or (words[0] == "python" and not re.fullmatch(r"[a-z][a-z0-9_-]*", word)):
            break
        named.append(word)
        if word not in GROUPS:
            break
    return " ".join(named)


def refusal(words: Sequence[str]) -> str:
    """Return what the program says against these words, "" where it takes them."""
    reader = _READERS.get(words[0])
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            if reader is not None:
                reader(list(words[1:]))
    except SystemExit as end:
        return said.getvalue().strip() if end.code else ""
    except (
        _RefusedError,
        ImportError,
    ) as error:  # any other is a mistake of a reader, and no word against a command
        return str(error)
    return ""


class _Understood(Exception):
    """A program's parser has read all words."""


class _RefusedError(Exception):
    """A program does not take the words; why is in the message."""


def _read_module(words: list[str]) -> None:
    """Let ``python -m module …`` read its words, and stop it there."""
    if words[:1] != ["-m"]:
        return
    module, given = words[1], words[2:]
    if module == "pipeline":
        _read_pipeline(given)
        return
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser: argparse.ArgumentParser, *arguments: Any) -> argparse.Namespace:
        parse(parser, *arguments)
        raise _Understood

    with (
        warnings.catch_warnings(action="ignore"),  # the module may be imported already
        mock.patch.object(argparse.ArgumentParser, "parse_args", parse_and_stop),
        mock.patch.object(sys, "argv", [module, *given]),
        contextlib.suppress(_Understood),
    ):
        if given:
            runpy.run_module(module, run_name="__main__")
        else:
            importlib.import_module(module)


def _read_pipeline(words: list[str]) -> None:
    main = importlib.import_module("pipeline.__main__")
    main._parser().parse_args(["train" if word == SUBCOMMAND else word for word in words])


def _read_torchrun(words: list[str]) -> None:
    options = importlib.import_module("torch.distributed.run").parse_args(words)
    _read_module(["-m", options.training_script, *options.training_script_args])


def _read_make(words: list[str]) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    unknown = [word for word in words if word not in targets]
    if unknown:
        raise _RefusedError(f"the Makefile has no target {', '.join(unknown)}")


def _click_reader(where: str, name: str) -> Callable[[list[str]], None]:
    """Return what reads the words of a program made with click."""

    def reader(words: list[str]) -> None:
        import click

        command = getattr(importlib.import_module(where), name)
        context = click.Context(command)
        while isinstance(command, click.Group):
            found = command.get_command(context, words[0]) if words else None
            if found is None:
                raise _RefusedError(f"no such command: {' '.join(words[:1])}")
            command, words = found, words[1:]
        try:
            with contextlib.suppress(click.exceptions.Exit):  # of --help
                command.make_context(command.name, list(words))
        except click.ClickException as error:
            raise _RefusedError(error.format_message()) from error

    return reader


_READERS: dict[str, Callable[[list[str]], None]] = {
    "python": _read_module,
    "uniphy": _read_pipeline,
    "make": _read_make,
    "torchrun": _read_torchrun,
    "dagster": _click_reader("dagster._cli", "cli"),
    "dg": _click_reader("dagster_dg_cli.cli", "cli"),
}
"""pip has no parser that can be asked."""
