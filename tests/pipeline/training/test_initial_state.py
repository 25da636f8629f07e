"""How long h0 lasts: read off a trained model, layer by layer, on test patients."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.prediction.explanations import explain
from pipeline.testing.cohort import tiny_cohort
from pipeline.testing.training_runs import CONFIG, run
from pipeline.training.checkpoints import load_model
from pipeline.training.initial_state import HOURS, MODES, SURVIVAL_COLUMNS


@pytest.fixture(scope="module")
def cohort():
    return tiny_cohort(n_patients=30, hours=1.5, draws=4)


def lasting(cohort, folder):
    return explain(folder, cohort.aligned, cohort.store, cohort.splits, device="cpu").initial_state


def test_it_falls_with_the_hours_in_every_layer(cohort, tmp_path):
    run(cohort, tmp_path, "mt_pcs", replace(CONFIG, epochs=1))
    table = lasting(cohort, tmp_path)
    assert tuple(table.columns) == SURVIVAL_COLUMNS
    assert set(table["layer"]) == {"shared", *load_model(tmp_path / "best").labs}
    assert set(table["hours"]) == {0.25, 0.5, 1.0}  # no recording of an hour and a half is longer
    assert set(table["hours"]) < set(HOURS)
    for _, own in table.groupby("layer"):
        for mode in MODES:
            assert (np.diff(own.sort_values("hours")[mode]) < 0).all()
        assert (own["slowest"] >= own["mean"]).all()
        assert own[list(MODES)].to_numpy().min() > 0
        assert own[list(MODES)].to_numpy().max() < 1


def test_a_layer_that_never_forgets_is_told_apart(cohort, tmp_path, monkeypatch):
    run(cohort, tmp_path, "mt_pcs", replace(CONFIG, epochs=1))
    from pipeline.training.forecaster import forecaster_of
    from pipeline.training.initial_state import survival

    forecaster = forecaster_of(load_model(tmp_path / "best"), torch.device("cpu"))
    with torch.no_grad():
        forecaster.model.tasks["sodium"].block.mixer.A_log.fill_(-40.0)
    table = survival(forecaster, cohort.aligned, cohort.store, cohort.splits.patients("test"))
    sodium = table["layer"] == "sodium"
    assert table.loc[sodium, "mean"].min() == pytest.approx(1.0)
    assert table.loc[~sodium, "mean"].max() < 0.999


@pytest.mark.parametrize("method", ["mt", "lstm"])
def test_a_method_without_a_learned_h0_has_no_rows(cohort, tmp_path, method):
    run(cohort, tmp_path, method, replace(CONFIG, epochs=1))
    assert lasting(cohort, tmp_path).empty
