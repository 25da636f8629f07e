"""Groups partition the draws, small cells stay hidden."""

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation.judge import EvaluationConfig, evaluate
from pipeline.evaluation.subgroups import (
    SUBGROUP_COLUMNS,
    SubgroupConfig,
    age_bands,
    ethnicity_groups,
    subgroup_table,
)

QUICK = SubgroupConfig(evaluation=EvaluationConfig(bootstrap=20))


@pytest.fixture(scope="module")
def small(make_predictions):
    return make_predictions(methods=("locf", "mt_pcs"), labs=("sodium", "lactate"), protocols=("start",))


@pytest.fixture(scope="module")
def patients(small):
    ids = sorted(small["patient"].unique())
    half = np.arange(len(ids)) % 2
    return pd.DataFrame(
        {
            "patient_id": ids,
            "age_years": np.linspace(20, 95, len(ids)),
            "sex": np.where(half, "F", "M"),
            "ethnicity": np.where(np.arange(len(ids)) < 9, "ASIAN - CHINESE", "WHITE"),
        }
    )


@pytest.fixture(scope="module")
def table(small, patients):
    quality = small.query("method == 'locf'")[["sequence", "lab", "sampled_at"]].drop_duplicates()
    quality["spectral_concentration"] = np.linspace(0, 1, len(quality))
    return subgroup_table(small, QUICK, patients=patients, quality=quality)


def test_groups_partition_the_draws(table, small):
    assert tuple(table.columns) == SUBGROUP_COLUMNS
    assert set(table["grouping"]) == {"gap", "direction", "age", "sex", "ethnicity", "quality"}
    total = small.query("method == 'locf' and lab == 'sodium'").shape[0]
    whole = table.query("grouping == 'sex' and method == 'locf' and lab == 'sodium'")
    assert whole["n_labs"].sum() == total


def test_cells_equal_an_evaluation_of_their_rows(table, small, patients):
    women = set(patients.loc[patients["sex"] == "F", "patient_id"])
    expected = evaluate(small[small["patient"].isin(women)], QUICK.evaluation)
    expected = expected.query("method == 'mt_pcs' and lab == 'sodium' and aggregation == 'pooled'").iloc[0]
    cell = table.query("grouping == 'sex' and group == 'F' and method == 'mt_pcs' and lab == 'sodium'").iloc[
        0
    ]
    for name in ("n_labs", "n_patients", "mae", "mae_lower", "skill_vs_locf_upper"):
        assert cell[name] == expected[name]


def test_cells_under_ten_patients_show_nothing(table):
    cells = table.query("grouping == 'ethnicity'")
    asian = cells.query("group == 'asian'")
    assert len(asian) == 4
    assert asian["suppressed"].all()
    assert asian[["n_labs", "n_patients", "mae", "r2"]].isna().all(axis=None)
    assert not cells.query("group == 'white'")["suppressed"].any()
    assert (table.loc[~table["suppressed"].astype(bool), "n_patients"] >= 10).all()


def test_direction_follows_the_truth_beyond_a_dead_band(small):
    moved = small.assign(truth=small["last_lab"] + np.where(small["lab"] == "sodium", 3.0, -0.5))
    table = subgroup_table(moved, QUICK).query("grouping == 'direction'")
    assert set(table.query("lab == 'sodium'")["group"]) == {"steady"}
    assert set(table.query("lab == 'lactate'")["group"]) == {"fell"}


def test_without_side_tables_only_their_groupings_are_missing(small):
    assert set(subgroup_table(small, QUICK)["grouping"]) == {"gap", "direction"}


def test_unknown_patients_are_not_recorded(small, patients):
    table = subgroup_table(small, QUICK, patients=patients.iloc[:30])
    assert "not recorded" in set(table.query("grouping == 'age'")["group"])


def test_bands():
    assert list(age_bands(np.array([44.9, 45, 64, 65, 80, 300, np.nan]))) == [
        "under 45", "45-64", "45-64", "65-79", "80 and over", "80 and over", "not recorded"]  # fmt: skip
    recorded = ["WHITE - RUSSIAN", "BLACK/AFRICAN AMERICAN", "UNKNOWN/NOT SPECIFIED", None, "PORTUGUESE"]
    assert list(ethnicity_groups(np.array(recorded, dtype=object))) == [
        "white", "black", "not recorded", "not recorded", "other"]  # fmt: skip


def test_config_names_the_bad_field():
    with pytest.raises(ValueError, match="minimum_patients"):
        SubgroupConfig(minimum_patients=0)
