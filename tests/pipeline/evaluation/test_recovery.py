import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation.judge import EvaluationConfig
from pipeline.evaluation.recovery import LEAST_HEADROOM, recovery, recovery_rows
from pipeline.foundation.errors import ConfigError
from pipeline.report.recovery_text import recovery_text

CONFIG = EvaluationConfig(bootstrap=400)


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


def test_a_model_with_its_twins_estimates_is_not_estimable(predictions_table):
    twin = predictions_table.loc[predictions_table["method"] == "mt_pcs_twin"]
    others = predictions_table.loc[predictions_table["method"] != "mt_pcs"]
    rows = recovery_rows(pd.concat([others, twin.assign(method="mt_pcs")], ignore_index=True), CONFIG)
    for found in rows:
        assert np.isnan([found[name] for name in ("added", "added_lower", "added_upper", "recovery")]).all()
        assert found["same"]


def test_what_networks_add_is_judged_beside_the_same_filters_by_lines(predictions_table):
    """The planted estimates of assimilation, once halfway to the truth, once as they are: nothing to estimate then."""
    of_model = predictions_table.loc[predictions_table["method"] == "mt_pcs"]
    better = of_model.assign(method="mt_assim", estimate=(of_model["estimate"] + of_model["truth"]) / 2)
    lines = of_model.assign(method="mt_assim_lines")
    for found in recovery_rows(pd.concat([predictions_table, better, lines]), CONFIG):
        assert found["added_network"] == pytest.approx(found["r2_mt_assim"] - found["r2_mt_assim_lines"])
        assert found["added_network_lower"] > 0
    same = of_model.assign(method="mt_assim")
    for found in recovery_rows(pd.concat([predictions_table, same, lines]), CONFIG):
        assert np.isnan([found["added_network"], found["added_network_lower"]]).all()


def test_what_h0_adds_is_set_beside_the_model_of_zero_h0(predictions_table):
    of_model = predictions_table.loc[predictions_table["method"] == "mt_pcs"]
    worse = of_model.assign(method="mt", estimate=2 * of_model["estimate"] - of_model["truth"])
    for found in recovery_rows(pd.concat([predictions_table, worse]), CONFIG):
        assert found["added_h0"] == pytest.approx(found["r2_mt_pcs"] - found["r2_mt"])
        assert found["added_h0_lower"] > 0
    table = pd.concat([predictions_table, of_model.assign(method="mt")])
    named = {"condition": "coupling 1", "coupling": 1.0, "null": "", "seeds": 1, "train_patients": 10}
    same = pd.DataFrame([named | found for found in recovery_rows(table, CONFIG)])
    assert same["added_h0"].isna().all()
    assert "MT+PCS - MT" in recovery_text(same)


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


@pytest.mark.parametrize("results", [0.3, 1.0])
def test_assimilations_recovery_is_over_the_better_of_its_twin_and_the_ideal_results(predictions, results):
    """A poor twin makes no recovery: of the ideal filter on results, or the twin, counts who errs less."""
    errors = {"mt_pcs_twin": 0.9, "mt_pcs": 0.5, "mt_assim_twin": 0.6, "mt_assim": 0.2, "oracle": 0.1}
    for found in recovery_rows(noisy(predictions, **errors, ideal_results=results), CONFIG):
        history = found["r2_ideal_results"] if results < 0.6 else found["r2_mt_assim_twin"]
        assert found["recovery_assim"] == pytest.approx(
            (found["r2_mt_assim"] - history) / (found["r2_oracle"] - history)
        )
        assert found["added_assim"] == pytest.approx(found["r2_mt_assim"] - found["r2_mt_assim_twin"])
        assert found["recovery"] == pytest.approx(
            found["added"] / (found["r2_oracle"] - found["r2_mt_pcs_twin"])
        )


def seeded(predictions, **errors):
    """Predictions with several training runs of the methods whose errors are a list."""
    single = noisy(predictions, **{name: error for name, error in errors.items() if isinstance(error, float)})
    several = [
        noisy(predictions, **{name: error[run]}).assign(seed=run)
        for name, error in errors.items()
        if isinstance(error, list)
        for run in range(len(error))
    ]
    return pd.concat([single, *several], ignore_index=True)


def test_r2_is_the_mean_over_training_runs_and_intervals_know_of_them(predictions):
    spread = {"mt_pcs_twin": [0.9, 0.9, 0.9], "mt_pcs": [0.2, 0.5, 0.7], "oracle": 0.1}
    even = spread | {"mt_pcs": [0.5, 0.5, 0.5]}
    several, alike = (recovery_rows(seeded(predictions, **errors), CONFIG) for errors in (spread, even))
    runs = [
        recovery_rows(noisy(predictions, mt_pcs_twin=0.9, mt_pcs=e, oracle=0.1), CONFIG)
        for e in (0.2, 0.5, 0.7)
    ]
    for place, found in enumerate(several):
        assert found["r2_mt_pcs"] == pytest.approx(np.mean([rows[place]["r2_mt_pcs"] for rows in runs]))
        assert found["added"] == pytest.approx(found["r2_mt_pcs"] - found["r2_mt_pcs_twin"])
        width, narrow = (row["added_upper"] - row["added_lower"] for row in (found, alike[place]))
        assert width > 1.5 * narrow


