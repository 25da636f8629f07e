"""Evaluation table and paired comparison: same draws, patients as the unit, honest when little is known."""

import math

import numpy as np
import pandas as pd
import pytest

from pipeline.cohort.scored_set import scored_sets
from pipeline.evaluation.judge import (
    ALL_SEEDS,
    COMPARISON_COLUMNS,
    EvaluationConfig,
    compare,
    evaluate,
    select,
)
from pipeline.foundation.errors import ConfigError, LeakError
from pipeline.foundation.schema import EVALUATION_COLUMNS, LAB_NAMES, METRICS
from pipeline.testing import metrics

QUICK = EvaluationConfig(bootstrap=200)


@pytest.fixture(scope="module")
def evaluation(predictions):
    return evaluate(predictions, QUICK)


def _cell(table, method, lab="sodium", protocol="start", aggregation="pooled"):
    rows = table.query(
        "method == @method and lab == @lab and protocol == @protocol and aggregation == @aggregation"
    )
    assert len(rows) == 1
    return rows.iloc[0]


def test_columns_and_one_row_per_method_lab_protocol_aggregation(evaluation, predictions):
    assert tuple(evaluation.columns) == EVALUATION_COLUMNS
    keys = ["method", "lab", "protocol", "scoring", "aggregation", "seed"]
    assert not evaluation.duplicated(keys).any()
    assert len(evaluation) == predictions["method"].nunique() * 5 * 2 * 2


def test_values_are_those_of_the_definitions(evaluation, predictions):
    """Every metric of the schema: one that `metrics.DEFINITIONS` does not spell out fails here."""
    methods = ("mt_pcs", "locf", "shrunk_locf")
    rows, *others = (
        predictions.query("method == @name and lab == 'sodium' and protocol == 'start'") for name in methods
    )
    estimate, truth = rows["estimate"].to_numpy(), rows["truth"].to_numpy()
    baselines = {
        f"skill_vs_{name}": metrics.mean_absolute_error(other["estimate"].to_numpy(), truth)
        for name, other in zip(methods[1:], others, strict=True)
    }
    mae = metrics.mean_absolute_error(estimate, truth)
    spelt_out = {name: define(estimate, truth) for name, define in metrics.DEFINITIONS.items()}
    spelt_out |= {name: metrics.skill(mae, other) for name, other in baselines.items()}
    assert set(spelt_out) == set(METRICS)
    cell = _cell(evaluation, "mt_pcs")
    for metric in METRICS:
        assert cell[metric] == pytest.approx(spelt_out[metric], abs=1e-9), metric
    assert cell["n_labs"] == len(rows)
    assert cell["n_patients"] == rows["patient"].nunique()
    macro = metrics.patient_macro(estimate, truth, rows["patient"].to_numpy(dtype=str))
    assert set(macro) == set(metrics.DEFINITIONS)
    of_patients = _cell(evaluation, "mt_pcs", aggregation="patient_macro")
    for metric, value in macro.items():
        assert of_patients[metric] == pytest.approx(value, abs=1e-9), metric


def test_intervals_enclose_the_estimate_and_locf_has_no_skill_against_itself(evaluation):
    for metric in ("mae", "rmse", "r2"):
        assert (evaluation[f"{metric}_lower"] < evaluation[metric]).all()
        assert (evaluation[metric] < evaluation[f"{metric}_upper"]).all()
    locf = evaluation.query("method == 'locf'")
    assert (locf[["skill_vs_locf", "skill_vs_locf_lower", "skill_vs_locf_upper"]] == 0).all(axis=None)


def test_repeated_draws_do_not_narrow_the_interval(make_predictions):
    few = make_predictions(methods=("locf",), labs=("sodium",), protocols=("start",))
    copies = [few.assign(sampled_at=few["sampled_at"] + pd.Timedelta(hours=200 * k)) for k in range(4)]
    narrow, wide = (_cell(evaluate(table, QUICK), "locf") for table in (pd.concat(copies), few))
    assert narrow["n_labs"] == 4 * wide["n_labs"]
    assert narrow["mae_upper"] - narrow["mae_lower"] == pytest.approx(
        wide["mae_upper"] - wide["mae_lower"], rel=1e-9
    )


def test_one_patient_has_values_but_no_interval(make_predictions):
    one = evaluate(make_predictions(n_patients=1, methods=("locf", "mt_pcs")), QUICK)
    assert np.isfinite(one["mae"]).all()
    assert one[["mae_lower", "mae_upper", "r2_lower", "r2_upper"]].isna().all(axis=None)


