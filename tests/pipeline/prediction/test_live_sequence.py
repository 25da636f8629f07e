"""What a row of a running sequence tells beside its estimate: its state, and what was measured."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.foundation.schema import WINDOW_US
from pipeline.labs.cleaning import LabEvents
from pipeline.prediction.config import PredictionConfig
from pipeline.prediction.new_patients import Predictor
from pipeline.testing.cohort import TINY_MODEL, MemoryStore, tiny_cohort
from pipeline.training.config import TrainingConfig
from pipeline.training.method import train


@pytest.fixture(scope="module")
def cohort():
    return tiny_cohort(n_patients=6, hours=1.5, draws=4)


@pytest.fixture(scope="module")
def checkpoint(cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "mt_pcs"
    config = TrainingConfig(epochs=1, learning_rate=1e-2, warmup_epochs=0.0, tensorboard=False, device="cpu")
    train(
        "mt_pcs", cohort.aligned, cohort.store, cohort.scaler, cohort.splits, dict(TINY_MODEL), config, folder
    )
    return folder


def rows_of(cohort, checkpoint, store, silent=()):
    """Estimates of all patients, with the read-out of some labs at zero."""
    predictor = Predictor.load(checkpoint, store, PredictionConfig(device="cpu"))
    for lab in silent:
        predictor.forecasters[0].model.tasks[lab].head.weight.data.zero_()
    frames = predictor.patients(list(cohort.store.windows), LabEvents(frame=cohort.labs))
    return pd.concat(frames, ignore_index=True)


def test_a_lab_whose_estimate_reads_no_waveform_says_so(cohort, checkpoint):
    """With lactate's read-out at zero another waveform changes nothing but the other labs."""
    rng = np.random.default_rng(0)
    other = {patient: replace(own, embeddings=rng.normal(size=own.embeddings.shape).astype(np.float16))
             for patient, own in cohort.store.windows.items()}  # fmt: skip
    stores = cohort.store, MemoryStore(windows=other)
    tables = [rows_of(cohort, checkpoint, store, silent=["lactate"]) for store in stores]
    lactate = [table[table["lab"] == "lactate"] for table in tables]
    others = [table[table["lab"] != "lactate"] for table in tables]
    assert "history_only" in set(lactate[0]["state"])
    assert "ok" not in set(lactate[0]["state"])
    assert "history_only" not in set(others[0]["state"])
    pd.testing.assert_series_equal(lactate[0]["estimate"], lactate[1]["estimate"], check_exact=True)
    assert not others[0]["estimate"].equals(others[1]["estimate"])


def test_every_draw_of_a_recording_is_beside_the_estimates(cohort, checkpoint):
    """With the value and the time of its draw, once, and not before it was known."""
    table = rows_of(cohort, checkpoint, cohort.store)
    rows = table.dropna(subset="measured")
    ends = table.groupby("patient")["window_end"].agg(["min", "max"]).astype(np.int64)
    labs = cohort.labs.join(ends, on="patient_id")
    wanted = labs[labs["available_at_us"].between(labs["min"] - WINDOW_US + 1, labs["max"])]
    times = rows["measured_at"].astype(np.int64)
    found = list(zip(rows["patient"], rows["lab"], times, rows["measured"], strict=True))
    columns = (wanted[name] for name in ("patient_id", "lab", "sampled_at_us", "value"))
    assert set(found) == set(zip(*columns, strict=True))
    assert len(found) == len(set(found)) > 30
    assert table["results_reported"].sum() == len(wanted)
    assert (table["results_reported"] > 0).equals(table["measured_at"].notna())
    assert (rows["measured_at"] <= rows["window_end"]).all()
    assert (
        rows["window_end"] - rows["measured_at"] < pd.Timedelta(seconds=30)
    ).all()  # known when drawn here
