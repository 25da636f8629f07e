"""What a person types at the root of the repository, in an activated environment."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WRAPPER = ROOT / "scripts" / "bin" / "dagster"

pytestmark = pytest.mark.skipif(
    not (ROOT / ".venv" / "bin" / "dagster").exists(), reason="the wrapper needs .venv (make setup)"
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "dagster.yaml").write_text((ROOT / "scripts" / "dagster.yaml").read_text())
    return tmp_path


def typed(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command as the activated environment would."""
    environment = os.environ | {
        "PATH": f"{WRAPPER.parent}:{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}",
        "DAGSTER_HOME": str(home),
        "UNIPHY_EXPERIMENT": "tiny",
        "UNIPHY_ARTIFACTS": str(home / "artifacts"),
    }
    environment.pop("DAGSTER_MODULE_NAME", None)
    return subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600
    )


def test_missing_upstream_ends_in_one_error_that_says_what_to_type(home: Path) -> None:
    done = typed(home, "dagster", "asset", "materialize", "--select", "train_mt_pcs")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].endswith("started"), "progress is readable"
    last = done.stderr.strip().splitlines()[-1]
    assert "'*train_mt_pcs'" in last
    assert last.startswith("train_mt_pcs: ")
    assert "Traceback" not in done.stderr + done.stdout
    assert "Stack Trace" not in done.stderr + done.stdout
    assert "Supersession" not in done.stderr


def test_assets_are_listed(home: Path) -> None:
    done = typed(home, "dagster", "asset", "list", "--select", "group:train")
    assert done.returncode == 0, done.stderr
    assert "train_mt_pcs" in done.stdout.split()


def test_other_commands_pass_through(home: Path) -> None:
    done = typed(home, "dagster", "--version")
    assert done.stdout.startswith("dagster, version 1.13")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_documented_way_to_train(home: Path) -> None:
    ways = [
        ("dagster", "asset", "materialize", "--select", "*train_mt_pcs"),
        ("dagster", "asset", "materialize", "--select", "train_mt_pcs"),
        ("dagster", "asset", "materialize", "-m", "assets", "--select", "train_mt_pcs"),
        ("dg", "launch", "--assets", "train_mt_pcs"),
    ]
    for words in ways:
        done = typed(home, *words)
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stderr[-3000:]}"
    assert (
        home / "artifacts" / "tiny" / "checkpoints" / "mt_pcs" / "seed0" / "best" / "config.json"
    ).exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_step_in_a_process_of_its_own(home: Path, monkeypatch) -> None:
    monkeypatch.setenv("UNIPHY_EXECUTOR", "forkserver")
    done = typed(home, "dagster", "asset", "materialize", "--select", "*lab_alignment")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (home / "artifacts" / "tiny" / "aligned" / "alignment.json").exists()
