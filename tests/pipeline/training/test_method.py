import json
import math
import stat
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.regressor.losses import uncertainty_weighted_l1
from pipeline.foundation.schema import FITTED_METHODS, LAB_NAMES, TRAINED_METHODS
from pipeline.testing.training_runs import CONFIG, losses, run
from pipeline.training.batches import PieceSource
from pipeline.training.checkpoints import load_model
from pipeline.training.config import LEAST_LSTM_DRAWS
from pipeline.training.curves import read_curves
from pipeline.training.dataset import PieceDataset, pack
from pipeline.training.draw_source import DrawSource

NETWORKS = [method for method in TRAINED_METHODS if method not in FITTED_METHODS]


@pytest.mark.parametrize("method", NETWORKS)
def test_every_network_trains_and_leaves_what_it_promises(cohort, tmp_path, method):
    result = run(cohort, tmp_path / method, method)
    parts = list(LAB_NAMES) if method == "st_pcs" else ["all"]
    assert result.checkpoint_dir == tmp_path / method
    assert list(result.best_epochs) == parts
    assert len(result.epochs) == CONFIG.epochs * len(parts)
    assert all(math.isfinite(loss) for loss in losses(result))
    for part in parts:
        folder = tmp_path / method / (part if method == "st_pcs" else "")
        loaded = load_model(folder / "best")
        assert loaded.method == method
        assert loaded.labs == ((part,) if method == "st_pcs" else LAB_NAMES)
        assert loaded.provenance["split_hash"] == cohort.splits.hash
        assert loaded.experiment["training"]["epochs"] == 2
        assert loaded.provenance["epoch"] == result.best_epochs[part]
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [row["epoch"] for row in rows] == [1, 2]
        assert set(rows[0]["lab_losses"]) == set(loaded.labs)
    assert len(read_curves(tmp_path / method)) == len(result.epochs)


def test_methods_differ_only_where_they_should(cohort, tmp_path):
    states = {
        method: load_model(run(cohort, tmp_path / method, method).checkpoint_dir / "best").model.config
        for method in ("mt", "mt_learned", "mt_pcs", "mt_pcs_twin")
    }
    assert [c.patient_state for c in states.values()] == ["none", "learned", "pcs", "pcs"]
    single = load_model(
        run(cohort, tmp_path / "st", "st_pcs").checkpoint_dir / "sodium" / "best"
    ).model.config
    # The trunk of a single-task model sees all five labs' history.
    assert single == replace(states["mt_pcs"], task_labs=("sodium",))
    assert single.history_labs == LAB_NAMES


def test_counts_are_those_of_the_training_patients(cohort, tmp_path):
    counts = run(cohort, tmp_path).counts["all"]
    patients = cohort.splits.patients("train")
    pieces = cohort.aligned.pieces[cohort.aligned.pieces["patient_id"].isin(patients)]
    targets = cohort.aligned.targets
    targets = targets[targets["piece_id"].isin(pieces["piece_id"])]
    assert counts["pieces"] + counts["pieces_without_target"] == len(pieces)
    assert counts["targets_measured"] == int(targets["measured"].sum())
    assert counts["targets_interpolated"] == int((~targets["measured"]).sum())
    assert counts["targets_measured_sodium"] == int(
        (targets["measured"] & (targets["lab"] == "sodium")).sum()
    )


def test_training_learns_what_is_there(cohort, tmp_path):
    config = replace(CONFIG, epochs=5, batches_per_epoch=3, learning_rate=2e-2)
    rows = run(cohort, tmp_path, config=config, dropout=0.0).epochs
    first, last = (np.mean(list(row["lab_losses"].values())) for row in (rows[0], rows[-1]))
    assert last < 0.8 * first


