"""What a person types at the root of the repository, in an activated environment."""

import json
import os
import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from pipeline.foundation.schema import LAB_NAMES
from pipeline.prediction.config import STATES
from pipeline.store.embeddings import EmbeddingStore

ROOT = Path(__file__).parents[2]
WORD = re.compile(r"[A-Za-z0-9_-]+")
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
    assert not patients_named_in_the_books(home)


def patients_named_in_the_books(home: Path) -> set[str]:
    """Ids, folders and records of the cohort that stand in what Dagster keeps: events, logs, step values."""
    waveforms = home / "artifacts" / "tiny" / "cohort" / "waveforms"
    folders = {path.name for path in waveforms.glob("p*/p*")}
    names = (
        folders | {name.lstrip("p0") for name in folders} | {path.stem for path in waveforms.rglob("*.hea")}
    )
    kept = [path for place in ("history", "storage", "schedules") for path in (home / place).rglob("*")]
    words = {
        word for path in kept if path.is_file() for word in WORD.findall(path.read_bytes().decode("latin-1"))
    }
    assert "train_mt_pcs" in words, "the books are read"
    return {name for name in names if len(name) >= 4} & words


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_store_may_lie_in_object_storage(home: Path, bucket: str, monkeypatch) -> None:
    config = {
        "resources": {"project": {"config": {"embeddings": bucket, "experiment": "tiny"}}},
        "loggers": {"console": {}},
    }
    words = ("dagster", "asset", "materialize", "--select", "*report", "--config-json", json.dumps(config))
    done = typed(home, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (home / "artifacts" / "tiny" / "report.html").exists()
    assert not list((home / "artifacts" / "tiny").glob("embeddings*"))
    assert len(EmbeddingStore.open(f"{bucket}/tiny").manifest()) == 10
    monkeypatch.setenv("UNIPHY_EMBEDDINGS", bucket)
    again = typed(home, "python", "-m", "pipeline", "embed")
    assert "patients embedded now: 0" in again.stdout, again.stdout + again.stderr
    listed = typed(home, "python", "-m", "pipeline", "store", "ls")
    assert "patients  10" in listed.stdout, listed.stdout + listed.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_new_patients_are_estimated_by_a_job(home: Path) -> None:
    assert typed(home, "dagster", "asset", "materialize", "--select", "*train_mt_pcs").returncode == 0
    cohort, out = home / "artifacts" / "tiny" / "cohort", home / "new"
    patients = {
        "waveforms": str(cohort / "waveforms"),
        "labs": str(cohort / "clinical"),
        "experiment": "tiny",
    }

    def launched(**changed: str) -> subprocess.CompletedProcess[str]:
        config = home / "run.yaml"  # JSON is YAML
        ops = {"estimate_labs": {"config": {"out": str(out)} | changed}}
        config.write_text(json.dumps({"ops": ops, "resources": {"project": {"config": patients}}}))
        job = ("dagster", "job", "execute", "-m", "assets", "-j", "predict_new_patients")
        return typed(home, *job, "-c", str(config))

    refused = launched(out=str(home / "artifacts" / "tiny"))
    assert refused.returncode != 0
    assert "holds a trained experiment" in refused.stderr.strip().splitlines()[-1]
    assert not out.exists()
    done = launched()
    assert done.returncode == 0, done.stderr[-3000:]
    table = pd.read_parquet(out / "estimates.parquet")
    assert set(table["lab"]) == set(LAB_NAMES)
    assert set(table["state"]) <= set(STATES)
    store = EmbeddingStore.open(home / "artifacts" / "tiny" / "embeddings")
    assert not any(entry.retired for entry in store.manifest().values())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_step_in_a_process_of_its_own(home: Path, monkeypatch) -> None:
    monkeypatch.setenv("UNIPHY_EXECUTOR", "forkserver")
    done = typed(home, "dagster", "asset", "materialize", "--select", "*lab_alignment")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (home / "artifacts" / "tiny" / "aligned" / "alignment.json").exists()
