from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.cohort.alignment_config import AlignmentConfig
from pipeline.foundation.errors import CheckpointError, ConfigError
from pipeline.foundation.number_format import UNITS
from pipeline.foundation.schema import ADMISSION_COLUMNS, HOUR_US, LAB_NAMES, WINDOW_US
from pipeline.labs.cleaning import LabEvents, clean_labs
from pipeline.prediction.config import STATES, PredictionConfig
from pipeline.prediction.intervals import Intervals
from pipeline.prediction.new_patients import PREDICT_COLUMNS, Predictor, predict
from pipeline.prediction.scoring import score
from pipeline.sources.base import ClinicalTables
from pipeline.testing.cohort import ORIGIN_US, TINY_MODEL, MemoryStore, delayed, tiny_cohort
from pipeline.training.config import TrainingConfig
from pipeline.training.method import train

TRAINING = TrainingConfig(
    epochs=1, batch_pieces=4, learning_rate=1e-2, warmup_epochs=0.0, tensorboard=False, device="cpu"
)
CONFIG = PredictionConfig(device="cpu")
METHODS = ("mt_pcs", "lstm", "st_pcs")
RUNS = (*METHODS, "from_start")
"""A checkpoint each; the last is MT+PCS that learnt from ``start`` alone, as in `paper` (centred LSTM included)."""


@pytest.fixture(scope="module")
def cohort():
    return tiny_cohort(n_patients=6, hours=4.5, draws=8)