def test_one_draw_has_no_r2(make_predictions):
    table = make_predictions(n_patients=1, methods=("locf",)).drop_duplicates(["lab", "protocol"])
    assert evaluate(table, QUICK)["r2"].isna().all()


def test_without_a_baseline_its_skill_is_nan(make_predictions):
    found = evaluate(make_predictions(methods=("locf", "mt_pcs"), n_patients=5), QUICK)
    assert found["skill_vs_shrunk_locf"].isna().all()
    assert found["skill_vs_locf"].notna().all()


def test_only_the_test_split_is_scored(calibrated_predictions):
    found = evaluate(calibrated_predictions, QUICK)
    assert set(found["n_patients"]) == {40}


@pytest.mark.parametrize("damage", ["row missing", "other truth", "other time", "twice"])
def test_methods_scored_on_different_draws_are_refused(make_predictions, damage):
    table = make_predictions(n_patients=4, methods=("locf", "mt_pcs"), labs=("sodium",), protocols=("start",))
    row = table.index[table["method"] == "mt_pcs"][2]
    if damage == "row missing":
        table = table.drop(index=row)
    elif damage == "other truth":
        table.loc[row, "truth"] += 0.01
    elif damage == "other time":
        table.loc[row, "sampled_at"] += pd.Timedelta(minutes=1)
    else:
        table = pd.concat([table, table.loc[[row, table.index[2]]]])
    with pytest.raises(ConfigError, match=r"sodium .*same draws"):
        evaluate(table, QUICK)


def test_a_method_may_lack_a_whole_lab(make_predictions):
    table = make_predictions(n_patients=4, methods=("locf", "st_pcs"))
    table = table[~((table["method"] == "st_pcs") & (table["lab"] == "lactate"))]
    found = evaluate(table, QUICK)
    assert set(found.query("method == 'st_pcs'")["lab"]) == set(LAB_NAMES) - {"lactate"}


def test_bad_tables_get_one_clear_error_without_identifiers(make_predictions):
    table = make_predictions(n_patients=4, methods=("locf",))
    with pytest.raises(ConfigError, match="estimate or truth"):
        evaluate(table.assign(estimate=math.nan), QUICK)
    with pytest.raises(ConfigError, match="no row of split 'test'"):
        evaluate(table.assign(split="train"), QUICK)
    with pytest.raises(ConfigError, match="'truth'"):
        evaluate(table.drop(columns="truth"), QUICK)
    leaking = pd.concat([table, table.head(3).assign(split="calibration")])
    with pytest.raises(LeakError, match="1 patients appear in more than one split") as caught:
        evaluate(leaking, QUICK)
    assert "000000" not in str(caught.value)


def test_seedless_baselines_serve_every_seed(make_predictions):
    table = make_predictions(n_patients=6, methods=("locf", "mt_pcs"), seeds=(0, 1, 2))
    once = table[(table["method"] == "mt_pcs") | (table["seed"] == 0)]
    found = evaluate(once, QUICK)
    assert found.groupby("method")["seed"].agg(set).to_dict() == {
        "locf": {ALL_SEEDS, 0, 1, 2},
        "mt_pcs": {ALL_SEEDS, 0, 1, 2},
    }
    assert found["skill_vs_locf"].notna().all()


def test_several_seeds_have_their_mean_and_its_interval_covers_training(make_predictions):
    """Seeds whose estimates differ by a shift: the mean over seeds knows it, a single seed's interval does not."""
    table = make_predictions(
        n_patients=30, methods=("locf", "mt_pcs", "mt_pcs_twin"), seeds=(0, 1, 2), protocols=("start",)
    )
    lucky = table["seed"].map({0: 0.0, 1: 0.15, 2: 0.3})
    better = table["truth"] - table["estimate"]
    table["estimate"] += np.where(table["method"] == "mt_pcs", lucky * better, 0.0)
    found = compare(table, "mt_pcs", "mt_pcs_twin", QUICK).query("lab == 'sodium' and metric == 'mae'")
    pooled = found.query("aggregation == 'pooled'").set_index("seed")
    assert pooled["n_seeds"].to_dict() == {0: 1, 1: 1, 2: 1, ALL_SEEDS: 3}
    mean, single = pooled.loc[ALL_SEEDS], pooled.drop(index=ALL_SEEDS)
    assert mean["difference"] == pytest.approx(single["difference"].mean())
    assert mean["value_a"] == pytest.approx(single["value_a"].mean())
    assert mean["upper"] - mean["lower"] > 1.2 * (single["upper"] - single["lower"]).max()
    assert select(found, protocol="start")["seed"].tolist() == [ALL_SEEDS]
    assert select(found, protocol="start", seed=1)["difference"].tolist() == [pooled.loc[1, "difference"]]
    whole = evaluate(table, QUICK).query("lab == 'sodium' and aggregation == 'pooled' and method == 'mt_pcs'")
    by_seed = whole.set_index("seed")["mae"]
    assert by_seed[ALL_SEEDS] == pytest.approx(by_seed.drop(ALL_SEEDS).mean())


