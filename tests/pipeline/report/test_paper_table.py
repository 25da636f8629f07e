"""The paper's figures are carried unchanged, ours beside them; nothing unknown is printed as a number."""

import math

import pandas as pd
import pytest

from pipeline.evaluation.judge import EvaluationConfig, compare, evaluate
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.schema import LAB_NAMES
from pipeline.report.comparison_text import comparison_table
from pipeline.report.document import Cell
from pipeline.report.paper_table import TABLE1_METHODS, paper_table1, table1
from pipeline.report.paper_text import WHY_NOT_COMPARED, ours_table, paper_columns, table1_text
from pipeline.report.synthetic import SyntheticCohort

QUICK = EvaluationConfig(bootstrap=100)


@pytest.fixture(scope="module")
def evaluation(predictions):
    return evaluate(predictions, QUICK)


def _paper(lab, method, source):
    return paper_table1().query("lab == @lab and method == @method and source == @source").iloc[0]


def test_paper_has_five_labs_five_methods_two_sources():
    table = paper_table1()
    assert len(table) == 50
    assert table.drop_duplicates(["lab", "method", "source"]).shape[0] == 50
    assert set(table["lab"]) == set(LAB_NAMES)


def test_paper_figures_spot_checked_against_its_text():
    assert _paper("sodium", "locf", "institutional")[["mae", "me", "rmse", "r2"]].tolist() == [
        1.873,
        -0.097,
        2.755,
        0.742,
    ]
    assert _paper("glucose", "mt_pcs", "mimic3")[["mae", "me", "rmse", "r2"]].tolist() == [
        11.044,
        -2.927,
        19.380,
        0.285,
    ]


def test_paper_skill_is_derived_where_it_means_something():
    assert _paper("potassium", "mt_pcs", "institutional")["skill"] == pytest.approx(1 - 0.311 / 0.376)
    assert _paper("sodium", "mt_pcs", "institutional")["skill"] < 0
    assert math.isnan(_paper("potassium", "lstm", "mimic3")["skill"])
    assert _paper("lactate", "locf", "mimic3")["skill"] == 0


def test_ours_beside_the_paper(evaluation):
    table = table1(evaluation)
    assert len(table) == 5 * len(TABLE1_METHODS)
    row = table.query("lab == 'calcium' and method == 'mt_pcs'").iloc[0]
    ours = evaluation.query(
        "lab == 'calcium' and method == 'mt_pcs' and protocol == 'start' and aggregation == 'pooled'"
    ).iloc[0]
    assert row["r2"] == ours["r2"]
    assert (row["r2_lower"], row["r2_upper"]) == (ours["r2_lower"], ours["r2_upper"])
    assert row["paper_institutional_r2"] == 0.662
    assert row["paper_mimic3_r2"] == 0.613
    assert math.isnan(table.query("method == 'mt_pcs_twin'")["paper_mimic3_r2"].iloc[0])


def test_seeds_are_averaged_with_their_spread(make_predictions):
    table = make_predictions(n_patients=20, methods=("locf", "mt_pcs"), seeds=(0, 1, 2))
    evaluation = evaluate(table, QUICK).query("protocol == 'start' and aggregation == 'pooled'")
    row = table1(evaluation).query("lab == 'sodium' and method == 'mt_pcs'").iloc[0]
    seeds = evaluation.query("lab == 'sodium' and method == 'mt_pcs' and seed >= 0")
    assert row["n_seeds"] == 3
    assert row["r2"] == pytest.approx(seeds["r2"].mean())
    assert row["r2_seed_sd"] == pytest.approx(seeds["r2"].std())
    assert row["r2_lower"] == seeds["r2_lower"].min()
    assert row["r2_upper"] == seeds["r2_upper"].max()
    shown = f"{row['r2']:.2f} [{row['r2_lower']:.2f}, {row['r2_upper']:.2f}] \N{PLUS-MINUS SIGN}{row['r2_seed_sd']:.2f}"
    assert shown in table1_text(table1(evaluation))


def test_methods_that_were_not_scored_stay_visible_as_dashes(make_predictions):
    evaluation = evaluate(make_predictions(n_patients=6, methods=("locf",), labs=("sodium",)), QUICK)
    text = table1_text(table1(evaluation))
    assert "lactate (mmol/L), not scored" in text
    line = next(line for line in text.splitlines() if line.startswith("  LSTM"))
    assert line.split()[1] == "\N{EN DASH}"
    assert "nan" not in text
    assert "nan" not in str(ours_table(table1(evaluation)))


