"""Every command that the documentation shows is understood by its program, and run by a test or says why not."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from docs.tools.commands import _READERS as READERS
from docs.tools.commands import Shown, commands, kind, refusal, shown

ROOT = Path(__file__).parents[3]
TABLE = tomllib.loads(Path(__file__).with_name("commands.toml").read_text())
SHOWN = list(dict.fromkeys(shown()))


@pytest.mark.parametrize(
    "command", SHOWN, ids=lambda command: f"{command.file}: {' '.join(command.words)}"[:140]
)
def test_its_program_understands_it(command: Shown) -> None:
    assert command.refusal == ""


def test_each_is_run_by_a_test_or_says_why_not() -> None:
    kinds = {command.kind for command in SHOWN}
    assert sorted(kinds - TABLE.keys()) == [], "add them to commands.toml"
    assert sorted(TABLE.keys() - kinds) == [], "nothing shows them any more"


@pytest.mark.parametrize("name", TABLE)
def test_its_test_is_there_and_a_reason_is_one(name: str) -> None:
    ((way, said),) = TABLE[name].items()
    if way == "not_run":
        assert len(said.split()) > 3
        assert all((ROOT / file).exists() for file in re.findall(r"tests/\S+\.py", said))
    else:
        assert way == "test"
        file, function = said.split("::")
        tree = ast.parse((ROOT / file).read_text())
        assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(
    "line",
    [
        "python -m pipeline train --methode mt_pcs",
        "python -m pipeline trian",
        "uniphy predict --checkpoint c",
        "python -m benchmarks selective_scans",
        "python -m benchmarks selective_scan --warm-up 3",
        "make docss",
        "dagster asset materialise --select '*report'",
        "dagster asset materialize --selekt '*report'",
        "torchrun --nproc-per-node 2 -m pipeline train --methode mt_pcs",
        "torchrun --nprocs 2 -m pipeline train",
    ],
)
def test_a_slip_is_found(line: str) -> None:
    (words,) = commands(line)
    assert refusal(words)


def test_a_mistake_of_the_reader_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slip would else count as found, whatever was wrong."""

    def broken(words: list[str]) -> None:
        raise TypeError("a mistake")

    monkeypatch.setitem(READERS, "make", broken)
    with pytest.raises(TypeError, match="a mistake"):
        refusal(["make", "docss"])


def test_a_script_is_taken_apart() -> None:
    script = """export UNIPHY_LABS=/data A=1
A="--experiment tiny
   --set training.epochs=2"   # of two lines
for stage in embed labs; do python -m pipeline $stage $A; done
UNIPHY_EXECUTOR=forkserver python -m pipeline all > out.txt 2>&1 && make test  # and then
uniphy predict --out e.csv \\
    --checkpoint c | head
other program
"""
    shared = ["--experiment", "tiny", "--set", "training.epochs=2"]
    assert [list(words) for words in commands(script)] == [
        ["python", "-m", "pipeline", "embed", *shared],
        ["python", "-m", "pipeline", "labs", *shared],
        ["python", "-m", "pipeline", "all"],
        ["make", "test"],
        ["uniphy", "predict", "--out", "e.csv", "--checkpoint", "c"],
    ]


@pytest.mark.parametrize(
    ("line", "known_as"),
    [
        ("uniphy store ls --experiment demo", "python -m pipeline store ls"),
        ("python -m pipeline plot e.parquet --row 1", "python -m pipeline plot"),
        ("torchrun --nproc-per-node 2 -m pipeline train --method mt", "torchrun -m pipeline train"),
        ("dagster instance concurrency set gpu 4", "dagster instance concurrency set"),
        ("dagster asset materialize --select x", "dagster asset materialize"),
        ("python -m benchmarks.readouts --bidmc b", "python -m benchmarks.readouts"),
    ],
)
def test_a_kind_is_program_and_sub_command(line: str, known_as: str) -> None:
    assert kind(line.split()) == known_as


def test_pages_prose_and_notebooks_are_read() -> None:
    files = {command.file for command in SHOWN}
    assert files >= {"README.md", "docs/operations.md", "docs/tutorials/demo.ipynb", "docs/how-to/predict.md"}
    assert Shown(file="README.md", words=("make", "ui")) in SHOWN
    assert any(command.named and command.words[-1] == "gc" for command in SHOWN), "alternatives of a table"
