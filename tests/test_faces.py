"""Faces of the rooms: what they say they offer is there, is what others use, and costs no torch to look at."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("pipeline", "models", "kernels", "assets", "benchmarks")
HOUSES = ("pipeline", "models", "kernels")
FOR_STRANGERS = ("kernels.selective_scan",)
"""Rooms that are a wheel of their own: their faces list what other projects use."""
OFFERS = ("In: ", "Out: ", "Never: ")


@cache
def rooms() -> list[str]:
    folders = [path.parent for layer in HOUSES for path in (ROOT / layer).glob("*/**/__init__.py")]
    return sorted(".".join(folder.relative_to(ROOT).parts) for folder in folders)


def room_of(module: str) -> str:
    """Return the innermost room of a module, empty where it stands in none."""
    return max((room for room in rooms() if f"{module}.".startswith(f"{room}.")), key=len, default="")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def file_of(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def face(room: str) -> dict[str, list[str]]:
    """Return what the face lists by module, read from its source: modules themselves under an empty name."""
    listed: dict[str, list[str]] = {"": []}
    whole: list[str] = []
    for node in ast.walk(tree(file_of(room))):
        if isinstance(node, ast.Call):
            given = {word.arg: ast.literal_eval(word.value) for word in node.keywords}
            listed |= {"": given.get("submodules", []), **given.get("submod_attrs", {})}
        elif isinstance(node, ast.ImportFrom) and (node.level or str(node.module).startswith(room)):
            home = (node.module or "").removeprefix(f"{room}.")
            listed[home] = [alias.name for alias in node.names]
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            whole = [item.value for item in node.value.elts if isinstance(item, ast.Constant)]
    named = {name for names in listed.values() for name in names}
    listed[""] = [*listed[""], *(name for name in whole if name not in named)]
    return listed


def defined(module: str) -> set[str]:
    """Return the names that a module itself defines at its top level."""
    names: set[str] = set()
    for node in tree(file_of(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {
                leaf.id for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)
            }
    return names


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of every import in a file, absolute; where a face is imported, of every use of it."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package or None)
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                if inner not in rooms():
                    yield module, alias.name
                    continue
                used = alias.asname or alias.name
                for use in ast.walk(tree(path)):
                    if isinstance(use, ast.Attribute) and ast.unparse(use.value) == used:
                        yield inner, use.attr


def foreign_imports(folders: tuple[str, ...] = LAYERS) -> Iterator[tuple[str, str, str]]:
    """Yield (file, module, name) of every import of the product from a room that the file is not in."""
    for path in (path for layer in folders for path in sorted((ROOT / layer).rglob("*.py"))):
        own = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for module, name in imports(path):
            room = room_of(module)
            if room and not f"{own}.".startswith(f"{room}."):
                yield str(path.relative_to(ROOT)), module, name


def listed_in(room: str, home: str, name: str) -> bool:
    """Return whether a face lists a name of a module of it, or the whole module; or, of the face itself, a name."""
    if not home:
        return name in {name for names in face(room).values() for name in names}
    return home in face(room)[""] or name in face(room).get(home, [])


@pytest.mark.parametrize("room", [*LAYERS, *rooms()])
def test_a_face_says_what_enters_leaves_and_never_does(room: str) -> None:
    said = ast.get_docstring(tree(file_of(room)), clean=False) or ""
    assert all(f"\n{word}" in said for word in OFFERS)


@pytest.mark.parametrize("room", rooms())
def test_the_names_of_a_face_are_there_and_are_defined_where_it_says(room: str) -> None:
    module = importlib.import_module(room)
    listed = face(room)
    assert sorted(module.__all__) == sorted(name for names in listed.values() for name in names)
    for home, names in listed.items():
        assert not home or set(names) <= defined(f"{room}.{home}"), f"{home} only imports a name"
        for name in names:
            owner = importlib.import_module(f"{room}.{home}" if home else f"{room}.{name}")
            assert getattr(module, name) is (getattr(owner, name) if home else owner)


def test_other_rooms_use_what_a_face_lists_from_where_it_lives() -> None:
    strangers = []
    for file, module, name in foreign_imports():
        room = room_of(module)
        if name.startswith("_") or not listed_in(room, module.removeprefix(room).lstrip("."), name):
            strangers.append(f"{file}: from {module} import {name}")
    assert strangers == []


def test_a_face_lists_nothing_that_no_other_room_uses() -> None:
    taken = {(module, name) for _, module, name in foreign_imports()}
    taken |= {use[1:] for use in foreign_imports(("tests",)) if room_of(use[1]).endswith(".testing")}
    modules, spare = {module for module, _ in taken}, []
    for room in (room for room in rooms() if room not in FOR_STRANGERS):
        for home, names in face(room).items():
            for name in names:
                whole = not home and any(f"{module}.".startswith(f"{room}.{name}.") for module in modules)
                if not whole and not {(room, name), (f"{room}.{home}", name)} & taken:
                    spare.append(f"{room}: {home} {name}")
    assert spare == []


def test_looking_at_every_face_imports_no_torch() -> None:
    looked = "; ".join(f"import {room}; dir({room})" for room in rooms())
    command = f"import sys; {looked}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], cwd=ROOT, check=False).returncode == 0


def test_readmes_tree_has_a_line_for_every_room_and_for_nothing_else() -> None:
    tree = (ROOT / "README.md").read_text().split("## Where every line lives")[1].split("```")[1]
    folders: list[str] = []
    described: set[str] = set()
    for line in filter(str.strip, tree.splitlines()):
        name, level = line.split()[0].rstrip("/"), (len(line) - len(line.lstrip())) // 2
        folders = [*folders[:level], name]
        assert ROOT.joinpath(*folders).exists(), line
        assert len(line.split()) > 2 or name == "pipeline", f"{line}: no word for a newcomer"
        described |= {
            "/".join(folders),
            *("/".join([*folders, word]) for word in re.findall(r"\b(\w+)/", line)),
        }
    wanted = {room.replace(".", "/") for room in rooms()} - {"pipeline", "models", "kernels"}
    assert wanted - described == set()
