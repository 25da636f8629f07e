import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation.judge import EvaluationConfig
from pipeline.evaluation.recovery import (
    CONDITIONS,
    LEAST_HEADROOM,
    recovery,
    recovery_rows,
)
from pipeline.report.recovery_text import recovery_text, verdicts

CONFIG = EvaluationConfig(bootstrap=200)


def noisy(table, **errors):
    """The conftest's predictions of one protocol, with each method's estimate = truth + error * noise."""
    base = table.loc[(table["method"] == "locf") & (table["protocol"] == "anchored")]
    noise = np.random.default_rng(0).normal(size=len(base)) * base["truth"].groupby(base["lab"]).transform(
        "std"
    )
    return pd.concat(
        [base.assign(method=name, estimate=base["truth"] + error * noise) for name, error in errors.items()],
        ignore_index=True,
    )


def row(**values):
    plain = {
        "condition": "coupling 1",
        "coupling": 1.0,
        "train_patients": 10,
        "protocol": "start",
        "lab": "sodium",
        "n_labs": 9,
    }
    numbers = {"added": 0.0, "recovery": 0.0} | {
        f"r2_{m}": 0.0 for m in ("locf", "shrunk_locf", "lstm", "mt_pcs_twin", "mt_pcs", "oracle")
    }
    bounds = {f"{name}_{side}": sign for name in numbers for side, sign in (("lower", -1.0), ("upper", 1.0))}
    return plain | numbers | bounds | values


@pytest.mark.parametrize(
    ("model", "twin", "oracle", "expected"),
    [(0.6, 0.2, 1.0, 0.5), (0.2, 0.2, 1.0, 0.0), (1.0, 0.2, 1.0, 1.0), (0.0, 0.2, 0.6, -0.5)],
)
def test_recovery_is_the_share_of_the_oracles_headroom(model, twin, oracle, expected):
    assert recovery(np.array([model]), np.array([twin]), np.array([oracle]))[0] == pytest.approx(expected)


def test_recovery_without_headroom_is_undefined():
    oracle = np.array([0.5 + LEAST_HEADROOM / 2, 0.3])
    assert np.isnan(recovery(np.array([0.9, 0.9]), np.array([0.5, 0.5]), oracle)).all()


def test_rows_hold_r2_what_ppg_added_and_the_recovery(predictions_table):
    rows = recovery_rows(predictions_table, CONFIG)
    assert len(rows) == 5
    for found in rows:
        r2 = {name: found[f"r2_{name}"] for name in ("mt_pcs", "mt_pcs_twin", "oracle")}
        assert r2["mt_pcs_twin"] < r2["mt_pcs"] < r2["oracle"]
        assert found["added"] == pytest.approx(r2["mt_pcs"] - r2["mt_pcs_twin"])
        assert found["recovery"] == pytest.approx(found["added"] / (r2["oracle"] - r2["mt_pcs_twin"]))
        for name in ("r2_mt_pcs", "added", "recovery"):
            assert found[f"{name}_lower"] <= found[name] <= found[f"{name}_upper"]
        assert found["added_lower"] > 0  # paired: the same noise, only smaller


@pytest.fixture
def predictions_table(predictions):
    return noisy(predictions, lstm=1.0, mt_pcs_twin=0.9, mt_pcs=0.5, oracle=0.1)


def test_the_target_counts_labs_at_coupling_1():
    labs = ("potassium", "calcium", "sodium")
    reached = pd.DataFrame([row(lab=lab, recovery=0.5) for lab in labs])
    assert [v.met for v in verdicts(reached)] == [True]
    missed = reached.assign(recovery=[0.5, 0.5, 0.49])
    assert [v.met for v in verdicts(missed)] == [False]
    assert "on 2 labs (potassium, calcium)" in verdicts(missed)[0].text
    assert verdicts(missed.assign(condition="coupling 0.5")) == []


@pytest.mark.parametrize(
    ("lower", "upper", "met"), [(-0.1, 0.1, True), (0.01, 0.1, False), (-0.2, -0.1, False), (0.0, 0.1, True)]
)
def test_null_a_is_broken_where_the_interval_leaves_out_0(lower, upper, met):
    rows = [row(condition="coupling 0 (null A)"), row(condition="coupling 0 (null A)", lab="lactate")]
    rows[1] |= {"added_lower": lower, "added_upper": upper}
    (verdict,) = verdicts(pd.DataFrame(rows))
    assert verdict.met == met
    assert ("lactate" in verdict.text) != met


