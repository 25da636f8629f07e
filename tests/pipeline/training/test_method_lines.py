"""Lines and reader fitted before training, and what an epoch has to show to replace them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.foundation.schema import LAB_NAMES
from pipeline.testing.training_runs import CONFIG, LINES, losses, run
from pipeline.training.checkpoints import load_model
from pipeline.training.ridge import weigh
from pipeline.training.validation import validation_of


def test_fitted_lines_stand_for_selection_and_are_held(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.training.line_fit.LEAST_ROWS", 4)
    ruinous = replace(CONFIG, learning_rate=0.5, warmup_start=0.5, fit_lines=True)
    result = run(cohort, tmp_path, config=ruinous, **LINES)
    best, last = (load_model(tmp_path / name).model for name in ("best", "last"))
    assert result.best_epochs == {"all": 0}
    assert load_model(tmp_path / "best").provenance["epoch"] == 0
    first, *epochs = result.epochs  # what may be kept is logged, and drawn
    assert (first["epoch"], first["loss"], first["kept"]) == (0, None, True)
    assert set(first["validation"]) == set(epochs[0]["validation"])
    assert not any(row["kept"] for row in epochs)
    lines = [
        {k: v for k, v in m.state_dict().items() if ".line." in k or "reader" in k} for m in (best, last)
    ]
    assert any(value.any() for name, value in lines[0].items() if ".line." in name)
    assert all(torch.equal(value, lines[1][name]) for name, value in lines[0].items())
    assert not torch.equal(best.input_proj.weight, last.input_proj.weight)
    again = run(cohort, tmp_path, config=ruinous, **LINES)
    assert again.best_epochs == {"all": 0}
    assert losses(again) == losses(result)


def test_an_epoch_must_be_clearly_better_than_the_lines_to_take_their_place(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.training.line_fit.LEAST_ROWS", 4)
    config = replace(CONFIG, epochs=1, fit_lines=True)
    kept = {}
    for name, factor in (("hardly", 0.999), ("clearly", 0.9)):
        calls = []

        def validation(rows, *rest, calls=calls, factor=factor):
            calls.append(rows)  # the start, then the epoch: better on one patient, or on all
            better = rows["patient_id"] == rows["patient_id"].iloc[0] if factor > 0.99 else rows["error"] >= 0
            error = np.where(better, factor, 1.0) if len(calls) > 1 else 1.0
            return validation_of(rows.assign(error=error), *rest)

        monkeypatch.setattr("pipeline.training.method.validation_of", validation)
        kept[name] = run(cohort, tmp_path / name, config=config, **LINES).best_epochs["all"]
        lines_alone = replace(config, fit_lines=False)
        assert run(cohort, tmp_path / f"{name}_plain", config=lines_alone, **LINES).best_epochs["all"] == 1
    assert kept == {"hardly": 0, "clearly": 1}


@pytest.mark.parametrize("method", ["mt", "mt_pcs_twin", "st_pcs"])
def test_every_sequence_model_has_its_reader_fitted(cohort, tmp_path, monkeypatch, method):
    monkeypatch.setattr("pipeline.training.line_fit.LEAST_ROWS", 4)
    fitted = []
    monkeypatch.setattr(
        "pipeline.training.line_fit.weigh",
        lambda offered, *rest: fitted.append(offered) or weigh(offered, *rest),
    )
    run(cohort, tmp_path, method, replace(CONFIG, epochs=1, fit_lines=True), **LINES)
    assert len(fitted) == len(LAB_NAMES)
    for waveform, reading in fitted:
        assert waveform.shape[1] == 2
        assert reading.any()