def test_one_fit_is_compared_with_every_run_of_its_twin(predictions):
    rows = recovery_rows(seeded(predictions, mt_assim_twin=[0.9, 0.7], mt_assim=0.4, oracle=0.1), CONFIG)
    for found in rows:
        assert found["added_assim"] == pytest.approx(found["r2_mt_assim"] - found["r2_mt_assim_twin"])


def test_runs_on_other_draws_are_refused(predictions):
    table = seeded(predictions, mt_pcs_twin=[0.9, 0.9], mt_pcs=[0.5, 0.5], oracle=0.1)
    second = table["seed"] == table.loc[table["method"] == "mt_pcs", "seed"].max()
    lost = table["sampled_at"] == table.loc[second & (table["lab"] == "sodium"), "sampled_at"].iloc[0]
    with pytest.raises(ConfigError, match="were scored on different draws"):
        recovery_rows(table.loc[~(second & lost)], CONFIG)


IDEALS = {"ideal_reader": 0.2, "ideal_on_embedding": 0.3, "ideal_results": 0.8, "oracle": 0.1}


def test_losses_add_up_to_what_is_missing_to_the_oracle(predictions):
    errors = {
        "lines": 0.6,
        "mt_pcs_twin": 0.95,
        "mt_pcs": 0.5,
        "mt_assim_twin": 0.85,
        "mt_assim": 0.4,
        **IDEALS,
    }
    for found in recovery_rows(noisy(predictions, **errors), CONFIG):
        for model, suffix in (("mt_pcs", ""), ("mt_assim", "_assim")):
            parts = ("loss_unseen", "loss_encoder", f"loss_history{suffix}", f"loss_method{suffix}")
            lost = found["r2_oracle"] - found[f"r2_{model}"]
            assert sum(found[part] for part in parts) == pytest.approx(lost)
            assert found[f"recovery_ideal{suffix}"] > found[f"recovery{suffix}"]
        lost = found["r2_oracle"] - found["r2_lines"]
        assert found["loss_unseen"] + found["loss_encoder"] + found["loss_method_lines"] == pytest.approx(
            lost
        )
        assert "loss_history_lines" not in found


def test_losses_are_shown_where_labs_are_coupled(predictions):
    errors = {
        "lines": 0.6,
        "mt_pcs_twin": 0.95,
        "mt_pcs": 0.5,
        "mt_assim_twin": 0.85,
        "mt_assim": 0.4,
        **IDEALS,
    }
    table = pd.DataFrame(recovery_rows(noisy(predictions, **errors), CONFIG))
    table = table.assign(
        condition="rendered, coupling 1", coupling=1.0, null="", emulated=False, seeds=5, train_patients=9
    )
    text = recovery_text(table)
    assert "lost, R2" in text
    assert "Assimilation: history, method" in text
    assert "of the ideal" in text
    assert "recovery of Assimilation from days" in text
    assert "lost, R2" not in recovery_text(table.assign(coupling=0.0, null="a", condition="null A"))


def test_simultaneous_intervals_are_wider_than_single_ones(predictions):
    rows = recovery_rows(
        noisy(predictions, mt_pcs_twin=0.9, mt_pcs=0.88, oracle=0.1), EvaluationConfig(bootstrap=2000)
    )
    for found in rows:
        assert found["added_simultaneous_lower"] <= found["added_lower"]
        assert found["added_simultaneous_upper"] >= found["added_upper"]
        left_out = found["added_simultaneous_lower"] > 0 or found["added_simultaneous_upper"] < 0
        assert left_out == (found["added_p_holm"] <= 0.05)


def test_a_lone_patient_has_no_interval_and_takes_none_from_other_labs(predictions):
    table = noisy(predictions, mt_pcs_twin=0.9, mt_pcs=0.5, oracle=0.1)
    lone = table["patient"].where(table["lab"] == "sodium").dropna().iloc[0]
    table = table.loc[(table["lab"] != "sodium") | (table["patient"] == lone)]
    found = {row["lab"]: row for row in recovery_rows(table, CONFIG)}
    assert np.isnan(found["sodium"]["added_simultaneous_lower"])
    assert np.isnan(found["sodium"]["added_p_holm"])
    assert np.isfinite(found["calcium"]["added_simultaneous_lower"])
