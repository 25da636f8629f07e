"""Each check can fail, and says in one sentence what it found."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.cohort.normalization import fit_lab_scaler
from pipeline.cohort.splits import split_subjects
from pipeline.experiments import experiment
from pipeline.foundation.schema import HOUR_US, PREDICTION_COLUMNS, QUALITY_COLUMNS
from pipeline.foundation.workspace import Workspace
from pipeline.prediction.files import PredictionWriter
from pipeline.stages import checks
from pipeline.store.embeddings import EmbeddingStore
from pipeline.store.manifest import EmbeddingKey

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
    assert passes or "potassium (median 406.5, expected 2.5 to 8 mmol/L)" in outcome.explanation


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
    row = dict.fromkeys(PREDICTION_COLUMNS, 0) | {
        "method": "locf",
        "scoring": "measured",
        "split": "test",
        "patient": "p",
        "lab": "potassium",
        "estimate": estimate,
        "t0": np.array([3 * HOUR_US], "datetime64[us]"),
        "sampled_at": np.array([9 * HOUR_US], "datetime64[us]"),
    }
    writer = PredictionWriter(workspace)
    writer.write_measured(pd.DataFrame(row))
    writer.finish()
    assert checks.locf_recomputed_independently(workspace, TINY).passed == passes


def embed_something(workspace: Workspace, patients: Sequence[str] = ("patient0",)) -> EmbeddingStore:
    store = EmbeddingStore.open(workspace.store, create=True)
    key = EmbeddingKey(source_hash="s", encoder_name="e", weights_hash="w", preprocessing_version="1")
    for patient in patients:
        with store.stage(patient, key, width=4) as writer:
            starts = np.arange(3, dtype=np.int64) * 30_000_000
            quality = np.full((3, len(QUALITY_COLUMNS)), 0.5, np.float32)
            writer.append(starts, np.ones((3, 4), np.float32), quality)
            entry = writer.finish()
        store.commit([entry])
    return store


def chunk_of(workspace: Workspace) -> Path:
    return next(path for path in workspace.store.glob("*/*/embeddings/c/**/*") if path.is_file())


def test_a_damaged_store(workspace: Workspace) -> None:
    embed_something(workspace)
    assert checks.store_matches_its_manifest(workspace, TINY).passed
    chunk = chunk_of(workspace)
    data = bytearray(chunk.read_bytes())
    data[0] ^= 0xFF
    chunk.write_bytes(data)
    outcome = checks.store_matches_its_manifest(workspace, TINY)
    assert not outcome.passed
    assert "1 damaged" in outcome.explanation


def test_an_embedding_that_is_not_finite(workspace: Workspace) -> None:
    store = embed_something(workspace)
    chunk = chunk_of(workspace)
    values = np.frombuffer(chunk.read_bytes(), np.float16).copy()
    values[0] = np.nan
    chunk.write_bytes(values.tobytes())
    outcome = checks.store_matches_its_manifest(workspace, TINY)
    assert not outcome.passed
    assert "not finite" in outcome.explanation
    assert len(store.manifest()) == outcome.numbers["patients"]


def test_an_empty_store_is_no_success(workspace: Workspace) -> None:
    EmbeddingStore.open(workspace.store, create=True)
    assert not checks.store_matches_its_manifest(workspace, TINY).passed


@pytest.mark.parametrize(
    "place", ["nowhere", "report.html", "summary.html", "summaries/evaluation.json", "embeddings/patient3/x"]
)
def test_a_patient_id_is_found_wherever_it_stands(workspace: Workspace, place: str) -> None:
    split_subjects(PATIENTS, TINY.splits).save(workspace.splits)
    embed_something(workspace)
    workspace.report.write_text("<p>Patient A</p>")
    path = workspace.root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("<p>patient3 died</p>")
    assert checks.no_patient_ids_in_metadata(workspace, TINY).passed == (place == "nowhere")


def leaking(*arguments, **keywords) -> pd.DataFrame:
    """A method that looks at the whole recording for each estimate."""
    _, store, events = arguments[:3]
    windows = store.read(keywords["patients"][0])
    end = (windows.start_us + 30_000_000).astype("datetime64[us]")
    return pd.DataFrame(
        {"window_end": end, "estimate": windows.embeddings[:].mean() + events.frame["value"].sum()}
    )


def honest(*arguments, **keywords) -> pd.DataFrame:
    """A method that looks at one window for each estimate."""
    _, store, _ = arguments[:3]
    windows = store.read(keywords["patients"][0])
    end = (windows.start_us + 30_000_000).astype("datetime64[us]")
    return pd.DataFrame({"window_end": end, "estimate": windows.embeddings[:].mean(axis=1)})


@pytest.mark.parametrize(("method", "passes"), [(honest, True), (leaking, False)])
def test_a_method_that_sees_the_future(workspace: Workspace, monkeypatch, method, passes: bool) -> None:
    splits = split_subjects(PATIENTS, TINY.splits)
    splits.save(workspace.splits)
    embed_something(workspace, splits.patients("test"))
    write_labs(workspace).to_parquet(workspace.admissions)
    monkeypatch.setattr("pipeline.evaluation.leak_check.predict", method)
    monkeypatch.setattr(
        "pipeline.evaluation.leak_check.protocols_of", lambda checkpoint: ("start", "anchored")
    )
    outcome = checks.future_does_not_leak(workspace, TINY)
    assert outcome.passed == passes
    assert outcome.numbers["estimates"] > 0
    assert outcome.numbers["changed_after_t"] > 0


def test_a_method_that_heeds_nothing_is_said_to_show_nothing(workspace: Workspace, monkeypatch) -> None:
    splits = split_subjects(PATIENTS, TINY.splits)
    splits.save(workspace.splits)
    embed_something(workspace, splits.patients("test"))
    write_labs(workspace).to_parquet(workspace.admissions)
    monkeypatch.setattr(
        "pipeline.evaluation.leak_check.predict", lambda *a, **k: honest(*a, **k).assign(estimate=4.0)
    )
    monkeypatch.setattr("pipeline.evaluation.leak_check.protocols_of", lambda checkpoint: ("start",))
    outcome = checks.future_does_not_leak(workspace, TINY)
    assert outcome.passed
    assert outcome.explanation.endswith("so that this shows nothing.")
