"""Assimilation asked about scored draws, dense points and new patients: one estimate, from what was known then."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.cohort.scored_set import scored_sets
from pipeline.foundation.artefact_notes import ArtefactNote, noted
from pipeline.foundation.schema import HOUR_US, LAB_NAMES, WINDOW_US
from pipeline.labs.cleaning import LabEvents
from pipeline.prediction.config import PredictionConfig
from pipeline.prediction.dense_scoring import score_dense
from pipeline.prediction.intervals import SPREADS, Intervals, fit_intervals
from pipeline.prediction.new_patients import predict
from pipeline.prediction.scoring import score
from pipeline.testing.cohort import ORIGIN_US, MemoryWindows, TinyCohort, delayed, tiny_cohort
from pipeline.training.checkpoints import load_model, save_checkpoint
from pipeline.training.config import TrainingConfig
from pipeline.training.method import train

ALL = ("train", "validation", "calibration", "test")


@pytest.fixture(scope="module")
def cohort() -> TinyCohort:
    made = tiny_cohort(n_patients=40, hours=3.0, draws=5)
    return made.with_labs(delayed(made.labs, 0.4))


@pytest.fixture(scope="module")
def checkpoint(cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mt_assim")
    config = TrainingConfig(tensorboard=False, device="cpu")
    train(
        "mt_assim",
        cohort.aligned,
        cohort.store,
        cohort.scaler,
        cohort.splits,
        {
            "features": 4,
            "network": {"folds": 2, "least_draws": 0, "d_model": 8, "n_blocks": 1, "d_state": 2, "epochs": 1},
        },
        config,
        folder,
    )
    _heed_networks(folder / "best")
    return folder


def _heed_networks(folder) -> None:
    """Let networks that learned next to nothing count a half, and say something of every block."""
    loaded = load_model(folder)
    loaded.model.network.share.fill_(0.5)
    for number, member in enumerate(loaded.model.network.members):
        torch.nn.init.normal_(member.head.weight, generator=torch.Generator().manual_seed(number))
    provenance = {key: value for key, value in loaded.provenance.items() if key not in ("versions", "note")}
    with noted(ArtefactNote.of("train_mt_assim", config={}, inputs={}, licences=["synthetic"])):
        save_checkpoint(
            folder, loaded.model, method="mt_assim", scaler=loaded.scaler, experiment=loaded.experiment,
            provenance=provenance,
        )  # fmt: skip


def scored(cohort, checkpoint, splits=("test",)) -> pd.DataFrame:
    return score(
        checkpoint, cohort.aligned, cohort.store, cohort.splits, splits_to_score=splits, device="cpu"
    )


def live(cohort, checkpoint, patients, protocol, intervals=None) -> pd.DataFrame:
    config = PredictionConfig(protocol=protocol, device="cpu")
    return predict(
        checkpoint, cohort.store, LabEvents(frame=cohort.labs), config, patients=patients, intervals=intervals
    )


@pytest.mark.parametrize("protocol", ["start", "anchored"])
def test_a_scored_estimate_is_the_bedsides_to_the_bit(cohort, checkpoint, protocol) -> None:
    rows = scored(cohort, checkpoint)
    rows = rows[rows["protocol"] == protocol]
    shown = live(cohort, checkpoint, sorted(set(rows["patient"])), protocol)
    both = rows.merge(
        shown, left_on=["patient", "lab", "prediction_window_end"], right_on=["patient", "lab", "window_end"],
        suffixes=("", "_live"),
    )  # fmt: skip
    assert len(both) == len(rows) > 10
    assert (both["estimate"] == both["estimate_live"]).all()
    assert (both["last_lab"] == both["last_lab_live"]).all()


def test_start_sees_no_later_result_and_anchored_those_that_came(cohort, checkpoint) -> None:
    """Results later than t0 are changed: of one draw's own estimate never, of earlier ones under anchored alone."""
    patient = cohort.splits.patients("test")[0]
    before = scored(cohort, checkpoint)
    before = before[before["patient"] == patient]
    t0 = before.loc[before["protocol"] == "start", "t0"].iloc[0]
    labs = cohort.labs.copy()
    late = (labs["patient_id"] == patient) & (labs["available_at_us"] > t0.value // 1000)
    labs.loc[late, "value"] *= 1.3
    after = scored(cohort.with_labs(labs), checkpoint)
    after = after[after["patient"] == patient]
    same = before["estimate"].to_numpy() == after["estimate"].to_numpy()
    start = (before["protocol"] == "start").to_numpy()
    assert same[start].all()
    assert not same[~start].all()
    first = before.loc[~start].groupby("lab")["sampled_at"].idxmin()
    assert same[[before.index.get_loc(i) for i in first if before.loc[i, "t0"] == t0]].all()


@pytest.mark.parametrize("protocol", ["start", "anchored"])
def test_nothing_after_a_time_changes_a_bit_at_the_bedside(cohort, checkpoint, protocol) -> None:
    patient = cohort.splits.patients("test")[1]
    now = ORIGIN_US + 2 * HOUR_US
    own = cohort.store.windows[patient]
    later = own.start_us + WINDOW_US > now
    windows = dict(cohort.store.windows)
    windows[patient] = MemoryWindows(
        start_us=own.start_us, quality=own.quality,
        embeddings=np.where(later[:, None], np.float16(1) - own.embeddings, own.embeddings),
    )  # fmt: skip
    labs = cohort.labs.copy()
    labs.loc[(labs["patient_id"] == patient) & (labs["available_at_us"] > now), "value"] *= 1.5
    other = cohort.with_windows(windows).with_labs(labs)
    one, two = (live(c, checkpoint, [patient], protocol) for c in (cohort, other))
    kept = one["window_end"].to_numpy().astype("datetime64[us]").astype(np.int64) <= now
    assert kept.sum() > 100
    assert one.loc[kept, "estimate"].to_numpy().tobytes() == two.loc[kept, "estimate"].to_numpy().tobytes()
    assert one.loc[kept, "estimate"].notna().any()
    differs = (one["estimate"] != two["estimate"]) & one["estimate"].notna()
    assert differs[~kept].any()


def test_dense_points_have_the_bedsides_estimates(cohort, checkpoint) -> None:
    """On draws alone (nothing interpolated) dense sums are those of the scored table."""
    bare = tiny_cohort(
        n_patients=40, hours=3.0, draws=5, config=replace(cohort.config, interpolated_weight=0.0)
    )
    bare = bare.with_labs(cohort.labs)
    sums = score_dense(checkpoint, bare.aligned, bare.store, bare.splits, device="cpu")
    rows = scored(bare, checkpoint)
    rows = rows.assign(error=(rows["estimate"] - rows["truth"]).abs())
    expected = rows.groupby(["protocol", "lab", "patient"])["error"].sum()
    found = sums.set_index(["protocol", "lab", "patient"])["absolute_error"]
    pd.testing.assert_series_equal(found.sort_index(), expected.sort_index(), check_names=False, rtol=1e-9)


def test_intervals_count_the_methods_own_spread_and_hold(cohort, checkpoint) -> None:
    rows = scored(cohort, checkpoint, ("calibration", "test"))
    few = fit_intervals(rows, 0.5)
    assert set(few.widths["unit"]) == {SPREADS}
    again = Intervals.from_json(few.to_json())
    bounded = again.apply(rows)
    given = bounded[bounded["interval_state"] == "ok"]
    assert len(given)
    assert ((given["lower"] <= given["estimate"]) & (given["estimate"] <= given["upper"])).all()
    sodium, lactate = (given[given["lab"] == lab] for lab in ("sodium", "lactate"))
    half = (sodium["upper"] - sodium["estimate"]) / sodium["spread"]
    for _, part in half.groupby(sodium["protocol"]):
        assert np.ptp(part) < 1e-9
    np.testing.assert_allclose(
        lactate["upper"] / lactate["estimate"], lactate["estimate"] / lactate["lower"], rtol=1e-9
    )
    block = scored_sets(rows, "test")[0]
    assert list(block.spreads) == ["mt_assim"]


def test_bedside_rows_get_those_intervals(cohort, checkpoint) -> None:
    intervals = fit_intervals(scored(cohort, checkpoint, ("calibration", "test")), 0.5)
    patient = cohort.splits.patients("test")[0]
    rows = live(cohort, checkpoint, [patient], "anchored", intervals)
    given = rows[rows["interval_state"] == "ok"]
    assert set(given["lab"]) == set(LAB_NAMES)
    assert ((given["lower"] < given["estimate"]) & (given["estimate"] < given["upper"])).all()
    widths = (given["upper"] - given["lower"])[given["lab"] == "sodium"]
    assert widths.max() > 1.01 * widths.min()  # narrow after a result, wide long after it
