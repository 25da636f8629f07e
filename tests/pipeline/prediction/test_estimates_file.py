"""The file of estimates: its format by its name, and whose rows the model has seen."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from pipeline.cohort.encoder_patients import LearnedFrom
from pipeline.foundation.errors import ConfigError
from pipeline.labs.cleaning import LabEvents
from pipeline.prediction.config import PredictionConfig
from pipeline.prediction.estimates_file import (
    ESTIMATES_COLUMNS,
    KNOWN_PATIENT,
    check_name,
    patients_behind,
    with_known_patients,
    write_estimates,
)
from pipeline.prediction.new_patients import predict
from pipeline.testing.cohort import TINY_MODEL, tiny_cohort
from pipeline.training.config import TrainingConfig
from pipeline.training.method import train


@pytest.fixture(scope="module")
def cohort():
    return tiny_cohort(n_patients=6, hours=1.5, draws=4)


@pytest.fixture(scope="module")
def experiment(cohort, tmp_path_factory):
    """The folder of a small experiment: its division, and one trained method."""
    root = tmp_path_factory.mktemp("experiment")
    config = TrainingConfig(epochs=1, warmup_epochs=0.0, tensorboard=False, device="cpu")
    folder = root / "checkpoints" / "mt_pcs" / "seed0"
    train(
        "mt_pcs", cohort.aligned, cohort.store, cohort.scaler, cohort.splits, dict(TINY_MODEL), config, folder
    )
    cohort.splits.save(root / "splits.json")
    return root


@pytest.fixture(scope="module")
def table(cohort, experiment):
    config = PredictionConfig(device="cpu")
    patients = list(cohort.store.windows)
    folder = experiment / "checkpoints" / "mt_pcs" / "seed0"
    return predict(folder, cohort.store, LabEvents(frame=cohort.labs), config, patients=patients)


@pytest.mark.parametrize(
    "name", ["estimates", "estimates.txt", "estimates.csv.gz", "estimates.xlsx", "parquet"]
)
def test_another_ending_is_refused(name, tmp_path):
    with pytest.raises(ConfigError, match=rf"--out .*{name}: .*end the file's name in \.parquet or \.csv"):
        check_name(tmp_path / name)


def test_a_folder_is_refused(tmp_path):
    (tmp_path / "estimates.csv").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        check_name(tmp_path / "estimates.csv")


@pytest.mark.parametrize("name", ["estimates.parquet", "estimates.csv", "ESTIMATES.CSV"])
def test_both_formats_hold_the_same(table, tmp_path, name):
    whole, _ = with_known_patients(table, frozenset({"10000"}))
    assert tuple(whole.columns) == ESTIMATES_COLUMNS
    path = tmp_path / name
    write_estimates(path, whole)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
    if name.lower().endswith("parquet"):
        pd.testing.assert_frame_equal(pd.read_parquet(path), whole)
        return
    back = pd.read_csv(path, dtype={"patient": str, "sequence": str}, parse_dates=["window_end"])
    assert (back["window_end"] == whole["window_end"]).all()
    assert "inf" not in path.read_text()
    for name in ("estimate", "lower", "upper", "last_lab", "hours_since_last_lab"):
        assert np.array_equal(back[name], whole[name], equal_nan=True)
    words = ["patient", "sequence", "lab", "state", "unit", "protocol", "interval_state"]
    pd.testing.assert_frame_equal(back[words], whole[words], check_dtype=False)
    assert list(back[KNOWN_PATIENT]) == list(whole[KNOWN_PATIENT])


def test_patients_of_the_model_are_marked_and_counted_without_ids(cohort, experiment, table):
    known = patients_behind(experiment / "checkpoints" / "mt_pcs" / "seed0")
    members = {*cohort.splits.patients("train", "validation", "calibration")}
    assert known == members
    whole, warning = with_known_patients(table, known)
    marked = whole.groupby("patient")[KNOWN_PATIENT].agg(["min", "max"])
    assert {patient for patient, row in marked.iterrows() if row["min"] and row["max"]} == members
    assert {patient for patient, row in marked.iterrows() if not row["max"]} == set(
        cohort.splits.patients("test")
    )
    assert warning.startswith(f"{len(members)} of 6 patients")
    assert "\n" not in warning
    assert not any(patient in warning for patient in cohort.store.windows)
    strangers = table.assign(patient="900" + table["patient"])
    whole, warning = with_known_patients(strangers, known)
    assert warning == ""
    assert not whole[KNOWN_PATIENT].any()
    padded, _ = with_known_patients(table.assign(patient="p0" + table["patient"]), known)
    assert padded[KNOWN_PATIENT].any()  # one patient in another spelling


def test_patients_of_the_encoder_are_marked_wherever_the_weights_are(table):
    first, second, *others = sorted(set(table["patient"]))
    encoder = [LearnedFrom.of({"train": [f"p0{first}"], "validation": [second]})]
    whole, warning = with_known_patients(table, frozenset(), encoder)
    assert set(whole.loc[whole[KNOWN_PATIENT], "patient"]) == {first, second}
    assert warning.startswith(
        f"2 of {2 + len(others)} patients have ids of those who trained, selected or calibrated "
    )
    assert "the model or its encoder" in warning
    assert not any(patient in warning for patient in (first, second))
    whole, warning = with_known_patients(table, None, encoder)
    known = whole["patient"].isin([first, second])
    assert whole.loc[known, KNOWN_PATIENT].all()
    assert whole.loc[~known, KNOWN_PATIENT].isna().all()
    assert "stays empty for the others" in warning


@pytest.mark.parametrize("how", ["no file", "another division", "damaged", "changed", "elsewhere"])
def test_without_the_models_own_division_nothing_is_claimed(experiment, table, tmp_path, how):
    shutil.copytree(experiment, tmp_path / "copy")
    splits = tmp_path / "copy" / "splits.json"
    folder = tmp_path / "copy" / "checkpoints" / "mt_pcs" / "seed0"
    content = json.loads(splits.read_text())
    if how == "no file":
        splits.unlink()
    elif how == "another division":
        content["patients"]["train"].append("999")
        content.pop("hash")
        splits.write_text(json.dumps(content))
    elif how == "damaged":
        splits.write_text("{")
    elif how == "changed":
        content["patients"]["train"].pop()
        splits.write_text(json.dumps(content))
    else:
        folder = folder.rename(tmp_path / "alone")
    assert patients_behind(folder) is None
    whole, warning = with_known_patients(table, None)
    assert whole[KNOWN_PATIENT].isna().all()
    assert "stays empty" in warning
