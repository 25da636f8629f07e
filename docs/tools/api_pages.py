"""A page for each room from its face: what enters, leaves and never does, and the names that it lists.

The face's table (``lazy_loader.attach``, or imports for type checkers) is read from its source, so a new public name
appears by itself and nothing of the product is imported.
"""

import ast
import tomllib
from dataclasses import dataclass
from pathlib import Path

BELOW = {
    "models": ("encoders", "regressor", "assimilation"),
    "kernels": ("selective_scan", "kalman_scan", "position_spread"),
}
"""Rooms of the lower layers that have a page, in this order; pipeline's order is that of the data."""
HIDDEN = ("testing", "__main__")
"""What no page is made of: rooms that only tests enter."""
OFFERS = ("In", "Out", "Never")


@dataclass(frozen=True, kw_only=True)
class Face:
    """One room as its ``__init__.py`` describes it.

    Attributes
    ----------
    room : dotted name
    summary : the docstring's first sentence, and what else stands before "In:"
    offers : what enters, leaves, never
    names : for each module of the room, sorted, what it offers; a whole module under an empty name
    """

    room: str
    summary: str
    offers: dict[str, str]
    names: dict[str, list[str]]


def rooms(root: Path) -> list[str]:
    """Return the rooms that have a page: pipeline's in the order in which data pass them, then the layers below."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    house = next(contract for contract in contracts if contract.get("containers") == ["pipeline"])
    order = [name for name in reversed(house["layers"]) if name not in HIDDEN]
    found = [f"pipeline.{name}" for name in order if (root / "pipeline" / name).is_dir()]
    found += [f"{layer}.{name}" for layer, names in BELOW.items() for name in names]
    inner = {room: sorted(root.joinpath(*room.split(".")).glob("*/__init__.py")) for room in found}
    return [
        name
        for room in found
        for name in (room, *(f"{room}.{path.parent.name}" for path in inner[room] if _is_face(path)))
    ]


def _is_face(path: Path) -> bool:
    """Return whether a folder's ``__init__.py`` lists names for others."""
    return bool(read_face(path, "").names)


def read_face(path: Path, room: str) -> Face:
    """Return the face that a room's ``__init__.py`` shows, from its source alone."""
    tree = ast.parse(path.read_text())
    summary, offers = _said(ast.get_docstring(tree) or "")
    names: dict[str, list[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "lazy_loader.attach":
            given = {word.arg: ast.literal_eval(word.value) for word in node.keywords}
            names |= {module: list(listed) for module, listed in given.get("submod_attrs", {}).items()}
            names |= {"": list(given["submodules"])} if given.get("submodules") else {}
        elif isinstance(node, ast.ImportFrom) and (module := _own(node, room)) is not None:
            names[module] = [*names.get(module, []), *(alias.name for alias in node.names)]
    return Face(room=room, summary=summary, offers=offers, names=dict(sorted(names.items())))


def _own(node: ast.ImportFrom, room: str) -> str | None:
    """Return the module of the room itself that a face imports from, empty for the room; None where it is another's."""
    module = node.module or ""
    if node.level == 1:
        return module
    return module.removeprefix(room).lstrip(".") if f"{module}.".startswith(f"{room}.") else None


def _said(docstring: str) -> tuple[str, dict[str, str]]:
    """Return a face's docstring as its text and what it says after "In:", "Out:" and "Never:"."""
    said: dict[str, list[str]] = {"": []}
    last = ""
    for line in docstring.splitlines():
        word, colon, rest = line.partition(": ")
        if colon and word in OFFERS:
            last, line = word, rest
            said[last] = []
        elif not line.strip() and last:
            last = ""
        said[last].append(line.strip() if last else line)
    return "\n".join(said.pop("")).strip(), {word: " ".join(lines) for word, lines in said.items()}


def page(face: Face) -> str:
    """Return a room's page as Markdown; mkdocstrings fills in what each ``:::`` line names."""
    lines = [f"# {face.room}", "", face.summary, "", '<dl class="face" markdown="1">']
    for word, text in face.offers.items():
        lines += [f"<dt>{word}</dt>", f'<dd markdown="span">{text}</dd>']
    lines += ["</dl>"]
    if not face.names:
        lines += ["", "No other room uses a name of this one: it is entered by the command line."]
    for module, names in face.names.items():
        home = f"{face.room}.{module}" if module else face.room
        lines += ["", f"## {module or 'Whole modules'}", "", f"`from {home} import {', '.join(names)}`"]
        for name in names:
            lines += ["", f"::: {home}.{name}"]
            if not module:
                lines += ["    options:", "      members: false"]
    return "\n".join(lines) + "\n"


def pages(root: Path) -> dict[str, tuple[str, str]]:
    """Return for each page, by its path in the site, the room that it shows and its Markdown."""
    made = {}
    for room in rooms(root):
        face = read_face(root.joinpath(*room.split("."), "__init__.py"), room)
        made[f"api/{room}.md"] = (room, page(face))
    return made
