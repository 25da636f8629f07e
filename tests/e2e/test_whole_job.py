"""The main job on a tiny cohort: every artefact is there, with the columns that users were promised."""

import html
import json
import re
import stat
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.cohort.splits import Splits
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.schema import (
    EVALUATION_COLUMNS,
    FITTED_METHODS,
    LAB_NAMES,
    METHOD_LABELS,
    PREDICTION_COLUMNS,
    SPREAD_COLUMNS,
)
from pipeline.prediction.files import read_predictions
from pipeline.prediction.intervals import INTERVAL_STATE
from pipeline.report.claims import RULE
from pipeline.stages import checks, printed_table, train


def test_predictions_have_the_promised_columns_and_no_undefined_estimate(tiny) -> None:
    table = read_predictions(tiny.workspace, asset="report")
    assert tuple(table.columns) == (*PREDICTION_COLUMNS, INTERVAL_STATE, *SPREAD_COLUMNS)
    assert set(table["method"]) >= {"locf", "shrunk_locf", "lstm", "mt", "st_pcs", "mt_pcs", *FITTED_METHODS}
    assert set(table.loc[table["spread"].notna(), "method"]) == set(FITTED_METHODS) - {"lines"}
    assert set(table["lab"]) <= set(LAB_NAMES)
    assert table[["estimate", "truth", "last_lab"]].notna().all().all()


def test_no_bound_and_no_figure_is_infinite_and_what_is_missing_says_why(tiny) -> None:
    """The tiny run has at most one calibration patient with scored draws, where nine are needed: no interval at all."""
    table = read_predictions(tiny.workspace, asset="report")
    assert table[["lower", "upper"]].isna().all(axis=None)
    n_patients = table.loc[table["split"] == "calibration", "patient"].nunique()
    assert n_patients < 9
    reasons = set(table[INTERVAL_STATE])
    assert f"too few calibration patients: {n_patients} of at least 9" in reasons
    assert all(reason.startswith("too few calibration patients") for reason in reasons)
    written = json.loads((tiny.workspace.checkpoint("mt_pcs", 0) / "intervals.json").read_text())
    assert {row["half_width"] for row in written["widths"]} <= {None}
    assert {row["state"] for row in written["widths"]} <= reasons
    coverage = json.loads(tiny.workspace.summary("predictions").read_text())["tables"]
    for row in coverage["coverage of the 90 % intervals"]:
        assert row["coverage"] is row["mean width"] is None
        assert row["without interval"] in reasons
    files = [path for path in tiny.workspace.root.rglob("*.parquet") if "embeddings" not in path.parts]
    assert len(files) > 5
    for path in files:
        numbers = pd.read_parquet(path).select_dtypes("number").to_numpy(dtype=np.float64)
        assert not np.isinf(numbers).any(), path.name
    page = tiny.workspace.report.read_text()
    assert "unbounded" not in page
    assert f"too few calibration patients: {n_patients} of at least 9" in page


def test_each_method_is_scored_on_the_same_draws(tiny) -> None:
    table = read_predictions(tiny.workspace, asset="report")
    test = table[table["split"] == "test"]
    keys = test.groupby("method").apply(
        lambda rows: frozenset(
            zip(rows["protocol"], rows["patient"], rows["lab"], rows["sampled_at"], strict=True)
        )
    )
    assert keys.nunique() == 1


def test_evaluation_has_the_promised_columns(tiny) -> None:
    table = pd.read_parquet(tiny.workspace.evaluation)
    assert tuple(table.columns) == EVALUATION_COLUMNS
    assert set(table["protocol"]) == {"start", "anchored"}
    assert (table["mae"] >= 0).all()


def test_locf_has_no_skill_over_itself(tiny) -> None:
    table = pd.read_parquet(tiny.workspace.evaluation)
    skill = table.loc[table["method"] == "locf", "skill_vs_locf"].dropna()
    assert len(skill) > 0
    assert (skill == 0).all()


