"""Run tutorials anew: ``python -m docs.tools.run_notebooks [--write] NOTEBOOK ...`` compares, or stores, their outputs.

A notebook runs in an empty folder. What it writes to standard error (the log, with its times) is not stored. Compared
is every line of text that a cell shows, but for `VOLATILE`; decimals may differ by as much as another processor's
rounding, carried through a short training, makes of them.
"""

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from docs.tools.notebook_pages import output_text, read

ROOT = Path(__file__).parents[2]
TEN_MINUTES = 600
VOLATILE = {
    r"^\d\d:\d\d:\d\d ": "a line of the log: times and rates",
    r"^\s*arithmetic: ": "bfloat16 where the processor is fast with it, float32 elsewhere",
    r"^<\S+ object>$": "a picture, which is looked at, not compared",
}
"""Lines that are left out of the comparison, and why."""
RELATIVE, ABSOLUTE = 0.05, 0.05
"""By how much a decimal may differ."""
NUMBER = re.compile(r"-?\d+\.\d+(?:e[-+]\d+)?")


def run(path: Path, folder: Path) -> dict[str, Any]:
    """Return a notebook with the outputs of this run, in `folder`, by this Python and the product in this tree.

    Raises
    ------
    nbclient.exceptions.CellExecutionError : a cell fails
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    paths = {"PATH": str(Path(sys.executable).parent), "PYTHONPATH": str(ROOT)}
    environment = {
        name: os.pathsep.join(filter(None, (first, os.environ.get(name)))) for name, first in paths.items()
    }
    manager_arguments = {"env": {**os.environ, **environment}}
    client = NotebookClient(
        notebook, timeout=TEN_MINUTES, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute(**manager_arguments)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["metadata"] = {}
            cell["outputs"] = kept_outputs(cell["outputs"], folder)
    return notebook


def kept_outputs(outputs: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Return what is stored of a cell's outputs: standard output in one piece, paths as seen from the folder."""
    kept: list[dict[str, Any]] = []
    for output in outputs:
        if output["output_type"] != "stream":
            kept.append(output)
        elif output["name"] == "stdout":
            if kept and kept[-1]["output_type"] == "stream":
                kept[-1]["text"] += output["text"]
            else:
                kept.append(output)
    for output in kept:
        if output["output_type"] == "stream":
            output["text"] = output["text"].replace(f"{folder.resolve()}/", "")
    return kept


def differences(stored: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return in one sentence each where what a notebook shows is not what is stored with it."""
    found = []
    for number, (old, new) in enumerate(zip(_code(stored), _code(now), strict=True), start=1):
        for before, after in zip_longest(compared_lines(old), compared_lines(new), fillvalue=None):
            if before is None or after is None or not same(before, after):
                found.append(f"code cell {number}: stored {before!r}, now {after!r}")
    return found


def compared_lines(cell: dict[str, Any]) -> list[str]:
    """Return the lines of text that a cell shows and that must be the same in every run."""
    lines = [line.rstrip() for output in cell["outputs"] for line in output_text(output).splitlines()]
    return [line for line in lines if line and not any(re.search(pattern, line) for pattern in VOLATILE)]


def same(before: str, after: str) -> bool:
    """Return whether two lines say the same: equal words and whole numbers, decimals within rounding."""
    words = [" ".join(NUMBER.sub("#", line).split()) for line in (before, after)]
    numbers = [[float(number) for number in NUMBER.findall(line)] for line in (before, after)]
    return words[0] == words[1] and all(
        abs(old - new) <= ABSOLUTE + RELATIVE * abs(old) for old, new in zip(*numbers, strict=True)
    )


def _code(notebook: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (cell for cell in notebook["cells"] if cell["cell_type"] == "code")


def main() -> int:
    """Run the notebooks that the command line names."""
    parser = argparse.ArgumentParser(description="Run tutorials and compare with their stored outputs.")
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--write", action="store_true", help="store the outputs of this run")
    parsed = parser.parse_args()
    status = 0
    for path in parsed.notebooks:
        with tempfile.TemporaryDirectory() as folder:
            notebook = run(path, Path(folder))
        for line in differences(read(path), notebook):
            print(f"{path.name}: {line}")
            status = 0 if parsed.write else 1
        if parsed.write:
            import nbformat

            nbformat.write(notebook, path)
    return status


if __name__ == "__main__":
    sys.exit(main())
