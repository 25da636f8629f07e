"""The parser of every sub-command: its help says what it does and ends in an example."""

import argparse
import os
import platform
import sys
from typing import Any

from pipeline.commands.examples import EXAMPLES
from pipeline.foundation.provenance import versions

PACKAGE = "uniphy-lab"
CONSOLE_COMMAND = "uniphy"


def program() -> str:
    """Return how this process was called: by the console command, or as a module."""
    called = os.path.basename(sys.argv[0]).removesuffix(".exe")
    return CONSOLE_COMMAND if called == CONSOLE_COMMAND else "python -m pipeline"


def version_text() -> str:
    """Return the version of the package and of what it computes with."""
    found = versions()
    return f"{PACKAGE} {found[PACKAGE]} (Python {platform.python_version()}, torch {found['torch']})"


class _Described(argparse._SubParsersAction):
    """Sub-commands whose own help begins with what the list of them says."""

    def add_parser(self, name: str, **given: Any) -> argparse.ArgumentParser:
        """Add a sub-command."""
        said = given.get("help", "")
        given.setdefault("description", f"{said[:1].upper()}{said[1:]}." if said else None)
        return super().add_parser(name, **given)


class Command(argparse.ArgumentParser):
    """A command, or a sub-command of one, with its example from `EXAMPLES`."""

    def __init__(self, **given: Any) -> None:
        name = str(given.get("prog") or "").removeprefix(program()).strip()
        example = EXAMPLES.get(name)
        if example is not None:
            given["epilog"] = f"example:\n  %(prog)s {example}".rstrip()
        given["formatter_class"] = argparse.RawDescriptionHelpFormatter
        super().__init__(**given)

    def add_subparsers(self, **given: Any) -> Any:
        """Make room for sub-commands."""
        return super().add_subparsers(**{"action": _Described, "required": True, **given})
