"""Too little or wrong to learn from: a defined result, or one clear error."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.foundation.errors import ConfigError, LeakError
from pipeline.testing.cohort import tiny_cohort
from pipeline.testing.training_runs import CONFIG, run


def test_a_scaling_from_elsewhere_is_refused(cohort, tmp_path):
    elsewhere = replace(cohort, scaler=replace(cohort.scaler, split_hash="0" * 64))
    with pytest.raises(LeakError, match="another division"):
        run(elsewhere, tmp_path)
    everything = replace(cohort, scaler=replace(cohort.scaler, fitted_on="everything"))
    with pytest.raises(LeakError, match="held-out"):
        run(everything, tmp_path)
    assert run(everything, tmp_path, config=replace(CONFIG, epochs=1, allow_leaks=True)).epochs


def test_wrong_names_are_refused(cohort, tmp_path):
    with pytest.raises(ConfigError, match="'locf'"):
        run(cohort, tmp_path, "locf")
    with pytest.raises(ConfigError, match="d_modell"):
        run(cohort, tmp_path, d_modell=8)


def test_a_division_of_another_cohort_is_refused(cohort, tmp_path):
    strangers = tiny_cohort(n_patients=9, hours=1.5, draws=4)
    with pytest.raises((ConfigError, LeakError)):
        run(replace(strangers, splits=cohort.splits, scaler=cohort.scaler), tmp_path)


def test_without_any_lab_there_is_one_clear_error(cohort, tmp_path):
    bare = cohort.with_labs(cohort.labs.iloc[:0])
    for method in ("mt_pcs", "lstm", "st_pcs"):
        with pytest.raises(ConfigError, match="target"):
            run(bare, tmp_path / method, method)


def test_with_one_lab_the_others_are_left_out_and_nothing_fails(cohort, tmp_path):
    one = cohort.with_labs(cohort.labs[cohort.labs["lab"] == "glucose"])
    result = run(one, tmp_path / "mt", "mt_pcs")
    assert set(result.epochs[0]["lab_losses"]) == {"glucose"}
    single = run(one, tmp_path / "st", "st_pcs")
    assert list(single.best_epochs) == ["glucose"]


def test_without_validation_examples_the_last_epoch_is_kept(cohort, tmp_path):
    held = cohort.splits.patients("validation")
    blind = cohort.with_labs(cohort.labs[~cohort.labs["patient_id"].isin(held)])
    result = run(blind, tmp_path)
    assert result.epochs[0]["validation"] == {}
    assert result.best_epochs["all"] == CONFIG.epochs


def test_a_loss_that_is_not_finite_ends_the_run_with_a_remedy(cohort, tmp_path):
    broken = {
        p: replace(w, embeddings=w.embeddings * np.float16("inf")) for p, w in cohort.store.windows.items()
    }
    with pytest.raises(ConfigError, match="learning_rate"), np.errstate(invalid="ignore"):
        run(cohort.with_windows(broken), tmp_path)