def test_the_best_epoch_is_that_of_the_lowest_validation_error(cohort, tmp_path):
    config = replace(
        CONFIG, epochs=5, learning_rate=0.3, warmup_start=0.3
    )  # so that the last is hardly the best
    result = run(cohort, tmp_path, config=config)
    errors = [row["selection_error"] for row in result.epochs]
    for row in result.epochs:
        assert row["selection_error"] == pytest.approx(np.mean(list(row["validation"].values())))
    assert result.best_epochs["all"] == int(np.argmin(errors)) + 1
    assert load_model(tmp_path / "best").provenance["epoch"] == result.best_epochs["all"]
    assert load_model(tmp_path / "last").provenance["epoch"] == 5
    assert run(cohort, tmp_path / "l", config=replace(config, selection="last")).best_epochs["all"] == 5


def test_the_lstm_may_have_epochs_and_a_rate_of_its_own(cohort, tmp_path):
    config = replace(CONFIG, epochs=1, lstm_epochs=2, lstm_learning_rate=5e-3)
    assert config.for_method("mt_pcs") == config
    epochs = {method: len(run(cohort, tmp_path / method, method, config).epochs) for method in ("lstm", "mt")}
    assert epochs == {"lstm": 2, "mt": 1}
    with pytest.raises(ValueError, match="lstm_learning_rate"):
        replace(CONFIG, lstm_learning_rate=1e-9)


def test_the_lstm_sees_every_draw_however_few_pieces_the_others_take(cohort, tmp_path):
    """Epochs cut to a few single pieces left the LSTM a few single draws of thousands."""
    config = replace(CONFIG, epochs=1, batch_pieces=1, batches_per_epoch=1)
    result = run(cohort, tmp_path, "lstm", config)
    draws = result.counts["all"]["pieces"]
    assert draws > LEAST_LSTM_DRAWS
    assert result.epochs[0]["batches"] == -(-draws // LEAST_LSTM_DRAWS)
    assert config.for_method("mt_pcs") == config
    assert config.for_method("lstm").identity() == replace(CONFIG, epochs=1, batch_pieces=8).identity()


def test_patience_ends_a_run(cohort, tmp_path):
    config = replace(CONFIG, epochs=20, learning_rate=0.5, warmup_start=0.5, patience=2, batches_per_epoch=1)
    result = run(cohort, tmp_path, config=config)
    assert len(result.epochs) < 20
    assert len(result.epochs) == result.best_epochs["all"] + 2
    assert losses(run(cohort, tmp_path, config=config)) == losses(result)


def test_the_callers_random_state_is_left_alone(cohort, tmp_path):
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    before, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    run(cohort, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numbers)  # noqa: NPY002


def test_the_seed_decides_the_run(cohort, tmp_path):
    first = run(cohort, tmp_path / "a", dropout=0.3)
    torch.manual_seed(99)
    assert losses(run(cohort, tmp_path / "b", dropout=0.3)) == losses(first)
    assert losses(run(cohort, tmp_path / "c", config=replace(CONFIG, seed=1), dropout=0.3)) != losses(first)


@pytest.mark.parametrize("steps", [40, 100])
def test_micro_batches_change_nothing_but_rounding(cohort, tmp_path, steps):
    whole = run(cohort, tmp_path / "whole", dropout=0.0)
    parts = run(cohort, tmp_path / "parts", config=replace(CONFIG, steps_per_micro_batch=steps), dropout=0.0)
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-4)


def test_the_first_loss_is_that_of_the_whole_batch(cohort, tmp_path):
    """The loss by hand, from all pieces at once, at the first batch's weights."""
    patients = cohort.splits.patients("train")
    config = replace(CONFIG, epochs=1, batch_pieces=1000, protocols=("start",), steps_per_micro_batch=50,
                     learning_rate=1e-12, warmup_start=1e-12, final_lr=1e-12)  # fmt: skip
    result = run(cohort, tmp_path, config=config, dropout=0.0)
    dataset = PieceDataset(
        cohort.aligned, cohort.store, cohort.scaler, patients=patients, protocol="start", pooling="sampled"
    )
    batch = pack([dataset[i] for i in range(len(dataset))])
    model = load_model(tmp_path / "last").model
    with torch.no_grad():
        expected = uncertainty_weighted_l1(
            model(batch.inputs), batch.targets, batch.weights, model.log_variance
        )
    assert losses(result)[0] == pytest.approx(float(expected), rel=1e-5)