@pytest.fixture(scope="module")
def checkpoints(cohort, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for method in (*METHODS, "mt_pcs_twin"):
        train(
            method, cohort.aligned, cohort.store, cohort.scaler, cohort.splits, dict(TINY_MODEL), TRAINING,
            root / method,
        )  # fmt: skip
    from_start = replace(
        TRAINING, epochs=4, protocols=("start",), lstm_centred=True
    )  # its history counts by then
    train(
        "mt_pcs", cohort.aligned, cohort.store, cohort.scaler, cohort.splits, dict(TINY_MODEL), from_start,
        root / "from_start",
    )  # fmt: skip
    return root


def rows_of(cohort, folder, patients=None, config=CONFIG, **keywords):
    patients = list(cohort.store.windows) if patients is None else patients
    return predict(folder, cohort.store, LabEvents(frame=cohort.labs), config, patients=patients, **keywords)


@pytest.fixture(scope="module")
def predicted(cohort, checkpoints):
    return {method: rows_of(cohort, checkpoints / method) for method in RUNS}


@pytest.mark.parametrize("method", RUNS)
def test_there_is_a_row_every_30_s_and_lab(cohort, predicted, method):
    rows = predicted[method]
    assert tuple(rows.columns) == PREDICT_COLUMNS
    assert set(rows["state"]) <= set(STATES)
    assert not rows.duplicated(["patient", "window_end", "lab"]).any()
    for _, part in rows[rows["lab"] == "sodium"].groupby("patient"):
        assert (np.diff(part["window_end"].to_numpy()) == np.timedelta64(30, "s")).all()
    assert (rows.groupby(["patient", "window_end"])["lab"].nunique() == len(LAB_NAMES)).all()
    given = ~rows["state"].isin(["warming_up", "no_signal"])
    assert np.isfinite(rows.loc[given, "estimate"]).all()
    assert rows.loc[~given, "estimate"].isna().all()
    assert rows["window_end"].dtype == np.dtype("datetime64[us]")
    assert set(rows["protocol"]) == {"start" if method == "from_start" else "anchored"}
    assert (rows["unit"] == rows["lab"].map(UNITS)).all()


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("method", RUNS)
def test_scoring_gives_what_prediction_gives_where_both_do(cohort, checkpoints, predicted, method, exact):
    scored = score(
        checkpoints / method, cohort.aligned, cohort.store, cohort.splits, device="cpu", exact=exact,
        splits_to_score=("train", "validation", "calibration", "test"),
    )  # fmt: skip
    scored = scored[scored["protocol"] == predicted[method]["protocol"].iloc[0]]
    both = scored.merge(
        predicted[method], left_on=["patient", "lab", "prediction_window_end"],
        right_on=["patient", "lab", "window_end"], suffixes=("", "_live"),
    )  # fmt: skip
    assert len(both) == len(scored) > 50
    tolerance = 0.0 if exact else 1e-5
    assert both["estimate_live"].to_numpy() == pytest.approx(
        both["estimate"].to_numpy(), rel=tolerance, abs=0
    )
    assert both["last_lab_live"].to_numpy() == pytest.approx(both["last_lab"].to_numpy())
    wait = (
        both["sampled_at"].to_numpy() - both["window_end"].to_numpy()
    )  # the draw comes a little after its window
    hours = both["hours_since_last_lab_live"].to_numpy() + wait / np.timedelta64(1, "h")
    assert hours == pytest.approx(both["hours_since_last_lab"].to_numpy())
    assert set(both["state"]) <= {"ok", "stale", "history_only"}


def past(rows, until_us):
    """The bytes of every row up to a time."""
    chosen = rows[rows["window_end"] <= np.datetime64(until_us, "us")]
    columns = ["estimate", "lower", "upper", "last_lab", "hours_since_last_lab", "signal_quality", "measured"]
    numbers = chosen[columns].to_numpy(dtype=np.float64).tobytes(), chosen["measured_at"].to_numpy().tobytes()
    return len(chosen), *numbers, tuple(chosen["state"]), tuple(chosen["lab"])


def change_future(cohort, until_us, how, rng):
    windows = {}
    for patient, own in cohort.store.windows.items():
        later = own.start_us + WINDOW_US > until_us
        if how == "cut":
            windows[patient] = own.keep(~later)
        elif how == "thinned":
            windows[patient] = own.keep(~later | (rng.random(len(later)) < 0.3))
        else:
            noise = rng.normal(size=own.embeddings.shape).astype(np.float16)
            windows[patient] = replace(own, embeddings=np.where(later[:, None], noise, own.embeddings))
    labs = cohort.labs.copy()
    unknown = labs["available_at_us"] > until_us
    if how == "cut":
        labs = labs[~unknown]
    else:
        labs.loc[unknown, "value"] *= 1.1
        extra = labs.assign(
            sampled_at_us=until_us + rng.integers(1, HOUR_US, len(labs)),
            available_at_us=until_us + 2 * HOUR_US,
        )
        labs = pd.concat([labs, extra]).drop_duplicates(["patient_id", "lab", "sampled_at_us"])
    order = ["patient_id", "lab", "sampled_at_us"]
    return replace(cohort, store=MemoryStore(windows=windows), labs=labs.sort_values(order))


@pytest.mark.parametrize(
    ("method", "how", "seed"),
    [(method, how, seed) for method, seeds in (("mt_pcs", 3), ("from_start", 3), ("lstm", 2), ("st_pcs", 1))
     for how in ("cut", "thinned", "noise") for seed in range(seeds)],
)  # fmt: skip
def test_no_bit_of_the_past_depends_on_the_future(cohort, checkpoints, predicted, method, how, seed):
    rng = np.random.default_rng([seed, len(how)])
    patients = list(cohort.store.windows)[:3]
    until_us = ORIGIN_US + int(rng.integers(70, 500)) * WINDOW_US + int(rng.integers(WINDOW_US))
    changed = rows_of(change_future(cohort, until_us, how, rng), checkpoints / method, patients)
    whole = predicted[method][predicted[method]["patient"].isin(patients)]
    assert past(changed, until_us) == past(whole, until_us)
    assert past(whole, until_us)[0] > 0
    if how == "noise":  # and the future itself does change, so that the comparison can fail
        end_us = ORIGIN_US + 10 * HOUR_US
        assert past(changed, end_us) != past(whole, end_us)


def test_a_result_that_is_not_yet_available_is_not_used(cohort, checkpoints):
    """Known two hours late, the results of the last two hours may be anything."""
    late = replace(cohort, labs=delayed(cohort.labs, 2.0))
    until_us = ORIGIN_US + 240 * WINDOW_US
    other = late.labs.copy()
    unknown = (other["sampled_at_us"] <= until_us) & (other["available_at_us"] > until_us)
    assert unknown.any()
    other.loc[unknown, "value"] *= 1.3
    whole = rows_of(late, checkpoints / "mt_pcs")
    changed = rows_of(replace(late, labs=other), checkpoints / "mt_pcs")
    assert past(changed, until_us) == past(whole, until_us)
    assert past(changed, until_us + 2 * HOUR_US) != past(whole, until_us + 2 * HOUR_US)


def cleaned(cohort, later):
    """The cohort with its labs cleaned from raw rows, some of them corrections or late parts of a draw."""
    raw = cohort.labs.rename(columns={"lab": "code"}).assign(unit=None)
    rows = pd.concat([raw, later], ignore_index=True)
    tables = ClinicalTables(
        labs=rows, admissions=pd.DataFrame(columns=list(ADMISSION_COLUMNS)), licence="none"
    )
    return replace(cohort, labs=clean_labs(tables).frame)


def test_a_late_correction_or_dilution_changes_nothing_before_it(cohort, checkpoints):
    """Known later, a draw has another value, or proves diluted by an infusion; until then it counts as reported."""
    until_us = ORIGIN_US + 240 * WINDOW_US
    raw = cohort.labs.rename(columns={"lab": "code"}).assign(unit=None)
    sodium = raw[(raw["code"] == "sodium") & (raw["available_at_us"] <= until_us)]
    thin = sodium.groupby("patient_id").head(1).assign(value=100.0)  # a low sodium, reported at once
    corrected = raw[raw["available_at_us"] <= until_us].groupby(["patient_id", "code"]).tail(1)
    corrected = corrected.assign(value=corrected["value"] * 1.3, available_at_us=until_us + HOUR_US // 2)
    sweet = thin.assign(code="glucose", value=700.0, available_at_us=until_us + HOUR_US // 2)
    thin = thin.assign(sampled_at_us=thin["sampled_at_us"] + 1, available_at_us=thin["available_at_us"] + 1)
    sweet = sweet.assign(sampled_at_us=thin["sampled_at_us"])
    whole = rows_of(cleaned(cohort, thin), checkpoints / "mt_pcs")
    for later in (corrected, sweet):
        changed = rows_of(cleaned(cohort, pd.concat([thin, later])), checkpoints / "mt_pcs")
        assert past(changed, until_us) == past(whole, until_us)
        assert past(changed, until_us + 2 * HOUR_US) != past(whole, until_us + 2 * HOUR_US)


def test_another_patient_changes_nothing(cohort, checkpoints, predicted):
    alone = list(cohort.store.windows)[2]
    rows = rows_of(cohort, checkpoints / "mt_pcs", [alone])
    together = predicted["mt_pcs"][predicted["mt_pcs"]["patient"] == alone].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, together, check_exact=True)


def one_patient(cohort, usable, labs=None):
    """The first patient with windows on chosen steps alone."""
    patient, own = next(iter(cohort.store.windows.items()))
    steps = (own.start_us - ORIGIN_US) // WINDOW_US
    kept = own.keep(np.isin(steps, np.asarray(usable)))
    frame = cohort.labs.iloc[:0] if labs is None else labs.assign(patient_id=patient, source_code="test")
    return replace(cohort, store=MemoryStore(windows={patient: kept}), labs=frame), set(
        ((kept.start_us - ORIGIN_US) // WINDOW_US).tolist()
    )


def test_states_by_hand(cohort, checkpoints):
    """Signal for 100 steps, then silence; one sodium at the start and none of the rest."""
    sodium = pd.DataFrame({"lab": ["sodium"], "value": [139.0], "sampled_at_us": [ORIGIN_US - HOUR_US],
                           "available_at_us": [ORIGIN_US - HOUR_US]})  # fmt: skip
    patient, usable = one_patient(cohort, range(100), sodium)
    rows = rows_of(patient, checkpoints / "mt_pcs").set_index(["lab", "window_end"])
    state = {lab: rows.loc[lab]["state"].to_numpy() for lab in ("sodium", "lactate")}
    last = max(usable)
    config = CONFIG
    assert len(state["sodium"]) == last + 1 + config.silent_steps
    for lab in state:
        assert set(state[lab][:60]) == {"warming_up"}
        assert set(state[lab][last + 121 :]) == {"no_signal"}
    assert set(state["sodium"][last + 11 : last + 121]) == {"stale"}
    assert state["sodium"][last] == "ok"
    assert set(state["lactate"][last : last + 121]) == {"no_history"}  # never measured
    sodium_rows, lactate_rows = rows.loc["sodium"], rows.loc["lactate"]
    held = sodium_rows["estimate"].to_numpy()[last : last + 121]
    assert len(set(held.tolist())) == 1
    assert sodium_rows["hours_since_last_lab"].iloc[0] == pytest.approx(1 + 30 / 3600)
    assert lactate_rows["hours_since_last_lab"].isna().all()
    assert set(np.flatnonzero(sodium_rows["signal_quality"].notna())) == usable


def test_an_old_result_makes_an_estimate_stale(cohort, checkpoints):
    sodium = pd.DataFrame({"lab": ["sodium"], "value": [139.0], "sampled_at_us": [ORIGIN_US - 23 * HOUR_US],
                           "available_at_us": [ORIGIN_US - 23 * HOUR_US]})  # fmt: skip
    patient, usable = one_patient(cohort, range(200), sodium)
    rows = rows_of(patient, checkpoints / "mt_pcs")
    state = rows[rows["lab"] == "sodium"]["state"].to_numpy()
    fresh = [s for s in sorted(usable) if 60 <= s < 119]
    old = [s for s in sorted(usable) if s > 121]
    assert set(state[fresh]) == {"ok"}
    assert set(state[old]) == {"stale"}


def test_a_restart_gives_no_estimate_before_its_first_usable_window(cohort, checkpoints):
    """A result at step 100 while the signal is away until step 110."""
    time = ORIGIN_US + 100 * WINDOW_US
    sodium = pd.DataFrame({"lab": ["sodium"], "value": [139.0], "sampled_at_us": [time - HOUR_US],
                           "available_at_us": [time]})  # fmt: skip
    patient, usable = one_patient(cohort, [*range(95), *range(110, 200)], sodium)
    rows = rows_of(patient, checkpoints / "mt_pcs")
    sodium_rows = rows[rows["lab"] == "sodium"].reset_index(drop=True)
    back = min(s for s in usable if s >= 110)
    assert set(sodium_rows["state"][100:back]) == {"no_signal"}
    assert sodium_rows["state"][back] == "ok"
    assert sodium_rows["last_lab"][:100].isna().all()
    assert (sodium_rows["last_lab"][100:] == 139.0).all()


def test_no_lab_one_lab_no_history_and_no_window_have_defined_results(cohort, checkpoints):
    patient, _ = one_patient(cohort, range(150))
    rows = rows_of(patient, checkpoints / "mt_pcs")
    assert np.isfinite(rows.loc[rows["state"] == "no_history", "estimate"]).all()
    assert not {"ok", "history_only", "stale"} & set(rows["state"])
    exclusions = Counter()
    nobody = replace(cohort, store=MemoryStore(windows={}))
    empty = rows_of(nobody, checkpoints / "mt_pcs", ["1", "2"], exclusions=exclusions)
    assert empty.empty
    assert tuple(empty.columns) == PREDICT_COLUMNS
    assert sum(exclusions.values()) == 2
    short, _ = one_patient(cohort, range(20))
    assert set(rows_of(short, checkpoints / "lstm")["state"]) <= {"warming_up", "no_signal"}


def test_rows_stop_in_a_long_silence_and_come_back(cohort, checkpoints):
    patient, usable = one_patient(cohort, [*range(100), *range(450, 480)])
    rows = rows_of(patient, checkpoints / "mt_pcs")
    ends = rows[rows["lab"] == "sodium"]["window_end"].to_numpy().astype(np.int64)
    steps = (ends - ORIGIN_US) // WINDOW_US - 1
    last = max(s for s in usable if s < 100)
    back = min(s for s in usable if s >= 450)
    assert set(steps) == {
        *range(last + CONFIG.silent_steps + 1),
        *range(back, max(usable) + CONFIG.silent_steps + 1),
    }


def test_intervals_lie_around_the_estimates(cohort, checkpoints):
    widths = pd.DataFrame(
        [("mt_pcs", "anchored", 0, lab, 0.5, 100, 20, "clinical") for lab in LAB_NAMES],
        columns=["method", "protocol", "seed", "lab", "half_width", "n_labs", "n_patients", "unit"],
    )
    intervals = Intervals(widths=widths, level=0.9)
    rows = rows_of(cohort, checkpoints / "mt_pcs", list(cohort.store.windows)[:1], intervals=intervals)
    given = rows[rows["estimate"].notna() & rows["last_lab"].notna()]
    assert len(given)
    assert (given["upper"] - given["estimate"]).to_numpy() == pytest.approx(0.5)
    assert rows.loc[rows["estimate"].isna(), ["lower", "upper"]].isna().all().all()
    bare, _ = one_patient(cohort, range(150))
    unknown = rows_of(bare, checkpoints / "mt_pcs", intervals=intervals)
    assert unknown[["lower", "upper"]].isna().all(axis=None)  # never infinite
    given = unknown["estimate"].notna()
    assert set(unknown.loc[given, "interval_state"]) == {"no earlier result of this lab"}
    assert set(unknown.loc[~given, "interval_state"]) == {"no estimate"}
    uncalibrated = rows_of(bare, checkpoints / "mt_pcs")
    assert uncalibrated[["lower", "upper"]].isna().all(axis=None)
    reason = "no calibrated intervals beside the checkpoint"
    assert set(uncalibrated["interval_state"]) == {reason, "no estimate"}


def test_a_start_estimate_has_the_interval_of_start(cohort, checkpoints):
    """Both kinds were calibrated, `start` wider, glucose on too few patients."""
    widths = pd.DataFrame(
        [("mt_pcs", protocol, 0, lab, width, 100, 20, "clinical") for lab in LAB_NAMES
         for protocol, width in (("start", 0.75), ("anchored", 0.5))],
        columns=["method", "protocol", "seed", "lab", "half_width", "n_labs", "n_patients", "unit"],
    )  # fmt: skip
    widths.loc[widths["lab"] == "glucose", ["half_width", "n_patients"]] = [np.nan, 4]
    intervals = Intervals(widths=widths, level=0.9)
    for run, config, width in (
        ("from_start", CONFIG, 0.75), ("mt_pcs", CONFIG, 0.5), ("mt_pcs", replace(CONFIG, protocol="start"), 0.75)
    ):  # fmt: skip
        rows = rows_of(cohort, checkpoints / run, list(cohort.store.windows)[:1], config, intervals=intervals)
        rows = rows[rows["estimate"].notna() & rows["last_lab"].notna()]
        few = rows["lab"] == "glucose"
        assert (rows["upper"] - rows["estimate"])[~few].to_numpy() == pytest.approx(width)
        assert set(rows.loc[~few, "interval_state"]) == {"ok"}
        assert rows.loc[few, ["lower", "upper"]].isna().all(axis=None)
        assert set(rows.loc[few, "interval_state"]) == {"too few calibration patients: 4 of at least 9"}


def test_a_start_estimate_knows_no_result_after_t0(cohort, checkpoints, predicted):
    t0_us = ORIGIN_US + 60 * WINDOW_US
    fewer = replace(cohort, labs=cohort.labs[cohort.labs["available_at_us"] <= t0_us])
    assert len(fewer.labs) < len(cohort.labs)
    whole = predicted["from_start"]
    beside = [
        "measured",
        "measured_at",
        "results_reported",
    ]  # later results stand beside the estimates, and change none of them
    alone = rows_of(fewer, checkpoints / "from_start").drop(columns=beside)
    pd.testing.assert_frame_equal(alone, whole.drop(columns=beside), check_exact=True)
    # What was available by t0 does count, to the last microsecond.
    known = (
        fewer.labs.groupby(["patient_id", "lab"])["sampled_at_us"].transform("max")
        == fewer.labs["sampled_at_us"]
    )
    late = fewer.labs.assign(available_at_us=np.where(known, t0_us, fewer.labs["available_at_us"]))
    just = rows_of(replace(fewer, labs=late), checkpoints / "from_start")
    assert just["estimate"].to_numpy().tobytes() == whole["estimate"].to_numpy().tobytes()
    missed = late.assign(available_at_us=late["available_at_us"] + (late["available_at_us"] == t0_us))
    other = rows_of(replace(fewer, labs=missed), checkpoints / "from_start")
    assert other["estimate"].to_numpy().tobytes() != whole["estimate"].to_numpy().tobytes()


def test_what_cannot_run_at_the_bedside_is_refused(cohort, checkpoints, tmp_path):
    with pytest.raises(ConfigError, match="another patient"):
        rows_of(cohort, checkpoints / "mt_pcs_twin")
    small = tiny_cohort(n_patients=6, hours=1.5, draws=4, config=AlignmentConfig(steps="concatenated"))
    for name, config in (("centred", replace(TRAINING, lstm_centred=True)), ("joined", TRAINING)):
        train(
            "lstm",
            small.aligned,
            small.store,
            small.scaler,
            small.splits,
            dict(TINY_MODEL),
            config,
            tmp_path / name,
        )
        with pytest.raises(ConfigError, match="future"):
            Predictor.load(tmp_path / name, small.store, CONFIG)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        rows_of(cohort, tmp_path / "nothing")


@pytest.mark.parametrize("name", ["no_signal_minutes", "stale_lab_hours", "silence_hours"])
def test_thresholds_must_be_positive_and_in_order(name):
    with pytest.raises(ValueError, match=name):
        replace(CONFIG, **{name: 0.0})
    with pytest.raises(ValueError, match="silence_hours"):
        replace(CONFIG, silence_hours=0.5)
