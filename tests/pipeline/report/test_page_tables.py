"""Tables of the assets' pages, from small tables made by hand."""

import pandas as pd

from pipeline.report.page_tables import coverage_rows, followed_over_runs, metrics_by_lab, table1_by_method


def _evaluation(**changed) -> dict:
    row = {"protocol": "start", "scoring": "measured", "aggregation": "pooled", "seed": 0, "lab": "sodium"}
    figures = {"method": "mt_pcs", "n_labs": 40, "r2": 0.51234, "r2_lower": 0.2, "r2_upper": 0.7, "mae": 2.0}
    return row | figures | {"skill_vs_locf": 0.25} | changed


def test_what_is_looked_at_first_is_measured_pooled_and_of_the_first_seed():
    others = [{"scoring": "dense"}, {"aggregation": "patient_macro"}, {"seed": 1}]
    evaluation = pd.DataFrame([_evaluation(), *(_evaluation(r2=0.9, **other) for other in others)])
    tables = metrics_by_lab(evaluation)
    assert tables["sodium (mmol/L), start"] == [
        {"method": "MT+PCS", "draws": 40, "R2": 0.512, "R2 95 %": "0.20 to 0.70", "MAE": 2.0, "skill": 0.25}
    ]
    assert tables["glucose (mg/dL), start"] == []
    assert followed_over_runs(evaluation) == {"R2 sodium, start (MT+PCS)": 0.5123}


def test_only_what_is_claimed_and_known_is_followed_over_runs():
    evaluation = pd.DataFrame([_evaluation(method="lstm"), _evaluation(r2=float("nan"))])
    assert followed_over_runs(evaluation) == {}


def test_coverage_shows_why_an_interval_is_missing():
    row = {
        "method": "mt_pcs",
        "protocol": "start",
        "lab": "lactate",
        "n_labs": 18,
        "missing_reason": "too few",
    }
    table = pd.DataFrame([row | {"seed": seed, "coverage": 0.98765, "mean_width": 2.0} for seed in (3, 4)])
    assert coverage_rows(table) == [
        {
            "method": "MT+PCS",
            "protocol": "start",
            "lab": "lactate (mmol/L)",
            "draws": 18,
            "coverage": 0.988,
            "mean width": 2.0,
            "without interval": "too few",
        }
    ]


def test_table1_has_one_row_a_method_and_the_papers_own_figures_last():
    paper = {"paper_institutional_r2": 0.8, "paper_mimic3_r2": float("nan")}
    row = {"scoring": "measured", "skill_vs_locf": float("nan"), "method": "mt_pcs"} | paper
    table = pd.DataFrame(
        [
            row | {"protocol": "start", "lab": lab, "r2": r2}
            for lab, r2 in (("sodium", 0.114), ("glucose", 0.2))
        ]
    )
    assert table1_by_method(table) == {
        "R2, start, measured draws": [{"method": "MT+PCS", "sodium": 0.11, "glucose": 0.2}],
        "skill over LOCF, start, measured draws": [],
        "R2 in the paper, institutional": [{"method": "MT+PCS", "sodium": 0.8, "glucose": 0.8}],
        "R2 in the paper, MIMIC-III": [],
    }
