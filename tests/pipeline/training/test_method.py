import json
import math
import os
import stat
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.regressor.losses import uncertainty_weighted_l1
from pipeline.foundation.errors import ConfigError, LeakError
from pipeline.foundation.schema import LAB_NAMES
from pipeline.testing.cohort import TINY_MODEL, tiny_cohort
from pipeline.training.batches import PieceSource
from pipeline.training.checkpoints import load_model
from pipeline.training.curves import read_curves
from pipeline.training.dataset import PieceDataset, pack
from pipeline.training.draw_source import DrawSource
from pipeline.training.method import TRAINED_METHODS, TrainingConfig, train
from pipeline.training.ridge import weigh
from pipeline.training.validation import validation_of

CONFIG = TrainingConfig(
    epochs=2, batch_pieces=4, learning_rate=1e-2, warmup_epochs=1.0, tensorboard=False, device="cpu"
)

LINES = {"slow_features": 3, "mean_steps": (5.0, 20.0), "history_skip": True, "reader_width": 4}


@pytest.fixture(scope="module")
def cohort():
    return tiny_cohort(n_patients=8, hours=1.5, draws=4)


def run(cohort, out, method="mt_pcs", config=CONFIG, progress=None, **model):
    return train(
        method, cohort.aligned, cohort.store, cohort.scaler, cohort.splits, dict(TINY_MODEL) | model, config, out,
        progress,
    )  # fmt: skip


def losses(result):
    return [row["loss"] for row in result.epochs]


def weights(folder):
    return {name: tensor.numpy().tobytes() for name, tensor in load_model(folder).model.state_dict().items()}


@pytest.mark.parametrize("method", TRAINED_METHODS)
def test_every_method_trains_and_leaves_what_it_promises(cohort, tmp_path, method):
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


