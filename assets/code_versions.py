"""Code versions that cannot be forgotten: the hash of every source file that a stage can reach."""

import hashlib
import re
from functools import cache
from pathlib import Path

import pipeline

ROOT = Path(pipeline.__file__).parents[1]
PROJECT = ("pipeline", "models", "kernels")
IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]+(?:\(([^)]*)\)|([^\n#]+))|import[ \t]+([\w.]+))", re.M
)
"""An import statement: the module and the names taken from it, in parentheses or not; or the module alone."""


@cache
def code_version(module: str) -> str:
    """Return 12 hexadecimal digits that change when `module`, or project code that it imports, changes.

    Imports inside functions count too, relative ones as well; nothing is imported to find out.
    """
    digest = hashlib.sha256()
    for path in sorted(_reachable(module)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _reachable(module: str) -> set[Path]:
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if path is None or path in found:
            continue
        found |= {path, *path.parent.glob("*.cpp"), *path.parent.glob("*.h")}
        waiting += _imported(path, name if path.name == "__init__.py" else name.rpartition(".")[0])
    return found


@cache
def _imported(path: Path, package: str) -> tuple[str, ...]:
    """Return every module that a file in `package` may mean by its imports; what is none of ours is left out."""
    names: list[str] = []
    for parent, within, inline, alone in IMPORT.findall(path.read_text()):
        full = _absolute(parent or alone, package)
        if full.split(".")[0] in PROJECT:
            inner = (name.split() for name in re.sub("#.*", "", within or inline).split(","))
            names += [full, *(f"{full}.{words[0]}" for words in inner if words)]
    return tuple(names)


def _absolute(name: str, package: str) -> str:
    """Return the full name of a module that is imported inside `package`, by its dots."""
    rest = name.lstrip(".")
    if rest == name:
        return name
    parents = package.split(".")
    above = parents[: len(parents) - (len(name) - len(rest) - 1)]
    return ".".join([*above, rest]) if rest else ".".join(above)


@cache
def _file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)
