"""Sums of dense points give the tables that a row a point gives: kept here as it was, as the reference."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.cohort.alignment_config import AlignmentConfig, authors_alignment
from pipeline.cohort.scored_set import scored_sets
from pipeline.evaluation import judge
from pipeline.evaluation.judge import EvaluationConfig, compare, evaluate
from pipeline.foundation import bootstrap
from pipeline.foundation.schema import EXAMPLE_COLUMNS, HOUR_US, LAB_NAMES, PREDICTION_COLUMNS
from pipeline.labs.carry_forward import fit_carry_forward
from pipeline.labs.history import lab_history, last_available_before
from pipeline.prediction.dense_scoring import score_dense, score_estimators_dense
from pipeline.prediction.scoring import forecasters_of, patients_of, score, score_estimator
from pipeline.testing.cohort import TINY_MODEL, tiny_cohort
from pipeline.training.config import TrainingConfig
from pipeline.training.method import train

CONFIG = EvaluationConfig(bootstrap=40)
TRAINING = TrainingConfig(
    epochs=1, batch_pieces=4, learning_rate=1e-2, warmup_epochs=0.0, tensorboard=False, device="cpu"
)
SEEDS = (0, 1)
METHODS = {"mt_pcs": SEEDS, "mt_pcs_twin": SEEDS, "st_pcs": (0,), "lstm": (0,)}
"""Seeds of each method; where there are fewer than `SEEDS`, their mean is left out."""


# The row-wise path, as it was before there were sums -------------------------------------------------------------


def rowwise_examples(aligned, patients):
    """One row a draw and a row an interpolated point."""
    parts = [aligned.examples.loc[aligned.examples["patient_id"].isin(patients)]]
    for row in np.flatnonzero(aligned.pieces["patient_id"].isin(patients)):
        targets = aligned.piece_targets(int(row))
        interpolated = (targets.weight > 0) & ~targets.measured
        for column, lab in enumerate(LAB_NAMES):
            steps = np.flatnonzero(interpolated[:, column])
            if len(steps) and aligned.history_present[row, column]:
                parts.append(rowwise_points(aligned, int(row), lab, steps, targets.value[steps, column]))
    rows = pd.concat(parts, ignore_index=True)
    return rows.drop_duplicates(subset=["piece_id", "lab", "sampled_at_us"]).reset_index(drop=True)


def rowwise_points(aligned, row, lab, steps, truth):
    piece = aligned.pieces.iloc[row]
    series = aligned.series[str(piece["patient_id"])][lab]
    t0_us = int(piece["t0_us"])
    end_us = aligned.grid(str(piece["sequence_id"])).end_us[int(piece["first_step"]) + steps]
    history = lab_history(series, np.array([t0_us], dtype=np.int64), aligned.config.history)
    columns = {
        "piece_id": piece["piece_id"], "sequence_id": piece["sequence_id"], "patient_id": piece["patient_id"],
        "protocol": piece["protocol"], "lab": lab, "sampled_at_us": end_us, "t0_us": t0_us, "step": steps,
        "prediction_window_end_us": end_us, "truth": truth, "last_lab": history.last_value[0],
        "hours_since_last_lab": (end_us - history.last_sampled_us[0]) / HOUR_US,
        "history_mean": history.mean[0], "live_last_lab": last_available_before(series, end_us),
        "spectral_concentration": np.nan,
    }  # fmt: skip
    return pd.DataFrame(columns, columns=list(EXAMPLE_COLUMNS))


def rowwise_predictions(cohort, checkpoints, baselines):
    """A predictions table of dense rows of the test patients, every method and seed."""
    patients = patients_of(cohort.aligned, cohort.splits, "test")
    examples = rowwise_examples(cohort.aligned, patients)
    tables = [rowwise_rows(examples, f.estimate(examples), name, 0) for name, f in baselines.items()]
    for (method, seed), folder in checkpoints.items():
        estimate = np.full(len(examples), np.nan)
        for forecaster in forecasters_of(folder, cohort.store, cohort.splits, "cpu")[1]:
            scaled = forecaster.scaled(examples, cohort.aligned, cohort.store, patients, exact=False)
            clinical = forecaster.clinical(scaled, examples["lab"])
            estimate = np.where(examples["lab"].isin(forecaster.labs), clinical, estimate)
        known = np.isfinite(estimate)
        tables.append(rowwise_rows(examples.loc[known], estimate[known], method, seed))
    return pd.concat(tables, ignore_index=True)


def rowwise_rows(examples, estimate, method, seed):
    columns = {"patient": examples["patient_id"], "sequence": examples["sequence_id"]}
    times = {name: examples[f"{name}_us"].to_numpy().astype("datetime64[us]")
             for name in ("sampled_at", "t0", "prediction_window_end")}  # fmt: skip
    return examples.assign(
        method=method, scoring="dense", seed=seed, split="test", estimate=estimate, lower=np.nan, upper=np.nan,
        **columns, **times,
    ).loc[:, list(PREDICTION_COLUMNS)]  # fmt: skip


def rowwise_replicates(block, weights):
    """Metrics of every method and replicate from one sum over rows, truths about the mean of all rows."""
    index, n_patients = bootstrap.index_patients(block.patient)
    found = {}
    for method, estimate in block.estimates.items():
        error, centred = estimate - block.truth, block.truth - block.truth.mean()
        values = (np.ones_like(error), np.abs(error), error, error**2, centred, centred**2)
        count, absolute, signed, squared, truth, truth_squared = (
            np.bincount(index, weights=column, minlength=n_patients) for column in values
        )
        own = truth_squared / count - (truth / count) ** 2
        moves = (count > 1) & (own > 1e-12 * np.maximum(truth_squared, 1e-300))
        n = weights @ count
        spread = weights @ truth_squared - (weights @ truth) ** 2 / n
        found[method] = {
            ("pooled", "mae"): weights @ absolute / n,
            ("pooled", "me"): weights @ signed / n,
            ("pooled", "rmse"): np.sqrt(weights @ squared / n),
            ("pooled", "r2"): rowwise_ratio(weights @ squared, spread, 1e-12 * (weights @ truth_squared)),
            ("patient_macro", "mae"): weights @ (absolute / count) / n_patients,
            ("patient_macro", "me"): weights @ (signed / count) / n_patients,
            ("patient_macro", "rmse"): weights @ np.sqrt(squared / count) / n_patients,
            ("patient_macro", "r2"): rowwise_ratio(
                weights @ np.where(moves, squared / count, 0.0), weights @ np.where(moves, own, 0.0), 0.0
            ),
        }
    return found


def rowwise_ratio(squared, spread, floor):
    defined = spread > floor
    return np.where(defined, 1.0 - squared / np.where(defined, spread, 1.0), np.nan)


# -----------------------------------------------------------------------------------------------------------------


ALIGNMENTS = {
    "ours": AlignmentConfig(),
    "authors": replace(authors_alignment(), protocols=("start", "anchored")),
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow) if name == "authors" else name for name in ALIGNMENTS],
)
def run(request, tmp_path_factory):
    """Dense rows and measured draws of a cohort, sums over the dense points, and what is made of the sums."""
    cohort = tiny_cohort(n_patients=10, hours=1.5, draws=5, config=ALIGNMENTS[request.param])
    root = tmp_path_factory.mktemp(request.param)
    checkpoints = {}
    for method, seeds in METHODS.items():
        for seed in seeds:
            folder = root / method / str(seed)
            train(method, cohort.aligned, cohort.store, cohort.scaler, cohort.splits, dict(TINY_MODEL),
                  replace(TRAINING, seed=seed), folder)  # fmt: skip
            checkpoints[method, seed] = folder
    of_training = cohort.aligned.examples["patient_id"].isin(cohort.splits.patients("train"))
    baselines = fit_carry_forward(cohort.aligned.examples.loc[of_training])
    measured = [
        score_estimator(name, f.estimate, cohort.aligned, cohort.splits) for name, f in baselines.items()
    ]
    sums = [
        score_estimators_dense(
            {name: f.estimate for name, f in baselines.items()}, cohort.aligned, cohort.splits
        )
    ]
    for folder in checkpoints.values():
        measured.append(score(folder, cohort.aligned, cohort.store, cohort.splits, device="cpu"))
        sums.append(score_dense(folder, cohort.aligned, cohort.store, cohort.splits, device="cpu"))
    rows = rowwise_predictions(cohort, checkpoints, baselines)
    measured, sums = pd.concat(measured, ignore_index=True), pd.concat(sums, ignore_index=True)
    return rows, measured, sums, evaluate(measured, CONFIG, sums)


def assert_equal_tables(found: pd.DataFrame, expected: pd.DataFrame, keys: list[str]) -> None:
    """Numbers equal to 1e-9, everything else equal; the order of rows does not matter."""
    found, expected = (table.sort_values(keys).reset_index(drop=True) for table in (found, expected))
    assert len(expected) > 50
    pd.testing.assert_frame_equal(found, expected, rtol=1e-9, atol=1e-11, check_dtype=False)


def test_sums_give_the_evaluation_of_rows(run):
    rows, _, _, evaluation = run
    found = evaluation.query("scoring == 'dense'")
    keys = ["method", "lab", "protocol", "aggregation", "seed"]
    assert_equal_tables(found, evaluate(rows, CONFIG), keys)
    assert set(found["method"]) >= {*METHODS, "locf", "live_locf"}
    scored = evaluation.groupby("scoring")["n_labs"].sum()
    assert scored["dense"] > 5 * scored["measured"]  # points between draws, not draws alone
    assert found[["mae", "me", "rmse"]].notna().all().all()


def test_sums_give_what_a_row_a_point_gave_before(run):
    rows, _, _, evaluation = run
    keys = ["method", "lab", "protocol", "scoring", "aggregation", "seed"]
    cells = {tuple(row[key] for key in keys): row for row in evaluation.to_dict(orient="records")}
    compared = 0
    for block in scored_sets(rows):
        n_patients = len(np.unique(block.patient))
        replicates = rowwise_replicates(
            block, bootstrap.replicate_weights(n_patients, CONFIG.bootstrap, CONFIG.seed)
        )
        for method, metrics in replicates.items():
            for (aggregation, metric), values in metrics.items():
                cell = cells[method, block.lab, block.protocol, "dense", aggregation, block.seed]
                bounds = (
                    bootstrap.percentile_interval(values, CONFIG.level) if n_patients > 1 else (np.nan,) * 2
                )
                expected = [values[0], *bounds]
                found = [cell[metric], cell[f"{metric}_lower"], cell[f"{metric}_upper"]]
                assert found == pytest.approx(expected, rel=1e-9, abs=1e-11, nan_ok=True), (method, metric)
                compared += 1
    assert compared > 500


@pytest.mark.parametrize("other", ["mt_pcs_twin", "shrunk_locf"])
def test_sums_give_the_paired_differences_of_rows(run, other):
    rows, measured, sums, _ = run
    found = compare(measured, "mt_pcs", other, CONFIG, sums).query("scoring == 'dense'")
    keys = ["lab", "protocol", "aggregation", "seed", "metric"]
    assert_equal_tables(found, compare(rows, "mt_pcs", other, CONFIG), keys)
    assert set(found["seed"]) == {*SEEDS, judge.ALL_SEEDS}
    block = next(b for b in scored_sets(rows) if (b.protocol, b.lab, b.seed) == ("anchored", "sodium", 1))
    weights = bootstrap.replicate_weights(len(np.unique(block.patient)), CONFIG.bootstrap, CONFIG.seed)
    replicates = rowwise_replicates(block, weights)
    difference = replicates["mt_pcs"]["pooled", "r2"] - replicates[other]["pooled", "r2"]
    row = found.query("protocol == 'anchored' and lab == 'sodium' and seed == 1 and aggregation == 'pooled'")
    row = row.query("metric == 'r2'").iloc[0]
    expected = [difference[0], *bootstrap.percentile_interval(difference, CONFIG.level)]
    assert [row["difference"], row["lower"], row["upper"]] == pytest.approx(expected, rel=1e-9, abs=1e-11)


def test_measured_draws_are_judged_as_without_sums(run):
    _, measured, _, evaluation = run
    found = evaluation.query("scoring == 'measured'")
    expected = evaluate(measured, CONFIG)
    both = [table.sort_values(["aggregation", "seed", "method", "protocol", "lab"], ignore_index=True)
            for table in (found, expected)]  # fmt: skip
    pd.testing.assert_frame_equal(*both)
