"""Faces of the rooms: what they say they offer is there, is what others use, and costs no torch to look at."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("pipeline", "models", "assets", "benchmarks")
OFFERS = ("In: ", "Out: ", "Never: ")


def rooms() -> list[str]:
    folders = [
        path.parent for layer in ("pipeline", "models") for path in (ROOT / layer).glob("*/**/__init__.py")
    ]
    return sorted(".".join(folder.relative_to(ROOT).parts) for folder in folders)


def room_of(module: str) -> str:
    """Return the innermost room of a module, empty where it stands in none."""
    return max((room for room in rooms() if f"{module}.".startswith(f"{room}.")), key=len, default="")


def face(room: str) -> dict[str, list[str]]:
    """Return what the face lists by module, read from its source: modules themselves under an empty name."""
    listed: dict[str, list[str]] = {"": []}
    for node in ast.walk(ast.parse(source(room))):
        if isinstance(node, ast.Call):
            given = {word.arg: ast.literal_eval(word.value) for word in node.keywords}
            listed |= {"": given.get("submodules", []), **given.get("submod_attrs", {})}
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith(room):
            listed[node.module.removeprefix(f"{room}.")] = [alias.name for alias in node.names]
    return listed


def source(room: str) -> str:
    return ROOT.joinpath(*room.split("."), "__init__.py").read_text()


def foreign_imports() -> Iterator[tuple[str, str, str]]:
    """Yield (file, module, name) of every import of the product from a room that the file is not in."""
    for path in (path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))):
        file = str(path.relative_to(ROOT))
        own = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                room = room_of(node.module)
                if room and not f"{own}.".startswith(f"{room}."):
                    yield from ((file, node.module, alias.name) for alias in node.names)


@pytest.mark.parametrize("room", rooms())
def test_a_face_says_what_enters_leaves_and_never_does_and_its_names_are_there(room: str) -> None:
    module = importlib.import_module(room)
    assert all(f"\n{word}" in (module.__doc__ or "") for word in OFFERS)
    listed = face(room)
    assert sorted(module.__all__) == sorted(name for names in listed.values() for name in names)
    for home, names in listed.items():
        for name in names:
            owner = importlib.import_module(f"{room}.{home}" if home else f"{room}.{name}")
            assert getattr(module, name) is (getattr(owner, name) if home else owner)


def test_other_rooms_use_what_a_face_lists_from_where_it_lives() -> None:
    lists = {room: face(room) for room in rooms()}
    strangers = []
    for file, module, name in foreign_imports():
        room = room_of(module)
        home = module.removeprefix(room).lstrip(".")
        offered = home in lists[room][""] or name in lists[room].get(
            home, []
        )  # a module that is listed, or its name
        if not offered and not name.startswith("_"):
            strangers.append(f"{file}: from {module} import {name}")
    assert strangers == []


def test_looking_at_every_face_imports_no_torch() -> None:
    looked = "; ".join(f"import {room}; dir({room})" for room in rooms())
    command = f"import sys; {looked}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], cwd=ROOT, check=False).returncode == 0


def test_readmes_tree_has_a_line_for_every_room_and_for_nothing_else() -> None:
    tree = (ROOT / "README.md").read_text().split("## Where every line lives")[1].split("```")[1]
    folders: list[str] = []
    for line in filter(str.strip, tree.splitlines()):
        name, level = line.split()[0].rstrip("/"), (len(line) - len(line.lstrip())) // 2
        folders = [*folders[:level], name]
        assert ROOT.joinpath(*folders).exists(), line
        assert len(line.split()) > 2 or name == "pipeline", f"{line}: no word for a newcomer"
    named = {line.split()[0].rstrip("/") for line in tree.splitlines() if line.strip()}
    assert {room.split(".")[-1] for room in rooms() if room.startswith("pipeline.")} <= named
