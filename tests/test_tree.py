"""The shape of the tree: tests stand where what they test stands; files and functions stay small."""

import ast
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("kernels", "models", "pipeline", "assets", "benchmarks", "docs", "tests")
FILES = [
    Path(folder, name).relative_to(ROOT)
    for layer in FOLDERS
    for folder, _, names in os.walk(ROOT / layer)
    for name in sorted(names)
    if name.endswith(".py")
]
MIRRORED = [path for path in FILES if path.parts[0] == "tests" and path.parts[1] not in ("e2e", path.name)]
"""Tests of one room each; those in ``e2e`` run the whole job."""
ELSEWHERE = {
    "assets/test_browser.py": "looks at the assets in a browser, served by another process",
    "assets/test_command_line.py": "types Dagster's own commands in another process",
    "kernels/selective_scan/triton/test_backend.py": "runs the kernels in processes of their own, interpreted",
    "kernels/selective_scan/triton/test_binaries.py": "launches in a process of its own, with another driver",
    "kernels/selective_scan/triton/test_three_pass.py": "imports the tiling by name, where Triton is installed",
    "models/regressor/test_lab_regressor_streams.py": "builds its models by models.testing.regressor",
    "pipeline/commands/test_configuration.py": "types the command, which starts in pipeline.__main__",
    "pipeline/training/test_method_ranks.py": "trains in processes of their own, one a rank",
    "pipeline/training/test_method_refusals.py": "trains by the helper pipeline.testing.training_runs",
    "pipeline/training/test_method_resume.py": "trains by the helper pipeline.testing.training_runs",
}
"""Tests that import nothing of the room that they stand in, and why they stand there."""
LONGEST_FILE, LONGEST_FUNCTION, LONGEST_PROSE = 400, 60, 110
MARKDOWN = sorted(
    path for pattern in ("*.md", *(f"{folder}/**/*.md" for folder in FOLDERS)) for path in ROOT.glob(pattern)
)
LONE_LINK = re.compile(r"([*+-] |\d+\. )?\[[^]]*\]\([^)]*\)[.,;]?|<?https?://\S+")


def imported(text: str) -> set[str]:
    """Return every module that a file imports, and every name, as if it were a module too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def stands_right(room: tuple[str, ...], text: str) -> bool:
    """Return whether a test imports from the room that it stands in: its face, or a module in that very folder."""
    modules = {".".join((*room, file.stem)) for file in ROOT.joinpath(*room).glob("*.py")}
    whole = {".".join(room), *modules}
    return any(name in whole or name.rpartition(".")[0] in modules for name in imported(text))


@pytest.mark.parametrize("path", [path for path in MIRRORED if path.name.startswith("test_")], ids=str)
def test_a_test_stands_where_what_it_tests_stands(path: Path) -> None:
    right = stands_right(path.parts[1:-1], (ROOT / path).read_text())
    assert right != (str(path.relative_to("tests")) in ELSEWHERE), "move it, or mend ELSEWHERE"


def test_an_exception_is_of_a_test_that_is_there_and_gives_a_reason() -> None:
    assert {f"tests/{name}" for name in ELSEWHERE} <= set(map(str, MIRRORED))
    assert all(len(reason.split()) > 3 for reason in ELSEWHERE.values())


def test_a_test_in_another_room_is_noticed() -> None:
    text = "from pipeline.testing import metrics"
    assert stands_right(("pipeline", "testing"), text)
    assert not stands_right(("pipeline", "evaluation"), text)
    assert not stands_right(("pipeline", "evaluation"), f"# pipeline.evaluation\n{text}")
    assert not stands_right(("pipeline",), text)
    assert not stands_right(("pipeline", "sources"), "from pipeline.sources.synthetic.plan import CohortPlan")


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


def prose(path: Path) -> list[tuple[int, str]]:
    """Return the numbered lines of a Markdown file that hold prose: no code, table, heading or lone link."""
    fenced, found = False, []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        bare = line.strip()
        if bare.startswith("```"):
            fenced = not fenced
        elif not fenced and not bare.startswith(("|", "#", "<", "![")) and not LONE_LINK.fullmatch(bare):
            found.append((number, line))
    return found


def test_prose_is_in_lines_that_a_person_can_read() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{number}: {len(line)} characters"
        for path in MARKDOWN
        for number, line in prose(path)
        if len(line) > LONGEST_PROSE
    ]
    assert long == []


def test_prose_is_told_from_what_cannot_be_broken(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Head\nprose\n| a | b |\n```\ncode\n```\n* [all](of/it.md)\nsee [it](it.md)\n")
    assert prose(page) == [(2, "prose"), (8, "see [it](it.md)")]
