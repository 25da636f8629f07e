"""A stage's code version is the hash of the sources that it can reach."""

from pathlib import Path

import pytest

from assets import code_versions
from assets.code_versions import code_version


@pytest.fixture
def project(tmp_path: Path, monkeypatch) -> Path:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "a.py").write_text("def f():\n    from pipeline import b, c as d\n")
    (tmp_path / "pipeline" / "b.py").write_text("import numpy\n")
    (tmp_path / "pipeline" / "c.py").write_text("from pipeline.a import f\n")
    (tmp_path / "pipeline" / "apart.py").write_text("")
    monkeypatch.setattr(code_versions, "ROOT", tmp_path)
    return tmp_path / "pipeline"


def version() -> str:
    for function in (code_version, code_versions._imported, code_versions._file):
        function.cache_clear()
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


def test_training_depends_on_the_kernels_and_alignment_does_not() -> None:
    version()
    training, alignment = (
        {path.name for path in code_versions._reachable(f"pipeline.stages.{name}")}
        for name in ("training", "align")
    )
    assert {"cpu_scan.h", "cpu.cpp", "patient_state.py"} <= training
    assert "patient_state.py" not in alignment
