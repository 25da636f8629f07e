"""Lines and assimilation as methods: fitted, saved, loaded, scored; refused where they cannot be."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.cohort.normalization import fit_lab_scaler
from pipeline.cohort.splits import Splits
from pipeline.foundation.errors import CheckpointError, ConfigError, LabError, OtherRunError
from pipeline.foundation.schema import FITTED_METHODS, SPREAD_COLUMNS
from pipeline.labs.carry_forward import LOCF
from pipeline.prediction.scoring import made_of, score, score_estimator
from pipeline.testing.cohort import TinyCohort, tiny_cohort
from pipeline.training.checkpoints import load_model, save_checkpoint
from pipeline.training.config import TrainingConfig
from pipeline.training.method import train

CONFIG = TrainingConfig(tensorboard=False, device="cpu")
SHAPES = {
    "lines": {"slow_features": 3, "mean_steps": [5.0, 20.0], "reader_width": None},
    "mt_assim": {"features": 4},
    "mt_assim_twin": {"features": 4},
}


@pytest.fixture(scope="module")
def cohort() -> TinyCohort:
    return tiny_cohort(n_patients=40, hours=2.0, draws=5)


Fit = Callable[..., Path]


def fit(cohort: TinyCohort, folder: Path, method: str, config: TrainingConfig = CONFIG, **shape) -> Path:
    train(
        method, cohort.aligned, cohort.store, cohort.scaler, cohort.splits, SHAPES[method] | shape, config, folder
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def fitted(cohort, tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("fitted")
    return {method: fit(cohort, root / method, method) for method in FITTED_METHODS}


def rows_of(cohort: TinyCohort, folder: Path) -> pd.DataFrame:
    return score(folder, cohort.aligned, cohort.store, cohort.splits, splits_to_score=("test",), device="cpu")


@pytest.mark.parametrize("method", FITTED_METHODS)
def test_a_fitted_method_scores_the_common_rows(cohort, fitted, method) -> None:
    rows = rows_of(cohort, fitted[method])
    locf = score_estimator("locf", LOCF.estimate, cohort.aligned, cohort.splits, splits_to_score=("test",))
    assert set(rows["method"]) == {method}
    assert np.isfinite(rows["estimate"]).all()
    shared = [name for name in locf.columns if name not in ("method", "estimate")]
    pd.testing.assert_frame_equal(rows[shared], locf[shared])
    assert (set(SPREAD_COLUMNS) <= set(rows.columns)) == (method != "lines")
    if method != "lines":
        assert (rows["spread"] > 0).all()
        assert set(rows.loc[rows["log_scale"], "lab"]) == {"glucose", "lactate"}


def test_own_waveforms_beat_another_patients_and_the_last_value(cohort, fitted) -> None:
    def error(rows: pd.DataFrame) -> float:
        off = rows["estimate"] - rows["truth"]
        return float((off / rows.groupby("lab")["truth"].transform("std")).abs().mean())

    locf = score_estimator("locf", LOCF.estimate, cohort.aligned, cohort.splits, splits_to_score=("test",))
    own, twin = (error(rows_of(cohort, fitted[name])) for name in ("mt_assim", "mt_assim_twin"))
    assert own < 0.8 * twin
    assert own < 0.8 * error(locf)
    assert error(rows_of(cohort, fitted["lines"])) < 0.9 * error(locf)


@pytest.mark.parametrize("method", FITTED_METHODS)
def test_a_checkpoint_names_no_patient_and_says_how_it_came_about(cohort, fitted, method) -> None:
    files = [path for path in fitted[method].rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"model.safetensors", "config.json", "metrics.jsonl"}
    ids = re.compile(rb"(?<![\d.])(" + "|".join(cohort.store.windows).encode() + rb")(?!\d)")
    for path in files:
        assert not ids.search(path.read_bytes()), path.name
    loaded = load_model(fitted[method] / "best")
    assert loaded.method == method
    assert loaded.provenance["split_hash"] == cohort.splits.hash
    assert loaded.provenance["note"]["licences"]
    if method != "lines":
        assert set(loaded.provenance["status"].values()) == {"fitted"}


def test_a_finished_fit_stays_and_another_is_refused_in_its_folder(cohort, fitted) -> None:
    folder = fitted["mt_assim"]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    fit(cohort, folder, "mt_assim", replace(CONFIG, epochs=7))  # nothing that this method heeds
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    with pytest.raises(OtherRunError, match="another configuration, cohort or split"):
        fit(cohort, folder, "mt_assim", reading_weight=0.5)
    with pytest.raises(OtherRunError, match="another configuration, cohort or split"):
        fit(cohort, folder, "mt_assim_twin")


def test_the_same_data_give_the_same_bytes_after_a_kill_too(cohort, fitted, tmp_path) -> None:
    (tmp_path / "last").mkdir()
    (tmp_path / "last" / "model.safetensors").write_bytes(b"cut short")
    again = fit(cohort, tmp_path, "mt_assim")
    one, other = ((folder / "best" / "config.json").read_text() for folder in (fitted["mt_assim"], again))
    assert json.loads(one)["weights_sha256"] == json.loads(other)["weights_sha256"]


def test_a_twin_whose_validation_has_one_patient_is_fitted_without_a_validation_error(
    cohort, tmp_path
) -> None:
    members = dict(cohort.splits.members)
    first, *others = members["validation"]
    splits = Splits(members=members | {"validation": (first,), "train": (*members["train"], *others)}, seed=0)
    scaler = fit_lab_scaler(cohort.labs, splits)
    result = train(
        "mt_assim_twin", cohort.aligned, cohort.store, scaler, splits, {"features": 4}, CONFIG, tmp_path
    )
    assert result.epochs[0]["selection_error"] is None
    assert load_model(tmp_path / "best").method == "mt_assim_twin"


def test_a_networks_run_is_not_written_over(cohort, tmp_path) -> None:
    (tmp_path / "last").mkdir()
    (tmp_path / "last" / "resume.safetensors").write_bytes(b"of a network")
    with pytest.raises(OtherRunError, match="another kind"):
        fit(cohort, tmp_path, "mt_assim")


@pytest.mark.parametrize(("method", "shape"), [("lines", {"width": 3}), ("mt_assim", {"features": 0})])
def test_a_shape_that_cannot_be_is_one_error(cohort, tmp_path, method, shape) -> None:
    with pytest.raises(ConfigError, match=next(iter(shape))):
        fit(cohort, tmp_path, method, **shape)
    assert not list(tmp_path.iterdir())


def test_numbers_that_no_filter_can_have_are_refused_at_loading(fitted, tmp_path) -> None:
    loaded = load_model(fitted["mt_assim"] / "best")
    loaded.model.numbers[2, 6] = -0.5
    save_checkpoint(
        tmp_path, loaded.model, method="mt_assim", scaler=loaded.scaler, experiment=loaded.experiment,
        provenance={key: value for key, value in loaded.provenance.items() if key not in ("versions", "note")},
    )  # fmt: skip
    with pytest.raises(CheckpointError, match=r"draw_noise of row 2 is -0.5.*[Tt]rain the method again"):
        load_model(tmp_path)


def test_a_result_that_cannot_be_assimilated_is_one_error_without_an_id(cohort, fitted) -> None:
    labs = cohort.labs.copy()
    patient = cohort.splits.patients("test")[0]
    labs.loc[(labs["patient_id"] == patient) & (labs["lab"] == "lactate"), "value"] = -1.0
    broken = cohort.with_labs(labs)
    with pytest.raises(
        LabError, match=r"Results of a patient cannot be assimilated\. A draw of -1 has no log"
    ) as told:
        rows_of(broken, fitted["mt_assim"])
    assert patient not in str(told.value)


def test_blocks_that_are_not_finite_say_nothing(cohort, fitted) -> None:
    windows = dict(cohort.store.windows)
    patient = cohort.splits.patients("test")[0]
    own = windows[patient]
    spoilt = own.embeddings.copy()
    spoilt[40:45] = np.nan
    windows[patient] = replace(own, embeddings=spoilt)
    rows = rows_of(cohort.with_windows(windows), fitted["mt_assim"])
    assert np.isfinite(rows["estimate"]).all()


def test_shares_add_up_and_say_what_is_silent(cohort, fitted) -> None:
    for method, silent in (("lines", ["network", "reading"]), ("mt_assim", ["network", "reading"])):
        table = made_of(fitted[method], cohort.aligned, cohort.store, cohort.splits, device="cpu")
        assert set(table["protocol"]) == {"start", "anchored"}
        shares = table[["network", "lines", "reading", "history"]]
        np.testing.assert_allclose(shares.sum(axis=1), 1.0, atol=1e-4)
        assert (table[silent] == 0).all(axis=None)
        assert (table["lines"] > 0.1).any()
