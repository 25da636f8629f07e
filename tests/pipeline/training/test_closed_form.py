"""Lines and assimilation as methods: fitted, saved, loaded, scored; refused where they cannot be."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.cohort.normalization import fit_lab_scaler
from pipeline.cohort.splits import Splits
from pipeline.foundation.errors import CheckpointError, ConfigError, LabError, OtherRunError
from pipeline.foundation.schema import FITTED_METHODS, SPREAD_COLUMNS
from pipeline.labs.carry_forward import LOCF
from pipeline.prediction.explanations import explain
from pipeline.prediction.scoring import score, score_estimator
from pipeline.testing.cohort import TinyCohort, tiny_cohort
from pipeline.training.checkpoints import load_model, save_checkpoint
from pipeline.training.config import TrainingConfig
from pipeline.training.method import train

CONFIG = TrainingConfig(tensorboard=False, device="cpu")
NETWORK = {"folds": 2, "least_draws": 0, "d_model": 8, "n_blocks": 1, "d_state": 2, "epochs": 2}
SHAPES = {
    "lines": {"slow_features": 3, "mean_steps": [5.0, 20.0], "reader_width": None},
    "mt_assim": {"features": 4, "network": NETWORK},
    "mt_assim_twin": {"features": 4, "network": {"folds": 0}},
    "mt_assim_lines": {"features": 4, "network": NETWORK},
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
        places = rb'"data_offsets":\[\d+,\d+\]'  # of tensors in the file, which may look like an id
        assert not ids.search(re.sub(places, b"", path.read_bytes())), path.name
    loaded = load_model(fitted[method] / "best")
    assert loaded.method == method
    assert loaded.provenance["split_hash"] == cohort.splits.hash
    assert loaded.provenance["note"]["licences"]
    if method != "lines":
        assert all(told.startswith("fitted") for told in loaded.provenance["status"].values())


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
        "mt_assim_twin",
        cohort.aligned,
        cohort.store,
        scaler,
        splits,
        SHAPES["mt_assim_twin"],
        CONFIG,
        tmp_path,
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


@pytest.mark.parametrize(
    ("buffer", "place", "told"),
    [
        ("numbers", (2, 6), "draw_noise of row 2 is -0.5"),
        ("carried", (1, 0, 0), "share of the last result is -0.5"),
        ("carried", (1, 1, 2), "The last result decays by -0.5 an hour"),
    ],
)
def test_numbers_that_no_filter_can_have_are_refused_at_loading(
    fitted, tmp_path, buffer, place, told
) -> None:
    loaded = load_model(fitted["mt_assim"] / "best")
    getattr(loaded.model, buffer)[place] = -0.5
    save_checkpoint(
        tmp_path, loaded.model, method="mt_assim", scaler=loaded.scaler, experiment=loaded.experiment,
        provenance={key: value for key, value in loaded.provenance.items() if key not in ("versions", "note")},
    )  # fmt: skip
    with pytest.raises(CheckpointError, match=rf"{told}.*[Tt]rain the method again"):
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
    for method, silent in (("lines", ["network", "reading"]), ("mt_assim_twin", ["network", "reading"])):
        table = taken_apart(cohort, fitted[method])
        assert (table[silent] == 0).all(axis=None)
        if method == "lines":
            assert (table["lines"] > 0.1).any()


def test_what_the_last_result_counts_is_historys(cohort, fitted, tmp_path) -> None:
    loaded = load_model(fitted["mt_assim_twin"] / "best")
    loaded.model.numbers[:, 8] = 0.0  # gain: no reading enters
    loaded.model.carried[:, :, 0], loaded.model.carried[:, :, 1:] = 0.5, torch.tensor([0.4, 0.02, 5.0])
    save_checkpoint(
        tmp_path, loaded.model, method="mt_assim_twin", scaler=loaded.scaler, experiment=loaded.experiment,
        provenance={key: value for key, value in loaded.provenance.items() if key not in ("versions", "note")},
    )  # fmt: skip
    table = taken_apart(cohort, tmp_path)
    assert (table[["lines", "network"]].abs() < 1e-9).all(axis=None)
    np.testing.assert_allclose(table["history"], 1.0, rtol=1e-9)


def test_a_networks_share_is_told_and_nothing_where_it_is_not_heeded(cohort, fitted, tmp_path) -> None:
    saved_with_share(fitted["mt_assim"], tmp_path, [0.5, 0.0, 1.0, 0.5, 0.5])
    table = taken_apart(cohort, tmp_path).set_index(["protocol", "lab"])
    labs = load_model(tmp_path).labs
    assert (table.xs(labs[1], level="lab")["network"] == 0).all()
    assert (table.xs(labs[2], level="lab")["lines"].abs() < 1e-9).all()
    for lab in (labs[0], labs[3], labs[4]):
        assert (table.xs(lab, level="lab")["network"].abs() > 1e-6).all()


def test_a_networks_share_that_is_none_is_refused_at_loading(fitted, tmp_path) -> None:
    saved_with_share(fitted["mt_assim"], tmp_path, [0.5, 0.0, 1.5, 0.5, 0.5])
    with pytest.raises(
        CheckpointError, match=r"shares are .*each must lie in 0\.\.1.*[Tt]rain the method again"
    ):
        load_model(tmp_path)


def test_without_folds_there_is_no_network_in_the_checkpoint(fitted) -> None:
    assert load_model(fitted["mt_assim_twin"] / "best").model.network is None
    described = json.loads((fitted["mt_assim"] / "best" / "config.json").read_text())
    assert described["model"]["config"]["network"]["members"] == 2
    assert set(described["provenance"]["network_share"]) == set(load_model(fitted["mt_assim"] / "best").labs)


def test_a_killed_fit_keeps_its_networks_and_drops_them_at_its_end(
    cohort, fitted, tmp_path, monkeypatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("pipeline.training.assimilation_fit.fit_one_lab", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(cohort, tmp_path, "mt_assim")
    assert sorted(path.name for path in (tmp_path / "networks").iterdir()) == [
        "0.safetensors",
        "1.safetensors",
    ]
    with pytest.raises(OtherRunError, match="unfinished fit"):
        fit(cohort, tmp_path, "mt_assim", replace(CONFIG, seed=3))
    fit(cohort, tmp_path, "mt_assim")
    assert not (tmp_path / "networks").exists()
    one, other = (
        json.loads((f / "best" / "config.json").read_text()) for f in (fitted["mt_assim"], tmp_path)
    )
    assert one["weights_sha256"] == other["weights_sha256"]


def killed(*_args: object) -> None:
    raise KeyboardInterrupt


def taken_apart(cohort: TinyCohort, folder: Path) -> pd.DataFrame:
    table = explain(folder, cohort.aligned, cohort.store, cohort.splits, device="cpu").made_of
    assert set(table["protocol"]) == {"start", "anchored"}
    shares = table[["network", "lines", "reading", "history"]]
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, atol=1e-4)
    return table


def saved_with_share(folder: Path, where: Path, share: list[float]) -> None:
    """Save a fitted assimilation again, with networks that speak up, and count as much as given."""
    loaded = load_model(folder / "best")
    loaded.model.network.share.copy_(torch.tensor(share))
    for number, member in enumerate(loaded.model.network.members):
        torch.nn.init.normal_(member.head.weight, generator=torch.Generator().manual_seed(number))
    save_checkpoint(
        where, loaded.model, method="mt_assim", scaler=loaded.scaler, experiment=loaded.experiment,
        provenance={key: value for key, value in loaded.provenance.items() if key not in ("versions", "note")},
    )  # fmt: skip