def test_text_is_aligned_and_names_its_source(evaluation):
    text = table1_text(table1(evaluation))
    assert "arXiv 2509.16345" in text
    ours, paper = (
        {len(line) for line in part.splitlines() if line.startswith("  ") and not line.startswith("   ")}
        for part in (text.partition("The paper")[0], text.partition("The paper")[2])
    )
    assert len(ours) == len(paper) == 1
    assert max(len(line) for line in text.splitlines() if line.startswith(" ")) <= 110


def test_ours_and_the_papers_figures_are_two_tables(evaluation):
    table = table1(evaluation)
    ours, paper = ours_table(table), paper_columns(table)
    assert len(ours.rows) == 5 + 5 * len(TABLE1_METHODS)
    assert len(paper.rows) == 5 + 5 * 5
    assert "0.662" not in str(ours)
    leaders = [row for row in ours.rows if any(isinstance(cell, Cell) and cell.best for cell in row.cells)]
    assert leaders
    assert not any(row.cells[0] == "Live LOCF" for row in leaders)  # it sees what the others do not


def test_a_synthetic_cohort_is_said_to_be_one_and_why_the_paper_is_no_match(evaluation):
    oracle = pd.DataFrame({"protocol": ["start"], "lab": ["sodium"], "r2": [0.87]})
    synthetic = SyntheticCohort(coupling=0.8, oracle=oracle)
    text = table1_text(table1(evaluation), synthetic=synthetic, below="made of lines")
    assert text.startswith("Synthetic cohort")
    assert "coupling 0.8" in text
    assert "start: sodium 0.87" in text
    assert text.index("made of lines") < text.index(WHY_NOT_COMPARED) < text.index("The paper")
    assert WHY_NOT_COMPARED not in table1_text(table1(evaluation))


def test_an_unscored_protocol_is_one_clear_error(evaluation):
    with pytest.raises(ConfigError, match="'dense'"):
        table1(evaluation, scoring="dense")


def test_comparison_prints_both_protocols_and_what_ppg_added(evaluation, predictions):
    text = comparison_table(evaluation, compare(predictions, "mt_pcs", "mt_pcs_twin", QUICK))
    assert text.count("What PPG added: MT+PCS minus MT+PCS twin") == 2
    for label in ("LOCF", "Shrunk LOCF", "LSTM", "MT", "ST+PCS", "MT+PCS", "MT+PCS twin"):
        assert text.count(f"\n  {label}  ") == 10, label
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "nan" not in text


@pytest.mark.parametrize(
    ("seeds", "words"), [((0,), "not the luck of training"), ((0, 1), "Mean over 2 training runs")]
)
def test_what_ppg_added_says_whether_its_interval_covers_training(make_predictions, seeds, words):
    table = make_predictions(n_patients=12, methods=("locf", "mt_pcs", "mt_pcs_twin"), seeds=seeds)
    text = comparison_table(evaluate(table, QUICK), compare(table, "mt_pcs", "mt_pcs_twin", QUICK))
    assert text.count(words) == 2  # once a protocol
    assert max(len(line) for line in text.splitlines()) <= 100


def test_a_caveat_stands_above_each_table(evaluation):
    words = "Dense scoring flatters."
    assert comparison_table(evaluation, caveat=words).startswith(words)
    assert table1_text(table1(evaluation), caveat=words).startswith(words)


def test_comparison_without_differences_or_protocol(evaluation):
    text = comparison_table(evaluation.query("protocol == 'anchored'"))
    assert "Protocol anchored" in text
    assert "Protocol start" not in text
    assert "minus MT+PCS twin" not in text


def test_two_methods_with_one_estimate_are_not_estimable_in_the_comparison(predictions):
    own = predictions.loc[predictions["method"] == "mt_pcs"]
    table = pd.concat([predictions, own.assign(method="mt_learned")], ignore_index=True)
    text = comparison_table(evaluate(table, QUICK), compare(table, "mt_pcs", "mt_learned", QUICK))
    assert text.count("not estimable: both give the same estimates") == 10
    assert "+0.00" not in text.partition("MT+PCS minus MT (learned h0)")[2]
