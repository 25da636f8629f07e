"""A stage's code version is the hash of the sources that it can reach."""

import shutil
from pathlib import Path

import pytest

from assets import code_versions
from assets.code_versions import code_version


def forget() -> None:
    for name in ("code_version", "_imported", "_face", "_file", "_beside"):
        getattr(code_versions, name).cache_clear()


@pytest.fixture(autouse=True)
def forgotten():
    """What one root's files were is not remembered for another's, in whatever order tests run."""
    forget()
    yield
    forget()


@pytest.fixture
def project(tmp_path: Path, monkeypatch) -> Path:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "a.py").write_text("def f():\n    from pipeline import b, c as d\n")
    (tmp_path / "pipeline" / "b.py").write_text("import numpy\n")
    (tmp_path / "pipeline" / "c.py").write_text("from pipeline.a import f\n")
    (tmp_path / "pipeline" / "apart.py").write_text("")
    monkeypatch.setattr(code_versions, "ROOT", tmp_path)
    return tmp_path / "pipeline"


def with_a_relative_kernel(root: Path) -> Path:
    """Let module a import a kernel whose package imports itself relatively, two folders down."""
    folder = root / "kernels" / "scan"
    (folder / "triton").mkdir(parents=True)
    (root / "pipeline" / "a.py").write_text("from kernels.scan.interface import scan\n")
    (folder / "__init__.py").write_text("from .interface import scan\n")
    (folder / "interface.py").write_text(
        "def scan():\n    from .triton import (\n        backend,  # the GPU's\n    )\n"
    )
    (folder / "triton" / "__init__.py").write_text("")
    (folder / "triton" / "backend.py").write_text("from ..operands import Operands\nfrom . import tiling\n")
    (folder / "triton" / "tiling.py").write_text("import triton\n")
    (folder / "triton" / "apart.py").write_text("")
    (folder / "operands.py").write_text("")
    return folder


def version() -> str:
    forget()
    return code_version("pipeline.a")


@pytest.mark.parametrize(("changed", "differs"), [("a", True), ("b", True), ("c", True), ("apart", False)])
def test_it_changes_with_what_the_stage_reaches_and_nothing_else(
    project, changed: str, differs: bool
) -> None:
    before = version()
    assert version() == before
    path = project / f"{changed}.py"
    path.write_text(path.read_text() + "# changed\n")
    assert (version() != before) == differs


@pytest.mark.parametrize(
    ("changed", "differs"),
    [
        ("operands.py", True),
        ("triton/backend.py", True),
        ("triton/tiling.py", True),
        ("triton/apart.py", False),
    ],
)
def test_it_follows_relative_imports(project, changed: str, differs: bool) -> None:
    path = with_a_relative_kernel(project.parent) / changed
    before = version()
    path.write_text(path.read_text() + "# changed\n")
    assert (version() != before) == differs


@pytest.mark.parametrize("name", ["parameters.json", "data/figures.csv", "templates/page.html.jinja"])
def test_it_changes_with_the_data_that_ship_beside_a_module(project, name: str) -> None:
    path = project / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("1\n")
    before = version()
    path.write_text("2\n")
    assert version() != before


LAZY = """import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["whole"], submod_attrs={"home": ["taken"], "apart": ["left"]}
)
"""


@pytest.mark.parametrize(
    ("imports", "changed"),
    [
        ("import pipeline.b, pipeline.c\n", ["b", "c"]),
        ("from pipeline.room.deep import thing\n", ["__init__", "room/__init__", "room/deep"]),
        ("from pipeline.room import taken\n", ["room/__init__", "room/home"]),
        ("from pipeline.room import whole\n", ["room/__init__", "room/whole"]),
        ("from .room import taken as other\n", ["room/home"]),
        ("from pipeline import room\n", ["room/home", "room/apart", "room/whole"]),
    ],
)
def test_it_follows_faces_and_every_name_of_an_import(project, imports: str, changed: list[str]) -> None:
    (project / "room").mkdir()
    (project / "__init__.py").write_text("")
    (project / "room" / "__init__.py").write_text(LAZY)
    for name in ("home", "apart", "whole", "deep"):
        (project / "room" / f"{name}.py").write_text("")
    (project / "a.py").write_text(imports)
    files = sorted(project.rglob("*.py"))
    differing = set()
    for path in files:
        before, text = version(), path.read_text()
        path.write_text(text + "# changed\n")
        if version() != before:
            differing.add(str(path.relative_to(project).with_suffix("")))
        path.write_text(text)
    assert set(changed) <= differing
    assert ("room/apart" in differing) == ("room/apart" in changed)


def test_a_changed_triton_kernel_changes_a_trainings_code_version(tmp_path: Path, monkeypatch) -> None:
    for layer in code_versions.PROJECT:
        shutil.copytree(
            code_versions.ROOT / layer,
            tmp_path / layer,
            ignore=shutil.ignore_patterns("__pycache__", "weights"),
        )
    monkeypatch.setattr(code_versions, "ROOT", tmp_path)
    version()
    before = {stage: code_version(f"pipeline.stages.{stage}") for stage in ("training", "align")}
    kernel = tmp_path / "kernels" / "selective_scan" / "triton" / "backward.py"
    kernel.write_text(kernel.read_text() + "# changed\n")
    version()
    assert code_version("pipeline.stages.training") != before["training"]
    assert code_version("pipeline.stages.align") == before["align"]


def test_training_depends_on_the_kernels_and_alignment_does_not() -> None:
    version()
    training, alignment = (
        {path.name for path in code_versions._reachable(f"pipeline.stages.{name}")}
        for name in ("training", "align")
    )
    assert {"scan.h", "kernels.cpp", "patient_state.py"} <= training
    assert "patient_state.py" not in alignment