def test_one_seed_has_no_row_of_a_mean(evaluation, predictions):
    assert set(evaluation["seed"]) == {0}
    assert set(compare(predictions, "mt_pcs", "locf", QUICK)["n_seeds"]) == {1}


def test_seeds_scored_on_different_draws_are_refused(make_predictions):
    table = make_predictions(n_patients=6, methods=("locf", "mt_pcs"), seeds=(0, 1))
    fewer = table[(table["seed"] == 0) | (table["patient"] != table["patient"].iloc[0])]
    with pytest.raises(ConfigError, match=r"seeds of .*different draws"):
        evaluate(fewer, QUICK)


def test_compare_is_paired_and_tighter_than_the_two_intervals(predictions, evaluation):
    table = compare(predictions, "mt_pcs", "mt_pcs_twin", QUICK)
    assert tuple(table.columns) == COMPARISON_COLUMNS
    row = select(table, protocol="start").query("lab == 'sodium' and metric == 'r2'").iloc[0]
    a, b = _cell(evaluation, "mt_pcs"), _cell(evaluation, "mt_pcs_twin")
    assert row["difference"] == pytest.approx(a["r2"] - b["r2"])
    assert row["lower"] < row["difference"] < row["upper"]
    assert row["upper"] - row["lower"] < (a["r2_upper"] - a["r2_lower"]) + (b["r2_upper"] - b["r2_lower"])
    assert row["p"] < 0.05
    assert row["p_holm"] >= row["p"]


def test_null_difference_is_covered_by_the_interval(make_predictions):
    """Two methods with equal noise: about 19 of 20 intervals hold 0; 5 labs x 12 cohorts."""
    held = []
    for seed in range(12):
        table = make_predictions(
            n_patients=40, seed=seed, methods=("locf", "lstm", "training_mean"), protocols=("start",)
        )
        found = select(compare(table, "lstm", "training_mean", QUICK), protocol="start").query(
            "metric == 'mae'"
        )
        held += list((found["lower"] <= 0) & (found["upper"] >= 0))
    assert 0.85 <= np.mean(held) <= 1.0


def test_comparing_an_absent_method_names_those_present(predictions):
    with pytest.raises(ConfigError, match="mt_nothing"):
        compare(predictions, "mt_nothing", "locf", QUICK)


def test_methods_without_a_common_lab_give_an_empty_comparison(make_predictions):
    table = make_predictions(
        n_patients=4, methods=("locf", "mt_pcs", "mt_pcs_twin"), splits=("test", "calibration")
    )
    lone = table[(table["split"] == "calibration") | (table["method"] != "mt_pcs_twin")]
    found = compare(lone, "mt_pcs", "mt_pcs_twin", QUICK)
    assert found.empty
    assert tuple(found.columns) == COMPARISON_COLUMNS


def test_scored_sets_come_in_the_order_of_the_schema(predictions):
    blocks = scored_sets(predictions.sample(frac=1, random_state=0))
    assert [(block.protocol, block.lab) for block in blocks] == [
        (protocol, lab) for protocol in ("start", "anchored") for lab in LAB_NAMES
    ]


@pytest.mark.parametrize("field", [{"bootstrap": 0}, {"level": 1.0}])
def test_config_names_the_bad_field(field):
    with pytest.raises(ValueError, match=next(iter(field))):
        EvaluationConfig(**field)


def test_two_names_for_one_estimate_are_not_estimable(predictions):
    """Never a difference of +0.00 [0.00, 0.00] with a p-value: nothing was compared."""
    own = predictions["method"] == "mt_pcs"
    same = predictions.loc[own].assign(method="mt_learned")
    table = compare(pd.concat([predictions, same], ignore_index=True), "mt_pcs", "mt_learned", QUICK)
    assert len(table)
    assert table[["difference", "lower", "upper", "p", "p_holm"]].isna().all(axis=None)
    assert (table["value_a"] == table["value_b"]).all()
    nearly = same.copy()
    nearly.loc[nearly.index[0], "estimate"] += 1e-6
    table = compare(pd.concat([predictions, nearly], ignore_index=True), "mt_pcs", "mt_learned", QUICK)
    assert table.loc[table["lab"] == nearly["lab"].iloc[0], "difference"].notna().any()