def test_null_b_is_broken_by_any_method_with_skill():
    rows = [row(condition="null B"), row(condition="null B", lab="glucose", r2_lstm_lower=0.01)]
    (verdict,) = verdicts(pd.DataFrame(rows))
    assert not verdict.met
    assert "glucose (lstm)" in verdict.text
    (verdict,) = verdicts(pd.DataFrame(rows[:1]))
    assert verdict.met


@pytest.mark.parametrize("name", ["added_lower", "added_upper"])
def test_null_a_is_not_met_where_an_interval_cannot_be_estimated(name):
    rows = [row(condition="coupling 0 (null A)"), row(condition="coupling 0 (null A)", lab="lactate")]
    rows[1][name] = float("nan")
    (verdict,) = verdicts(pd.DataFrame(rows))
    assert not verdict.met
    assert verdict.text.endswith("leaves out 0 for none; not estimable for lactate")
    assert "MISSED  start: null A" in recovery_text(pd.DataFrame(rows))


def test_null_b_is_not_met_where_a_bound_cannot_be_estimated():
    rows = [row(condition="null B"), row(condition="null B", lab="glucose", r2_lstm_lower=float("nan"))]
    (verdict,) = verdicts(pd.DataFrame(rows))
    assert not verdict.met
    assert verdict.text.endswith("for none; not estimable for glucose")


def test_the_table_names_condition_size_and_outcome():
    text = recovery_text(pd.DataFrame([row(recovery=0.62), row(condition="null B", protocol="anchored")]))
    assert "coupling 1, 10 training patients, protocol start" in text
    assert "0.62" in text
    assert "0.62" not in recovery_text(pd.DataFrame([row(recovery=0.62, coupling=0.0)]))
    assert "MISSED  start" in text
    assert "met     anchored: null B" in text
    assert "not the luck of training" in text


def test_the_conditions_are_those_that_the_docs_name():
    full = [c for c in CONDITIONS if c.train_share == 1 and c.null != "b"]
    assert sorted(c.coupling for c in full) == [0.0, 0.5, 1.0]
    assert len({c.train_share for c in CONDITIONS if c.coupling == 1}) == 3
    assert {c.null for c in CONDITIONS} == {None, "a", "b"}


def test_a_model_with_its_twins_estimates_is_not_estimable(predictions_table):
    twin = predictions_table.loc[predictions_table["method"] == "mt_pcs_twin"]
    others = predictions_table.loc[predictions_table["method"] != "mt_pcs"]
    rows = recovery_rows(pd.concat([others, twin.assign(method="mt_pcs")], ignore_index=True), CONFIG)
    for found in rows:
        assert np.isnan([found[name] for name in ("added", "added_lower", "added_upper", "recovery")]).all()


def test_assimilation_has_a_table_and_verdicts_of_its_own():
    """Against its own twin; a table of an earlier run, which lacks it, is shown as it was."""
    names = ("r2_lines", "r2_mt_assim_twin", "r2_mt_assim", "added_assim", "recovery_assim")
    ours = {f"{name}{side}": 0.0 for name in names for side in ("", "_lower", "_upper")} | {
        "r2_mt_assim": 0.77
    }
    rows = [row(**ours), row(**ours, condition="coupling 0 (null A)") | {"added_assim_lower": 0.01}]
    text = recovery_text(pd.DataFrame(rows))
    assert "assim. - twin" in text
    assert "0.77" in text
    assert "MISSED  start: Assimilation: recovery of at least 0.5 at coupling 1 on 0 labs (none)" in text
    assert (
        "MISSED  start: null A: the interval of Assimilation minus its twin leaves out 0 for sodium" in text
    )
    assert "met     start: null A: the interval of MT+PCS minus its twin leaves out 0 for none" in text
    assert "assim" not in recovery_text(pd.DataFrame([row()])).lower()


def test_assimilations_rows_are_those_of_its_own_twin(predictions):
    errors = {
        "lstm": 1.0,
        "mt_pcs_twin": 0.9,
        "mt_pcs": 0.5,
        "mt_assim_twin": 0.6,
        "mt_assim": 0.3,
        "oracle": 0.1,
    }
    for found in recovery_rows(noisy(predictions, **errors), CONFIG):
        assert found["added_assim"] == pytest.approx(found["r2_mt_assim"] - found["r2_mt_assim_twin"])
        headroom = found["r2_oracle"] - found["r2_mt_assim_twin"]
        assert found["recovery_assim"] == pytest.approx(found["added_assim"] / headroom)