def test_shrunk_locf_is_fitted_on_training_patients_alone(tiny) -> None:
    examples = pd.read_parquet(tiny.workspace.aligned / "examples.parquet")
    training = examples[examples["patient_id"].isin(Splits.load(tiny.workspace.splits).patients("train"))]
    table = read_predictions(tiny.workspace, asset="report").query(
        "method == 'shrunk_locf' and split == 'test'"
    )
    compared, differs = 0, False
    for key, rows in table.groupby(["protocol", "lab"]):
        lines = []
        for known in (training, examples):
            mine = known[(known["protocol"] == key[0]) & (known["lab"] == key[1])]
            if mine["last_lab"].nunique() > 1:
                b, a = np.polyfit(mine["last_lab"], mine["truth"], 1)
                lines.append(a + b * rows["last_lab"].to_numpy())
        if len(lines) == 2:
            assert rows["estimate"].to_numpy() == pytest.approx(lines[0], rel=1e-6)
            compared, differs = compared + 1, differs or not np.allclose(lines[0], lines[1])
    assert compared > 2
    assert differs  # a fit that saw the test patients would be another one


def test_the_printed_table_names_every_method(tiny) -> None:
    text = printed_table(tiny.workspace, tiny.config)
    for method in ("LOCF", "Shrunk LOCF", "LSTM", "MT", "ST+PCS", "MT+PCS", "MT+PCS twin"):
        assert method in text, METHOD_LABELS


def test_terminal_page_and_report_say_what_made_the_estimates(tiny) -> None:
    """The same sentences everywhere: the parts in numbers, who was tested, the one rule."""
    report = html.unescape(tiny.workspace.report.read_text()).replace("\N{NO-BREAK SPACE}", " ")
    page = tiny.outcome.asset_materializations_for_node("evaluation")[0].metadata
    trained = tiny.outcome.asset_materializations_for_node("train_lines")[0].metadata
    made = page["made of, Lines"].value
    assert re.match(r"Lines: .*fitted lines? through .*\d numbers", made)
    assert trained["made of"].value == re.sub(
        r" \([^)]*of the variance\)", "", made
    )  # shares come with the test
    for sentence in (made, page["tested on"].value, RULE):
        assert sentence in printed_table(tiny.workspace, tiny.config)
        assert sentence.replace("-", "\N{MINUS SIGN}") in report.replace("-", "\N{MINUS SIGN}")
    assert "coupling 0.8" in report
    assert "The oracle" in report
    assert tiny.workspace.one_page.exists()


def test_the_page_of_evaluation_begins_with_the_experiment_and_draws_what_ppg_added(tiny) -> None:
    page = tiny.outcome.asset_materializations_for_node("evaluation")[0].metadata
    assert next(iter(page)) == "experiment"
    assert page["experiment"].value == "tiny"
    assert "data:image/svg+xml" in page["What PPG added to MT+PCS (picture)"].value


def test_the_report_stands_alone(tiny) -> None:
    page = tiny.workspace.report.read_text()
    assert "not a medical device" in page.lower()
    assert 'src="http' not in page
    assert "<script" not in page


def test_everything_is_private(tiny) -> None:
    for path in tiny.workspace.root.rglob("*"):
        if tiny.workspace.cohort in (path, *path.parents):
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0, f"{path} has mode {mode:o}"


def test_checkpoints_hold_config_and_no_pickle(tiny) -> None:
    folder = tiny.workspace.root / "checkpoints"
    configs = list(folder.rglob("config.json"))
    assert len(configs) >= 6
    assert all(json.loads(path.read_text())["experiment"]["name"] == "tiny" for path in configs)
    assert not [path for path in folder.rglob("*") if path.suffix in {".pt", ".pth", ".pkl"}]


@pytest.mark.parametrize(
    "check",
    [
        checks.store_matches_its_manifest,
        checks.units_are_plausible,
        checks.no_subject_in_two_splits,
        checks.scaling_comes_from_training_patients,
        checks.locf_recomputed_independently,
        checks.no_patient_ids_in_metadata,
        checks.future_does_not_leak,
    ],
)
def test_checks_pass(tiny, check) -> None:
    outcome = check(tiny.workspace, tiny.config)
    assert outcome.passed, outcome.explanation


def test_summaries_count_what_was_dropped(tiny) -> None:
    summary = json.loads(tiny.workspace.summary("ppg_embeddings").read_text())
    assert summary["counts"]["windows"] > 1000
    assert any("missing samples" in reason for reason in summary["exclusions"])


def test_a_refused_training_leaves_the_finished_one_scored(tiny) -> None:
    nowhere = replace(tiny.config, training=replace(tiny.config.training, device="cuda:99"))
    summary = tiny.workspace.summary("train_mt")
    before = summary.read_bytes()
    with pytest.raises(ConfigError, match="cuda:99"):
        train(tiny.workspace, nowhere, method="mt")
    assert summary.read_bytes() == before
