"""The shape of the tree: tests stand where what they test stands; files and functions stay small."""

import ast
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("kernels", "models", "pipeline", "assets", "benchmarks", "tests")
FILES = [
    Path(folder, name).relative_to(ROOT)
    for layer in FOLDERS
    for folder, _, names in os.walk(ROOT / layer)
    for name in sorted(names)
    if name.endswith(".py")
]
MIRRORED = [path for path in FILES if path.parts[0] == "tests" and path.parts[1] not in ("e2e", path.name)]
"""Tests of one room each; those in ``e2e`` run the whole job."""
LONGEST_FILE, LONGEST_FUNCTION = 400, 60


def stands_right(room: tuple[str, ...], name: str, text: str) -> bool:
    """Return whether a test is named after a module of the room that it stands in, or uses that room."""
    modules = {file.stem for file in ROOT.joinpath(*room).glob("*.py")}
    if any(f"{name}_".startswith(f"test_{module}_") for module in modules):
        return True
    return re.search(rf"\b{re.escape('.'.join(room))}\b", text) is not None


@pytest.mark.parametrize("path", [path for path in MIRRORED if path.name.startswith("test_")], ids=str)
def test_a_test_stands_where_what_it_tests_stands(path: Path) -> None:
    fixtures = ROOT / path.with_name("conftest.py")
    text = (ROOT / path).read_text() + (fixtures.read_text() if fixtures.exists() else "")
    assert stands_right(path.parts[1:-1], path.stem, text)


def test_a_test_in_another_room_is_noticed() -> None:
    text = "from pipeline.testing import metrics"
    assert stands_right(("pipeline", "testing"), "test_metrics", text)
    assert not stands_right(("pipeline", "evaluation"), "test_metrics", text)


def test_every_folder_of_tests_is_a_folder_of_the_code() -> None:
    assert [
        str(path) for path in MIRRORED if not ROOT.joinpath(*path.parts[1:-1], "__init__.py").exists()
    ] == []


def test_files_and_functions_are_small() -> None:
    large = []
    for path in FILES:
        text = (ROOT / path).read_text()
        large += [f"{path}: {text.count(chr(10))} lines"] * (text.count("\n") > LONGEST_FILE)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = node.end_lineno - node.lineno + 1
                large += [f"{path}: {node.name}, {length} lines"] * (length > LONGEST_FUNCTION)
    assert large == []
