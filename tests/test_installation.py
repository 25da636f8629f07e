"""The product installed from a copy of its sources runs whole, far from them: weights, kernels, templates, words."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("kernels", "models", "pipeline", "assets")
NOT_INSTALLED = ("README.md", "LICENSE", "pyproject.toml")
"""What stands beside the modules for readers and for the scan's own wheel."""
OURS = ("uniphy", "__editable__")
TEN_MINUTES = 600


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy what is installed from: setuptools writes beside it."""
    root = tmp_path_factory.mktemp("sources")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.lock"):
        shutil.copy(ROOT / name, root / name)
    return root


@pytest.fixture(scope="module")
def environment(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Type README's command in an environment that has the locked packages, and nothing of ours.

    They are linked from this one, since a test fetches nothing: `pip` finds every requirement fulfilled, or fails.
    """
    root = tmp_path_factory.mktemp("environment")
    venv.create(root, with_pip=False)
    own = Path(sysconfig.get_paths(vars={"base": str(root)})["purelib"])
    packages = root / "packages"
    packages.mkdir()
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not entry.name.startswith(OURS):
            (packages / entry.name).symlink_to(entry)
    (own / "packages.pth").write_text(f"{packages}\n")
    command = ["--python", str(root / "bin" / "python"), "install", "--no-index", "--no-build-isolation"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *command, ".", "-c", "requirements.lock"],
        cwd=sources, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return root


def typed(environment: Path, home: Path, *words: str) -> str:
    """Type the console command in an empty folder, with a cache of its own."""
    kept = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS") if name in os.environ}
    done = subprocess.run(
        [environment / "bin" / "uniphy", *words], cwd=home, capture_output=True, text=True, check=False,
        env=kept | {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(TEN_MINUTES)
def test_every_file_of_the_packages_is_installed(environment: Path, sources: Path) -> None:
    installed = Path(sysconfig.get_paths(vars={"base": str(environment)})["purelib"])
    files = [
        path.relative_to(sources)
        for name in PACKAGES
        for path in (sources / name).rglob("*")
        if path.is_file()
    ]
    wanted = [path for path in files if path.name not in NOT_INSTALLED and "egg-info" not in str(path)]
    assert [str(path) for path in wanted if not (installed / path).is_file()] == []
    assert {path.suffix for path in wanted} >= {
        ".py",
        ".cpp",
        ".h",
        ".safetensors",
        ".json",
        ".csv",
        ".typed",
    }


@pytest.mark.slow
@pytest.mark.timeout(TEN_MINUTES)
def test_the_console_command_runs_the_whole_job(environment: Path, tmp_path: Path) -> None:
    assert typed(environment, tmp_path, "--version").startswith("uniphy-lab 0")
    found = typed(environment, tmp_path, "doctor")
    assert "Nothing is missing." in found or "C++17" in found  # there may be no compiler
    if "C++17" not in found:
        assert len(list((tmp_path / "cache").rglob("*.so"))) == 3  # scan, filter, spread
    table = typed(environment, tmp_path, "all", "--experiment", "tiny", "--set", 'methods=["lines"]')
    assert "lines" in table
    assert (tmp_path / "artifacts" / "tiny" / "report.html").stat().st_size > 10_000
