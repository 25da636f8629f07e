"""Code versions that cannot be forgotten: the hash of every file of ours that a stage can reach, shipped data too."""

import ast
import hashlib
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

import pipeline

ROOT = Path(pipeline.__file__).parents[1]
PROJECT = ("pipeline", "models", "kernels")
BESIDE = ("*.cpp", "*.h", "*.json", "data/*", "templates/*")
"""Files beside a module that belong to it: compiled sources, and what it reads as shipped. Encoder weights are not
among them: their own hash is in every artefact's key."""


@cache
def code_version(module: str) -> str:
    """Return 12 hexadecimal digits that change when `module`, or project code that it imports, changes.

    Imports inside functions count too, relative ones as well, and so do the faces of the packages around each module;
    a name taken from a face leads to the module that defines it. Nothing is imported to find out.
    """
    digest = hashlib.sha256()
    for path in sorted(_reachable(module)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _reachable(module: str) -> set[Path]:
    found: set[Path] = set()
    followed: set[Path] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if path is None or path in followed:
            continue
        followed.add(path)
        found |= {path, *_beside(path.parent), *_faces_around(path)}
        whole = path.name == "__init__.py"
        waiting += _imported(path, name if whole else name.rpartition(".")[0])
        waiting += _face(name).values() if whole else ()
    return found


@cache
def _beside(folder: Path) -> tuple[Path, ...]:
    """Return what `BESIDE` names in a folder, looked for once for all its modules."""
    return tuple(file for pattern in BESIDE for file in folder.glob(pattern) if file.is_file())


def _faces_around(path: Path) -> list[Path]:
    """Return the ``__init__.py`` of every package around a file: read, not followed, since it loads lazily."""
    around = path.relative_to(ROOT).parents
    return [face for folder in around if (face := ROOT / folder / "__init__.py").is_file()]


@cache
def _imported(path: Path, package: str) -> tuple[str, ...]:
    """Return every module of ours that the imports of a file in `package` lead to."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            names += [_home(module, alias.name) for alias in node.names]
    return tuple(name for name in names if name.split(".")[0] in PROJECT)


def _home(module: str, name: str) -> str:
    """Return the module that ``from module import name`` needs: one inside it, or where its face says, or itself."""
    inner = f"{module}.{name}"
    return inner if _file(inner) else _face(module).get(name, module)


@cache
def _face(module: str) -> dict[str, str]:
    """Return the module behind each name that a package's ``__init__.py`` offers, lazily or not."""
    path = _file(module)
    homes: dict[str, str] = {}
    if path is None or path.name != "__init__.py":
        return homes
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            home = resolve_name("." * node.level + (node.module or ""), module)
            for alias in node.names:
                inner = f"{home}.{alias.name}"
                homes[alias.asname or alias.name] = inner if _file(inner) else home
        elif isinstance(node, ast.Call):
            for word in node.keywords:
                if word.arg == "submodules":
                    homes |= {name: f"{module}.{name}" for name in ast.literal_eval(word.value)}
                elif word.arg == "submod_attrs":
                    lists = ast.literal_eval(word.value)
                    homes |= {name: f"{module}.{home}" for home, names in lists.items() for name in names}
    return homes


@cache
def _file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)