def test_fitted_lines_stand_for_selection_and_are_held(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.training.line_fit.LEAST_ROWS", 4)
    ruinous = replace(CONFIG, learning_rate=0.5, warmup_start=0.5, fit_lines=True)
    result = run(cohort, tmp_path, config=ruinous, **LINES)
    best, last = (load_model(tmp_path / name).model for name in ("best", "last"))
    assert result.best_epochs == {"all": 0}
    assert load_model(tmp_path / "best").provenance["epoch"] == 0
    lines = [
        {k: v for k, v in m.state_dict().items() if ".line." in k or "reader" in k} for m in (best, last)
    ]
    assert any(value.any() for name, value in lines[0].items() if ".line." in name)
    assert all(torch.equal(value, lines[1][name]) for name, value in lines[0].items())
    assert not torch.equal(best.input_proj.weight, last.input_proj.weight)
    again = run(cohort, tmp_path, config=ruinous, **LINES)
    assert again.best_epochs == {"all": 0}
    assert losses(again) == losses(result)


def test_an_epoch_must_be_clearly_better_than_the_lines_to_take_their_place(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.training.line_fit.LEAST_ROWS", 4)
    config = replace(CONFIG, epochs=1, fit_lines=True)
    kept = {}
    for name, factor in (("hardly", 0.999), ("clearly", 0.9)):
        calls = []

        def validation(rows, *rest, calls=calls, factor=factor):
            calls.append(rows)  # the start, then the epoch: better on one patient, or on all
            better = rows["patient_id"] == rows["patient_id"].iloc[0] if factor > 0.99 else rows["error"] >= 0
            error = np.where(better, factor, 1.0) if len(calls) > 1 else 1.0
            return validation_of(rows.assign(error=error), *rest)

        monkeypatch.setattr("pipeline.training.method.validation_of", validation)
        kept[name] = run(cohort, tmp_path / name, config=config, **LINES).best_epochs["all"]
        lines_alone = replace(config, fit_lines=False)
        assert run(cohort, tmp_path / f"{name}_plain", config=lines_alone, **LINES).best_epochs["all"] == 1
    assert kept == {"hardly": 0, "clearly": 1}


def test_the_lstm_may_have_epochs_and_a_rate_of_its_own(cohort, tmp_path):
    config = replace(CONFIG, epochs=1, lstm_epochs=2, lstm_learning_rate=5e-3)
    assert config.for_method("mt_pcs") == config
    epochs = {method: len(run(cohort, tmp_path / method, method, config).epochs) for method in ("lstm", "mt")}
    assert epochs == {"lstm": 2, "mt": 1}
    with pytest.raises(ValueError, match="lstm_learning_rate"):
        replace(CONFIG, lstm_learning_rate=1e-9)


def test_patience_ends_a_run(cohort, tmp_path):
    config = replace(CONFIG, epochs=20, learning_rate=0.5, warmup_start=0.5, patience=2, batches_per_epoch=1)
    result = run(cohort, tmp_path, config=config)
    assert len(result.epochs) < 20
    assert len(result.epochs) == result.best_epochs["all"] + 2
    assert losses(run(cohort, tmp_path, config=config)) == losses(result)


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the run may catch it."""


def kill_at(epoch, batch):
    def listener(progress):
        if progress.validation is None and (progress.epoch, progress.batch) == (epoch, batch):
            raise Killed

    return listener


@pytest.mark.parametrize("method", ["mt_pcs", "lstm"])
def test_killed_and_resumed_is_uninterrupted_bit_for_bit(cohort, tmp_path, method):
    config = replace(CONFIG, epochs=4)
    whole = run(cohort, tmp_path / "whole", method, config, dropout=0.3)
    for at in ((2, 1), (3, 2), (4, 1)):
        with pytest.raises(Killed):
            run(cohort, tmp_path / "cut", method, config, kill_at(*at), dropout=0.3)
    resumed = run(cohort, tmp_path / "cut", method, config, dropout=0.3)
    assert losses(resumed) == losses(whole)
    assert [row["validation"] for row in resumed.epochs] == [row["validation"] for row in whole.epochs]
    for name in ("best", "last"):
        assert weights(tmp_path / "cut" / name) == weights(tmp_path / "whole" / name)


def test_a_resumed_run_keeps_the_lines_and_the_reader_that_it_was_given(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.training.line_fit.LEAST_ROWS", 4)
    config = replace(CONFIG, epochs=3, fit_lines=True)
    whole = run(cohort, tmp_path / "whole", config=config, **LINES)
    with pytest.raises(Killed):
        run(cohort, tmp_path / "cut", "mt_pcs", config, kill_at(2, 1), **LINES)
    monkeypatch.setattr("pipeline.training.method.fit_lines", None)  # not fitted again
    assert losses(run(cohort, tmp_path / "cut", config=config, **LINES)) == losses(whole)
    assert weights(tmp_path / "cut" / "last") == weights(tmp_path / "whole" / "last")


@pytest.mark.parametrize("method", ["mt", "mt_pcs_twin", "st_pcs"])
def test_every_sequence_model_has_its_reader_fitted(cohort, tmp_path, monkeypatch, method):
    monkeypatch.setattr("pipeline.training.line_fit.LEAST_ROWS", 4)
    fitted = []
    monkeypatch.setattr(
        "pipeline.training.line_fit.weigh",
        lambda offered, *rest: fitted.append(offered) or weigh(offered, *rest),
    )
    run(cohort, tmp_path, method, replace(CONFIG, epochs=1, fit_lines=True), **LINES)
    assert len(fitted) == len(LAB_NAMES)
    for waveform, reading in fitted:
        assert waveform.shape[1] == 2
        assert reading.any()


def test_a_finished_run_is_not_trained_again(cohort, tmp_path):
    first = run(cohort, tmp_path)
    told = []
    again = run(cohort, tmp_path, progress=told.append)
    assert told == []
    assert again == first


@pytest.mark.parametrize("change", ["config", "model", "labs"])
def test_a_folder_of_another_run_is_refused(cohort, tmp_path, change):
    run(cohort, tmp_path)
    other, config, model = cohort, CONFIG, {}
    if change == "config":
        config = replace(CONFIG, seed=1)
    elif change == "model":
        model = {"dropout": 0.2}
    else:
        other = cohort.with_labs(cohort.labs.iloc[:-1])
    with pytest.raises(ConfigError, match="another configuration"):
        run(other, tmp_path, config=config, **model)


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


def test_a_scaling_from_elsewhere_is_refused(cohort, tmp_path):
    elsewhere = replace(cohort, scaler=replace(cohort.scaler, split_hash="0" * 64))
    with pytest.raises(LeakError, match="another division"):
        run(elsewhere, tmp_path)
    everything = replace(cohort, scaler=replace(cohort.scaler, fitted_on="everything"))
    with pytest.raises(LeakError, match="held-out"):
        run(everything, tmp_path)
    assert run(everything, tmp_path, config=replace(CONFIG, epochs=1, allow_leaks=True)).epochs


def test_wrong_names_are_refused(cohort, tmp_path):
    with pytest.raises(ConfigError, match="'locf'"):
        run(cohort, tmp_path, "locf")
    with pytest.raises(ConfigError, match="d_modell"):
        run(cohort, tmp_path, d_modell=8)


def test_a_division_of_another_cohort_is_refused(cohort, tmp_path):
    strangers = tiny_cohort(n_patients=9, hours=1.5, draws=4)
    with pytest.raises((ConfigError, LeakError)):
        run(replace(strangers, splits=cohort.splits, scaler=cohort.scaler), tmp_path)


def test_without_any_lab_there_is_one_clear_error(cohort, tmp_path):
    bare = cohort.with_labs(cohort.labs.iloc[:0])
    for method in ("mt_pcs", "lstm", "st_pcs"):
        with pytest.raises(ConfigError, match="target"):
            run(bare, tmp_path / method, method)


def test_with_one_lab_the_others_are_left_out_and_nothing_fails(cohort, tmp_path):
    one = cohort.with_labs(cohort.labs[cohort.labs["lab"] == "glucose"])
    result = run(one, tmp_path / "mt", "mt_pcs")
    assert set(result.epochs[0]["lab_losses"]) == {"glucose"}
    single = run(one, tmp_path / "st", "st_pcs")
    assert list(single.best_epochs) == ["glucose"]


def test_without_validation_examples_the_last_epoch_is_kept(cohort, tmp_path):
    held = cohort.splits.patients("validation")
    blind = cohort.with_labs(cohort.labs[~cohort.labs["patient_id"].isin(held)])
    result = run(blind, tmp_path)
    assert result.epochs[0]["validation"] == {}
    assert result.best_epochs["all"] == CONFIG.epochs


def test_a_loss_that_is_not_finite_ends_the_run_with_a_remedy(cohort, tmp_path):
    broken = {
        p: replace(w, embeddings=w.embeddings * np.float16("inf")) for p, w in cohort.store.windows.items()
    }
    with pytest.raises(ConfigError, match="learning_rate"), np.errstate(invalid="ignore"):
        run(cohort.with_windows(broken), tmp_path)


WORKER = """
import sys, json, os
from pathlib import Path
import torch
from pipeline.training.method import line_fit
from pipeline.testing.cohort import TINY_MODEL, tiny_cohort
from pipeline.training.method import TrainingConfig, train
cohort = tiny_cohort(n_patients=8, hours=1.5, draws=4)
config = TrainingConfig(epochs=2, batch_pieces=6, learning_rate=1e-2, warmup_epochs=1.0, tensorboard=False,
                        device="cpu", steps_per_micro_batch=200, fit_lines=True)
line_fit.LEAST_ROWS = 4
if os.environ.get("RANK") == "1":  # another machine may round otherwise
    cross_fit = line_fit.cross_fit
    def other(draws, width, seed):
        reader, said = cross_fit(draws, width, seed)
        with torch.no_grad():
            reader.lstm.weight_ih_l0.mul_(1.5)
        return reader, said * 1.1
    line_fit.cross_fit = other
model = dict(TINY_MODEL) | {"slow_features": 3, "mean_steps": (5.0, 20.0), "history_skip": True, "reader_width": 4}
result = train("mt_pcs", cohort.aligned, cohort.store, cohort.scaler, cohort.splits, model, config,
               Path(sys.argv[1]))
Path(sys.argv[1], f"result{os.environ.get('RANK', '')}.json").write_text(json.dumps(
    [(r["loss"], r["validation"]) for r in result.epochs]))
"""


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    alone, together = tmp_path / "alone", tmp_path / "together"
    for folder in (alone, together):
        folder.mkdir()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    worker = str(tmp_path / "worker.py")
    subprocess.run([sys.executable, worker, str(alone)], check=True, env=environment, timeout=200)
    subprocess.run([*torchrun, worker, str(together)], check=True, env=environment, timeout=200)
    one = json.loads((alone / "result.json").read_text())
    both = [json.loads((together / f"result{rank}.json").read_text()) for rank in (0, 1)]
    assert both[0] == both[1]
    for (loss, validation), (other, other_validation) in zip(one, both[0], strict=True):
        assert other == pytest.approx(loss, abs=1e-6)
        assert other_validation == pytest.approx(validation, abs=1e-6)