def test_models_start_at_the_training_means(cohort, tmp_path):
    config = replace(CONFIG, epochs=1, learning_rate=1e-12, warmup_start=1e-12, final_lr=1e-12)
    run(cohort, tmp_path, "lstm", config)
    model = load_model(tmp_path / "last").model
    patients = cohort.splits.patients("train")
    source = DrawSource(
        cohort.aligned, cohort.store, cohort.scaler, patients=list(patients), protocols=("start",)
    )
    drawn = cohort.aligned.targets.merge(cohort.aligned.pieces[["piece_id", "patient_id", "protocol"]])
    drawn = drawn[drawn["measured"] & (drawn["protocol"] == "start") & drawn["patient_id"].isin(patients)]
    means = drawn.groupby("lab")["value"].mean()
    expected = cohort.scaler.scale(np.array([means[lab] for lab in LAB_NAMES]))
    assert source.target_means() == pytest.approx(expected)
    assert model.heads.bias.detach().numpy() == pytest.approx(expected, rel=1e-5)


def test_half_of_the_batches_come_from_each_protocol(cohort, tmp_path):
    told = []
    run(cohort, tmp_path, progress=lambda p: told.append((p.epoch, p.batch, p.batches)))
    assert {batches % 2 for _, _, batches in told} == {0}
    source = PieceSource(
        cohort.aligned, cohort.store, cohort.scaler, patients=list(cohort.splits.patients("train")),
        protocols=("start", "anchored"), labs=LAB_NAMES, twin=False, seed=0,
    )  # fmt: skip
    assert source.group_sizes[1] > source.group_sizes[0] > 0


def test_one_draw_is_one_lesson_of_the_lstm_though_both_protocols_have_it(cohort):
    patients = list(cohort.splits.patients("train"))
    arguments = (cohort.aligned, cohort.store, cohort.scaler)
    both = DrawSource(*arguments, patients=patients, protocols=("start", "anchored")).counts()
    start = DrawSource(*arguments, patients=patients, protocols=("start",)).counts()
    assert both["targets_measured"] == start["targets_measured"]


def test_progress_tells_every_batch_and_every_epoch(cohort, tmp_path):
    told = []
    result = run(cohort, tmp_path, progress=told.append)
    batches = [p for p in told if p.validation is None]
    epochs = [p for p in told if p.validation is not None]
    assert [p.epoch for p in epochs] == [1, 2]
    assert [p.batch for p in batches if p.epoch == 1] == list(range(1, batches[0].batches + 1))
    assert [p.loss for p in epochs] == losses(result)
    assert set(epochs[0].validation) <= {f"{p}/{lab}" for p in ("start", "anchored") for lab in LAB_NAMES}
    assert all(set(p.lab_losses) <= set(LAB_NAMES) and p.lab_losses for p in batches)


def test_everything_written_is_the_owners_alone(cohort, tmp_path):
    run(cohort, tmp_path / "run", config=replace(CONFIG, tensorboard=True))
    written = [f for f in (tmp_path / "run").rglob("*") if "tensorboard" not in f.parts]
    assert {stat.S_IMODE(f.stat().st_mode) for f in written if f.is_file()} == {0o600}
    folders = [f for f in (tmp_path / "run").rglob("*") if f.is_dir()]
    assert {stat.S_IMODE(f.stat().st_mode) for f in folders} == {0o700}


def test_tensorboard_has_a_point_an_epoch(cohort, tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    result = run(cohort, tmp_path, config=replace(CONFIG, tensorboard=True))
    reader = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [point.value for point in reader.Scalars("loss")] == pytest.approx(losses(result), rel=1e-5)
