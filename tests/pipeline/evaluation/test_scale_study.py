"""Encoders are compared on the same draws, with what each costs."""

import math

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation.judge import EvaluationConfig
from pipeline.evaluation.scale_study import EncoderCost, StudiedEncoder, scale_rows
from pipeline.foundation.number_format import ABSENT
from pipeline.report.scale_text import scale_text

CONFIG = EvaluationConfig(bootstrap=100)
COST = EncoderCost(width=128, windows=6000, seconds=10.0, cohort_windows=12_000)
UNSEEN = EncoderCost(width=75, windows=0, seconds=0.0, cohort_windows=12_000)


def made(table: pd.DataFrame, model_error: float) -> pd.DataFrame:
    """The conftest's draws of one protocol, each method's estimate = truth + error * noise."""
    base = table.loc[(table["method"] == "locf") & (table["protocol"] == "anchored")]
    spread = base["truth"].groupby(base["lab"]).transform("std")
    noise = np.random.default_rng(0).normal(size=len(base)) * spread
    errors = {"shrunk_locf": 0.9, "mt_pcs_twin": 0.8, "oracle": 0.1, "mt_pcs": model_error}
    return pd.concat(
        [base.assign(method=name, estimate=base["truth"] + error * noise) for name, error in errors.items()],
        ignore_index=True,
    )


def study(table: pd.DataFrame, error: float, cost: EncoderCost = COST) -> StudiedEncoder:
    return StudiedEncoder(predictions=made(table, error), cost=cost, train_patients=30)


def test_cost() -> None:
    assert COST.windows_per_second == 600
    assert COST.embedding_minutes == pytest.approx(12_000 / 600 / 60)
    assert COST.week_bytes == 20_160 * 128 * 2
    assert math.isnan(UNSEEN.windows_per_second)
    assert math.isnan(UNSEEN.embedding_minutes)


def test_a_better_encoder_gains_on_every_lab(predictions: pd.DataFrame) -> None:
    found = {"first": study(predictions, 0.6), "better": study(predictions, 0.3, UNSEEN)}
    table = scale_rows(found, CONFIG)
    assert set(table["encoder"]) == {"first", "better"}
    first, better = (table.loc[table["encoder"] == name] for name in ("first", "better"))
    assert first["gain"].isna().all()
    assert (better["gain"] > 0).all()
    expected = better["r2_mt_pcs"].to_numpy() - first["r2_mt_pcs"].to_numpy()
    assert better["gain"].to_numpy() == pytest.approx(expected)
    assert (better["gain_lower"] <= better["gain"]).all()
    assert (better["gain"] <= better["gain_upper"]).all()
    assert (better["recovery"].to_numpy() > first["recovery"].to_numpy()).all()


def test_other_draws_are_not_compared(predictions: pd.DataFrame) -> None:
    other = study(predictions, 0.3)
    fewer = other.predictions.groupby(["method", "lab"], group_keys=False).tail(-1)
    cut = StudiedEncoder(predictions=fewer, cost=COST, train_patients=30)
    table = scale_rows({"first": study(predictions, 0.6), "cut": cut}, CONFIG)
    assert table["gain"].isna().all()


def test_estimates_that_agree_to_the_bit_have_no_interval(predictions: pd.DataFrame) -> None:
    found = {"first": study(predictions, 0.6), "again": study(predictions, 0.6)}
    lines = scale_text(scale_rows(found, CONFIG), "twice the same").splitlines()
    assert "same estimates" in [line for line in lines if line.startswith("again")][-1]


def test_text_tells_patients_draws_and_cost(predictions: pd.DataFrame) -> None:
    found = {"first": study(predictions, 0.6), "better": study(predictions, 0.3, UNSEEN)}
    table = scale_rows(found, CONFIG)
    text = scale_text(table, "a few planted patients, seed 7")
    assert text.startswith("a few planted patients, seed 7")
    assert "30 training patients" in text
    row = table.iloc[0]
    assert f"{row['lab']} {row['n_labs']}/{row['n_patients']}" in text
    assert "600" in text
    assert "5.2" in text, "MB a patient-week"
    assert ABSENT in next(line for line in text.splitlines() if line.startswith("better")), "not timed here"
    assert "luck of training" in text
