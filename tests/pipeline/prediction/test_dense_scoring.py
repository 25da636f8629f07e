"""Dense points are the same for every method, and no more of them is held than a pass of the model needs."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.cohort import dense_sums
from pipeline.cohort.dense_points import PointSource
from pipeline.cohort.summed_set import dense_sets
from pipeline.foundation.errors import ConfigError, LeakError
from pipeline.foundation.schema import DENSE_SUM_COLUMNS, LAB_NAMES
from pipeline.labs.carry_forward import LIVE_LOCF, LOCF, PATIENT_MEAN
from pipeline.prediction.dense_scoring import score_dense, score_estimators_dense
from pipeline.prediction.scoring import score_estimator
from pipeline.testing.cohort import TINY_MODEL, tiny_cohort
from pipeline.training.config import TrainingConfig
from pipeline.training.forecaster import PIECES_AHEAD
from pipeline.training.method import train

CONFIG = TrainingConfig(
    epochs=1, batch_pieces=4, learning_rate=1e-2, warmup_epochs=0.0, tensorboard=False, device="cpu"
)
CARRIED = {"locf": LOCF, "live_locf": LIVE_LOCF, "patient_mean": PATIENT_MEAN}


@pytest.fixture(scope="module")
def cohort():
    return tiny_cohort(n_patients=10, hours=1.5, draws=4)


@pytest.fixture(scope="module")
def checkpoints(cohort, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for method in ("mt_pcs", "mt_pcs_twin", "lstm"):
        train(method, cohort.aligned, cohort.store, cohort.scaler, cohort.splits, dict(TINY_MODEL), CONFIG,
              root / method)  # fmt: skip
    return root


def carried(cohort, split="test"):
    estimators = {name: method.estimate for name, method in CARRIED.items()}
    return score_estimators_dense(estimators, cohort.aligned, cohort.splits, split=split)


def test_points_of_a_piece_are_its_draws_and_the_steps_between_them(cohort):
    source = PointSource(cohort.aligned, cohort.splits.patients("test"))
    examples = cohort.aligned.examples
    n_between = 0
    for row in source.rows:
        piece, points = cohort.aligned.pieces.iloc[row], source.of_piece(int(row))
        targets, grid = cohort.aligned.piece_targets(int(row)), cohort.aligned.grid(piece["sequence_id"])
        drawn = examples[examples["piece_id"] == piece["piece_id"]]
        seen = 0
        for lab, here in points.by_lab():
            mine = drawn[drawn["lab"] == lab]
            times, truth, step = (getattr(points, name)[here] for name in ("sampled_at_us", "truth", "step"))
            assert len(np.unique(times)) == len(times)
            assert times[: len(mine)].tolist() == mine["sampled_at_us"].tolist()  # a lab's draws come first
            assert truth[: len(mine)].tolist() == mine["truth"].tolist()
            column, between = LAB_NAMES.index(lab), step[len(mine) :]
            assert truth[len(mine) :].tolist() == targets.value[between, column].tolist()
            assert not targets.measured[between, column].any()
            assert times[len(mine) :].tolist() == grid.end_us[int(piece["first_step"]) + between].tolist()
            assert (times > piece["t0_us"]).all()
            assert cohort.aligned.history_present[row, column]
            seen, n_between = seen + len(mine), n_between + len(between)
        assert seen == len(drawn)
    assert n_between > 10 * len(examples[examples["patient_id"].isin(cohort.splits.patients("test"))])


def test_what_carried_methods_read_of_a_draw_is_what_the_alignment_says(cohort):
    """Of draws alone (no weight between them), sums are those of the measured rows."""
    bare = cohort.aligned
    bare = replace(bare, config=replace(bare.config, interpolated_weight=0.0))
    sums = score_estimators_dense({name: m.estimate for name, m in CARRIED.items()}, bare, cohort.splits)
    for name, method in CARRIED.items():
        rows = score_estimator(name, method.estimate, bare, cohort.splits, splits_to_score=("test",))
        found = sums[sums["method"] == name].set_index(["patient", "protocol", "lab"])
        error = (rows["estimate"] - rows["truth"]).abs()
        expected = error.groupby([rows["patient"], rows["protocol"], rows["lab"]]).agg(["sum", "size"])
        assert found["n_points"].reindex(expected.index).tolist() == expected["size"].tolist()
        assert found["absolute_error"].reindex(expected.index).to_numpy() == pytest.approx(
            expected["sum"], abs=1e-12
        )
        assert len(found) == len(expected)


def test_models_and_carried_values_are_scored_on_the_same_points(cohort, checkpoints):
    tables = [carried(cohort)]
    for method in ("mt_pcs", "mt_pcs_twin", "lstm"):
        tables.append(
            score_dense(checkpoints / method, cohort.aligned, cohort.store, cohort.splits, device="cpu")
        )
        assert tuple(tables[-1].columns) == DENSE_SUM_COLUMNS
    sets = dense_sets(pd.concat(tables, ignore_index=True))
    assert {(found.protocol, found.lab) for found in sets} == {
        (p, lab) for p in ("start", "anchored") for lab in LAB_NAMES
    }
    assert all(set(found.sums) == {*CARRIED, "mt_pcs", "mt_pcs_twin", "lstm"} for found in sets)


def test_a_cohort_that_was_aligned_anew_is_not_compared_with_the_old_one(cohort, checkpoints):
    later = cohort.with_labs(cohort.labs.assign(value=cohort.labs["value"] * (1 + 1e-12)))
    rows = score_dense(checkpoints / "mt_pcs", later.aligned, later.store, cohort.splits, device="cpu")
    with pytest.raises(ConfigError, match="have not the same points: 'mt_pcs' differs from 'locf'"):
        dense_sets(pd.concat([carried(cohort), rows], ignore_index=True))


def test_the_twin_of_a_lone_patient_and_a_cohort_without_points_have_no_row(cohort, checkpoints):
    assert len(cohort.splits.patients("calibration")) == 1
    lone = score_dense(checkpoints / "mt_pcs_twin", cohort.aligned, cohort.store, cohort.splits,
                       split="calibration", device="cpu")  # fmt: skip
    bare = cohort.with_labs(cohort.labs.iloc[:0])
    nobody = score_dense(checkpoints / "mt_pcs", bare.aligned, bare.store, bare.splits, device="cpu")
    for table in (lone, nobody, carried(bare)):
        assert table.empty
        assert tuple(table.columns) == DENSE_SUM_COLUMNS


def test_another_division_of_the_patients_is_refused(cohort, checkpoints):
    other = tiny_cohort(n_patients=11, hours=1.5, draws=4)
    with pytest.raises(LeakError, match="another division"):
        score_dense(checkpoints / "mt_pcs", cohort.aligned, cohort.store, other.splits, device="cpu")


@pytest.mark.parametrize("method", ["mt_pcs", "lstm"])
def test_points_are_made_when_they_are_wanted_and_then_forgotten(cohort, checkpoints, monkeypatch, method):
    """With passes of one piece, points are made at most as many pieces ahead as the reading thread may be."""
    events = []
    of_piece, add = PointSource.of_piece, dense_sums.DenseSums.add
    monkeypatch.setattr("pipeline.training.forecaster.PACKED_STEPS", 1)
    monkeypatch.setattr(
        PointSource, "of_piece", lambda self, row: events.append("made") or of_piece(self, row)
    )
    monkeypatch.setattr(
        dense_sums.DenseSums, "add", lambda self, block: events.append("added") or add(self, block)
    )
    score_dense(checkpoints / method, cohort.aligned, cohort.store, cohort.splits, device="cpu")
    runs = "".join("m" if event == "made" else "a" for event in events)
    assert runs.count("ma") > 5
    in_a_row = max(len(made) for made in re.findall("m+", runs.rstrip("m")))
    assert in_a_row <= (1 if method == "lstm" else PIECES_AHEAD + 2)  # and one taken, and one being made
