"""Each check can fail, and says in one sentence what it found."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline import checks
from pipeline.embedding_store import EmbeddingStore
from pipeline.experiments import experiment
from pipeline.manifest import EmbeddingKey
from pipeline.normalization import fit_lab_scaler
from pipeline.schema import HOUR_US
from pipeline.splits import split_subjects
from pipeline.windows import QUALITY_COLUMNS
from pipeline.workspace import Workspace

TINY = experiment("tiny")
PATIENTS = [f"patient{number}" for number in range(12)]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(root=tmp_path)


def write_labs(workspace: Workspace, *, factor: float = 1.0) -> pd.DataFrame:
    rows = [
        {
            "patient_id": patient,
            "lab": lab,
            "value": factor * (value + 0.01 * number),
            "sampled_at_us": number * HOUR_US,
            "available_at_us": number * HOUR_US,
        }
        for number, patient in enumerate(PATIENTS, start=1)
        for lab, value in (("potassium", 4.0), ("sodium", 140.0))
    ]
    frame = pd.DataFrame(rows)
    frame.to_parquet(workspace.lab_events)
    return frame


@pytest.mark.parametrize(("factor", "passes"), [(1.0, True), (100.0, False)])
def test_units(workspace: Workspace, factor: float, passes: bool) -> None:
    write_labs(workspace, factor=factor)
    outcome = checks.units_are_plausible(workspace, TINY)
    assert outcome.passed == passes
    assert passes or "potassium (median" in outcome.explanation


def test_a_subject_in_two_splits(workspace: Workspace) -> None:
    split_subjects(PATIENTS, TINY.splits).save(workspace.splits)
    assert checks.no_subject_in_two_splits(workspace, TINY).passed
    stored = json.loads(workspace.splits.read_text())
    stored["patients"]["test"].append(stored["patients"]["train"][0])
    workspace.splits.write_text(json.dumps(stored))
    assert not checks.no_subject_in_two_splits(workspace, TINY).passed


def test_scaling_from_other_patients(workspace: Workspace) -> None:
    events = write_labs(workspace)
    splits = split_subjects(PATIENTS, TINY.splits)
    splits.save(workspace.splits)
    fit_lab_scaler(events, splits, TINY.scaler).save(workspace.scaler)
    assert checks.scaling_comes_from_training_patients(workspace, TINY).passed
    stored = json.loads(workspace.scaler.read_text())
    stored["high"]["potassium"] += 1.0
    workspace.scaler.write_text(json.dumps(stored))
    assert not checks.scaling_comes_from_training_patients(workspace, TINY).passed


@pytest.mark.parametrize(("without", "passes"), [(5, True), (500, False)])
def test_draws_without_windows(workspace: Workspace, without: int, passes: bool) -> None:
    summary = workspace.summary("lab_alignment")
    summary.parent.mkdir()
    content = {
        "exclusions": {"start: no usable window before the draw": without},
        "tables": {"scored draws": [{"draws": 100}]},
    }
    summary.write_text(json.dumps(content))
    assert checks.draws_found_a_window(workspace, TINY).passed == passes


@pytest.mark.parametrize(("estimate", "passes"), [(4.0, True), (4.1, False)])
def test_locf_of_another_value(workspace: Workspace, estimate: float, passes: bool) -> None:
    labs = {"patient_id": "p", "lab": "potassium", "sampled_at_us": [HOUR_US, 9 * HOUR_US]}
    pd.DataFrame(labs | {"available_at_us": [2 * HOUR_US, 10 * HOUR_US], "value": [4.0, 4.1]}).to_parquet(
        workspace.lab_events
    )
    row = {
        "method": "locf",
        "scoring": "measured",
        "split": "test",
        "patient": "p",
        "lab": "potassium",
        "estimate": estimate,
        "t0": np.array([3 * HOUR_US], "datetime64[us]"),
        "sampled_at": np.array([9 * HOUR_US], "datetime64[us]"),
    }
    pd.DataFrame(row).to_parquet(workspace.predictions)
    assert checks.locf_recomputed_independently(workspace, TINY).passed == passes


def embed_something(workspace: Workspace) -> EmbeddingStore:
    store = EmbeddingStore.open(workspace.store, create=True)
    key = EmbeddingKey(source_hash="s", encoder_name="e", weights_hash="w", preprocessing_version="1")
    with store.stage("patient0", key, width=4) as writer:
        starts = np.arange(3, dtype=np.int64) * 30_000_000
        quality = np.full((3, len(QUALITY_COLUMNS)), 0.5, np.float32)
        writer.append(starts, np.ones((3, 4), np.float32), quality)
        entry = writer.finish()
    store.commit([entry])
    return store


def test_a_damaged_store(workspace: Workspace) -> None:
    embed_something(workspace)
    assert checks.store_matches_its_manifest(workspace, TINY).passed
    chunk = next(
        path for path in workspace.store.rglob("*") if path.is_file() and "embeddings/c" in str(path)
    )
    data = bytearray(chunk.read_bytes())
    data[0] ^= 0xFF
    chunk.write_bytes(data)
    outcome = checks.store_matches_its_manifest(workspace, TINY)
    assert not outcome.passed
    assert "1 damaged" in outcome.explanation


@pytest.mark.parametrize(("page", "passes"), [("Patient A", True), ("Patient patient3 died", False)])
def test_patient_ids_in_the_report(workspace: Workspace, page: str, passes: bool) -> None:
    split_subjects(PATIENTS, TINY.splits).save(workspace.splits)
    embed_something(workspace)
    workspace.report.write_text(f"<p>{page}</p>")
    assert checks.no_patient_ids_in_metadata(workspace, TINY).passed == passes
