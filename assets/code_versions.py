"""Code versions that cannot be forgotten: the hash of every source file that a stage can reach."""

import hashlib
import re
from functools import cache
from pathlib import Path

import pipeline

ROOT = Path(pipeline.__file__).parents[1]
IMPORT = re.compile(
    r"^\s*(?:from|import)\s+((?:pipeline|models|kernels)[\w.]*)(?:\s+import\s+([\w, ]+))?", re.M
)


@cache
def code_version(module: str) -> str:
    """Return 12 hexadecimal digits that change when `module`, or project code that it imports, changes.

    Imports inside functions count too; nothing is imported to find out.
    """
    digest = hashlib.sha256()
    for path in sorted(_reachable(module)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _reachable(module: str) -> set[Path]:
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        path = _file(waiting.pop())
        if path is None or path in found:
            continue
        found |= {path, *path.parent.glob("*.cpp"), *path.parent.glob("*.h")}
        waiting += _imported(path)
    return found


@cache
def _imported(path: Path) -> tuple[str, ...]:
    names: list[str] = []
    for parent, inner in IMPORT.findall(path.read_text()):
        names += [parent, *(f"{parent}.{name.split()[0]}" for name in inner.split(",") if name.strip())]
    return tuple(names)


@cache
def _file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)
