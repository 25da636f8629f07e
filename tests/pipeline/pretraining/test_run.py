"""Pretraining on a few seconds of made-up pulse: it learns, resumes to the bit and never validates on what it saw."""

import json
import logging
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.encoders.ppg_gpt import PPGGPT, PPGGPTConfig
from pipeline.__main__ import main
from pipeline.embedding import encoders
from pipeline.embedding.encoders import make_encoder
from pipeline.experiments import EXPERIMENTS
from pipeline.foundation.errors import CheckpointError, ConfigError, RecordError
from pipeline.pretraining.config import PretrainingConfig
from pipeline.pretraining.data import SYNTHETIC_SEED, Corpus, divide, epoch_windows
from pipeline.pretraining.mix import CorpusMix
from pipeline.pretraining.run import RECORD_FILE, WEIGHTS_FILE, pretrain
from pipeline.sources.challenge2015 import Challenge2015
from pipeline.stages.pretraining import run_pretraining
from pipeline.testing.notes import lacking, noted_files
from pipeline.windows.cutting import WindowConfig

SMALL = PPGGPTConfig(d_model=16, n_layers=1, n_heads=2)
TINY = CorpusMix(
    synthetic_share=0.5, synthetic_patients=4, synthetic_hours=0.05, families_share=0.25, families_patients=5
)
CONFIG = PretrainingConfig(
    epochs=3, batch_windows=8, learning_rate=1e-2, warmup_epochs=0.5, validation_share=0.25, device="cpu",
    precision="float32", dropout=0.1,
)  # fmt: skip


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Eight records of two minutes, one of them without a pulse and one with a missing sample."""
    rng = np.random.default_rng(1)
    time = np.arange(4800) / 40
    pleth = np.stack([np.sin(2 * np.pi * rng.uniform(1, 2) * time) for _ in range(8)])
    pleth += 0.05 * rng.standard_normal(pleth.shape)
    pleth[2] = 0.5
    pleth[3, 100] = np.nan
    path = tmp_path / "pleth.npz"
    names = np.array([f"r{i}" for i in range(8)])
    np.savez(path, pleth=pleth.astype(np.float16).ravel(), length=np.full(8, 4800), record=names)
    return path


@pytest.fixture
def sides(archive: Path) -> tuple[Corpus, Corpus]:
    return divide("made_up", Challenge2015(archive), 1.0, validation_share=0.25, seed=0)


def run(sides: tuple[Corpus, Corpus], folder: Path, config: PretrainingConfig = CONFIG):
    return pretrain([sides[0]], [sides[1]], config, folder, model=SMALL)


def test_loss_falls_and_the_weights_can_be_loaded(sides: tuple[Corpus, Corpus], tmp_path: Path) -> None:
    state = run(sides, tmp_path / "run", replace(CONFIG, epochs=8, batch_windows=2, dropout=0.0))
    assert state.rows[-1]["loss"] < state.rows[0]["loss"] - 0.1
    assert len(noted_files(tmp_path / "run")) == 2
    assert lacking(tmp_path / "run") == {}
    assert state.best_loss == min(row["validation"]["made_up"] for row in state.rows)
    described = json.loads((tmp_path / "run" / RECORD_FILE).read_text())
    loaded = make_encoder(str(tmp_path / "run" / WEIGHTS_FILE), device="cpu")
    assert loaded.weights_hash == described["weights_hash"]
    assert described["epoch"] == state.best_epoch


def test_resumed_run_is_the_same_to_the_bit(sides: tuple[Corpus, Corpus], tmp_path: Path) -> None:
    whole = run(sides, tmp_path / "whole")

    class Killed(RuntimeError):
        pass

    def kill(row) -> None:
        if row["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        pretrain([sides[0]], [sides[1]], CONFIG, tmp_path / "cut", kill, model=SMALL)
    torch.rand(7)  # a resumed process has another generator
    resumed = run(sides, tmp_path / "cut")
    files = [tmp_path / name / "last" / "resume.safetensors" for name in ("whole", "cut")]
    assert [row["loss"] for row in resumed.rows] == [row["loss"] for row in whole.rows]
    tensors = [make_tensors(file) for file in files]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


def make_tensors(file: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(file)


def test_finished_run_can_be_prolonged_but_not_changed(sides: tuple[Corpus, Corpus], tmp_path: Path) -> None:
    run(sides, tmp_path / "run")
    assert run(sides, tmp_path / "run", replace(CONFIG, epochs=4)).epoch == 4
    with pytest.raises(ConfigError, match="holds another pretraining run"):
        run(sides, tmp_path / "run", replace(CONFIG, learning_rate=2e-2))


def test_trained_on_from_given_weights_and_resumed_to_the_bit(
    sides: tuple[Corpus, Corpus], tmp_path: Path
) -> None:
    """The same for both optimisers: killed after an epoch, the run goes on from its own weights, not the given ones."""
    run(sides, tmp_path / "first")
    start = PPGGPT.from_checkpoint(tmp_path / "first" / WEIGHTS_FILE)
    for optimizer in ("adamw", "muon"):
        config = replace(CONFIG, optimizer=optimizer, learning_rate=1e-4)

        def go(name: str, epochs: int, config=config, listener=None):
            recipe = replace(config, epochs=epochs)
            return pretrain(
                [sides[0]], [sides[1]], recipe, tmp_path / name, listener, model=SMALL, start=start
            )

        whole = go(f"whole {optimizer}", 3)
        before = start.loss(torch.from_numpy(sides[1].windows(WindowConfig(), Counter()))).item()
        assert whole.rows[0]["validation"]["made_up"] < before + 0.05  # random weights lie 0.5 higher

        class Killed(RuntimeError):
            pass

        def kill(row, killed=Killed) -> None:
            if row["epoch"] == 1:
                raise killed

        with pytest.raises(Killed):
            go(f"cut {optimizer}", 3, listener=kill)
        go(f"cut {optimizer}", 3)
        one, two = (
            make_tensors(tmp_path / f"{name} {optimizer}" / "last" / "resume.safetensors")
            for name in ("whole", "cut")
        )
        assert any(name.startswith("optimizer.gpt_layers") for name in one)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_where_a_run_started_is_part_of_what_it_is(sides: tuple[Corpus, Corpus], tmp_path: Path) -> None:
    run(sides, tmp_path / "first")
    start = PPGGPT.from_checkpoint(tmp_path / "first" / WEIGHTS_FILE)
    pretrain([sides[0]], [sides[1]], CONFIG, tmp_path / "on", model=SMALL, start=start)
    described = json.loads((tmp_path / "on" / RECORD_FILE).read_text())
    assert described["started_from"] == start.weights_hash
    with pytest.raises(ConfigError, match="holds another pretraining run"):
        run(sides, tmp_path / "on")
    with pytest.raises(ConfigError, match=r"width 16, 1 layers, 2 heads.*width 16, 2 layers, 2 heads"):
        pretrain(
            [sides[0]], [sides[1]], CONFIG, tmp_path / "other", model=replace(SMALL, n_layers=2), start=start
        )


def test_nothing_to_start_from_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no tensors")
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    for start, error, said in (
        (str(tmp_path / "nowhere.safetensors"), ConfigError, "there is no encoder"),
        (str(tmp_path / "text.safetensors"), CheckpointError, "text.safetensors"),
        (str(tmp_path / "other.safetensors"), CheckpointError, "no PPG-GPT"),
    ):
        with pytest.raises(error, match=said):
            run_pretraining(None, tmp_path / "out", CONFIG, start=start)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match=r"scale 1m .*19m"):
        run_pretraining(
            None, tmp_path / "scale", replace(CONFIG, scale="19m"), start="ppg_gpt_1m_long", mix=TINY
        )


def test_probe_stands_in_the_rows_of_its_epochs(sides: tuple[Corpus, Corpus], tmp_path: Path) -> None:
    seen = []

    def probe(model) -> dict[str, int]:
        seen.append(model.weights_hash)
        return {"calls": len(seen)}

    config = replace(CONFIG, epochs=5)
    state = pretrain(
        [sides[0]], [sides[1]], config, tmp_path / "run", model=SMALL, probe=probe, probe_every=2
    )
    assert [row.get("probe") for row in state.rows] == [None, {"calls": 2}, None, {"calls": 3}, {"calls": 4}]
    assert state.rows[0]["probe_before"] == {"calls": 1}
    assert len(set(seen)) == 4
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[1])["probe"] == {"calls": 2}
    bare = run(sides, tmp_path / "bare", config)
    assert [row["loss"] for row in bare.rows] == [row["loss"] for row in state.rows]


def test_callers_generator_is_left_alone(sides: tuple[Corpus, Corpus], tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    run(sides, tmp_path / "run", replace(CONFIG, epochs=1))
    assert torch.equal(before, torch.random.get_rng_state())


def test_division_by_record_has_no_overlap(sides: tuple[Corpus, Corpus], archive: Path) -> None:
    training, validation = ({record.name for record in side.records} for side in sides)
    assert len(validation) == 2
    assert not training & validation
    assert training | validation == {f"r{i}" for i in range(8)}
    with pytest.raises(ConfigError, match="training and validation"):
        pretrain([sides[0]], [sides[0]], CONFIG, archive.parent / "run", model=SMALL)


def test_records_of_one_patient_stay_together(archive: Path) -> None:
    source = Challenge2015(archive)
    catalog = source.catalog()
    twins = tuple(replace(r, patient_id=f"p{i // 2}") for i, r in enumerate(catalog.records))
    source.catalog = lambda: replace(catalog, records=twins)  # type: ignore[method-assign]
    training, validation = divide("twins", source, 1.0, validation_share=0.25, seed=3)
    assert not {r.patient_id for r in training.records} & {r.patient_id for r in validation.records}
    assert len(validation.records) == 2


def test_epochs_cut_elsewhere_each_time_and_the_same_when_repeated(archive: Path) -> None:
    source = Challenge2015(archive)
    corpus = Corpus(name="all", source=source, records=source.catalog().records, share=1.0)
    (first, dropped), (again, _), (second, _) = (
        epoch_windows([corpus], epoch, 0, None, WindowConfig()) for epoch in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert first.shape[1] == 1200
    assert not np.isin(first[:, :50], second[:, :50]).all()
    assert (first.min(), first.max()) == (0, 1)
    assert dropped["window: flat"] >= 3
    assert dropped["window: missing samples"] <= 1


def test_shares_decide_how_many_windows_each_corpus_gives(archive: Path) -> None:
    source = Challenge2015(archive)
    real = Corpus(name="real", source=source, records=source.catalog().records, share=0.8)
    other = replace(real, name="other", share=0.2)
    alone, _ = epoch_windows([real], 0, 0, None, WindowConfig())
    both, _ = epoch_windows([real, other], 0, 0, None, WindowConfig())
    assert len(both) == len(alone) + round(len(alone) / 4)
    few, _ = epoch_windows([real, other], 0, 0, 10, WindowConfig())
    assert len(few) == 10


def test_windows_are_those_of_the_archive(archive: Path) -> None:
    source = Challenge2015(archive)
    record = source.catalog().records[0]
    corpus = Corpus(name="one", source=source, records=(record,), share=1.0)
    windows = corpus.windows(WindowConfig(), Counter())
    with np.load(archive) as arrays:
        raw = arrays["pleth"][:4800].astype(np.float32).reshape(4, 1200)
    low, high = raw.min(axis=1, keepdims=True), raw.max(axis=1, keepdims=True)
    assert np.allclose(windows, (raw - low) / (high - low), atol=1e-6)


def test_synthetic_patients_are_not_those_of_any_experiment() -> None:
    assert SYNTHETIC_SEED not in {build().cohort.seed for build in EXPERIMENTS.values()}


def test_stage_on_synthetic_data_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = replace(CONFIG, epochs=1, batch_windows=4)
    with caplog.at_level(logging.INFO):
        summary = run_pretraining(None, tmp_path, config, mix=TINY)
    assert summary.counts["epochs"] == 1
    assert "epoch 1 of 1, loss" in caplog.text
    assert (tmp_path / WEIGHTS_FILE).exists()
    assert summary.counts["pulse_families training records"] == 4


def test_damaged_archive_and_impossible_recipes(tmp_path: Path, archive: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"no archive")
    with pytest.raises(RecordError, match="no archive of PLETH"):
        Challenge2015(tmp_path / "x.npz")
    np.savez(tmp_path / "short.npz", pleth=np.zeros(5), length=np.array([4]), record=np.array(["r"]))
    with pytest.raises(RecordError, match="length adds up"):
        Challenge2015(tmp_path / "short.npz")
    for name, value in {
        "scale": "7m",
        "epochs": 0,
        "dropout": 1.0,
        "seed": -1,
    }.items():
        with pytest.raises(ValueError, match=name):
            PretrainingConfig(**{name: value})
    with pytest.raises(ConfigError, match="does not exist"):
        run_pretraining(tmp_path / "nowhere", tmp_path / "out", CONFIG)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--synthetic-seed", "7"], "synthetic_seed = 7 must be 20150001 or higher"),
        (["--families-seed", "20150002"], "the probe's"),
        (["--families-share", "0.9"], "leave nothing for real PPG"),
        (["--probe-every", "0"], "--probe-every 0 must be at least 1 epoch"),
        (["--from", "ppg_gpt_7m"], "there is no encoder 'ppg_gpt_7m'"),
        (["--from", "ppg_gpt_1m+mean"], "without a read-out"),
        (["--bidmc", "nowhere"], "give --probe-every as well"),
        (["--from", "pulse_features"], "only a PPG-GPT can be trained on"),
        (["--from", "ppg_gpt_1m", "--scale", "19m"], "give --scale as the weights have it"),
        (["--from", "ppg_gpt_1m", "--bidmc", "nowhere", "--probe-every", "1"], "nowhere"),
    ],
)
def test_command_refuses_in_one_line_before_any_patient_is_made(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrain", "--out", str(tmp_path), *arguments]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "synthetic").exists()


WORKER = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from models.encoders.ppg_gpt import PPGGPT, PPGGPTConfig
from pipeline.pretraining.mix import CorpusMix
from pipeline.pretraining.run import pretrain
from pipeline.pretraining.config import PretrainingConfig
from pipeline.pretraining.data import divide
from pipeline.sources.challenge2015 import Challenge2015
training, validation = divide("made_up", Challenge2015(Path(sys.argv[1])), 1.0, validation_share=0.25, seed=0)
config = PretrainingConfig(epochs=2, batch_windows=7, device="cpu", precision="float32", validation_share=0.25)
pretrain([training], [validation], config, Path(sys.argv[2]), model=PPGGPTConfig(d_model=16, n_layers=1, n_heads=2))
"""


@pytest.mark.slow
def test_two_processes_train_the_same_model_as_one(archive: Path, tmp_path: Path) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, launcher in (("one", []), ("two", torchrun)):
        command = [sys.executable, *launcher, str(worker), str(archive), str(tmp_path / name)]
        subprocess.run(command, check=True, env=environment, timeout=200)
    one, two = (make_tensors(tmp_path / name / WEIGHTS_FILE) for name in ("one", "two"))
    # A bias of the keys has no gradient but rounding, which Adam blows up to some share of the learning rate.
    limits = {name: 1e-4 if name.endswith("w_k.bias") else 1e-6 for name in one}
    assert all(torch.allclose(one[name], two[name], atol=limits[name]) for name in one)


@pytest.mark.parametrize("name", ["ppg_gpt_1m", "ppg_gpt_1m_long", "ppg_gpt_1m_broad"])
def test_shipped_weights_are_those_described(name: str) -> None:
    described = json.loads((encoders.WEIGHTS / f"{name}.json").read_text())
    encoder = make_encoder(name, device="cpu")
    assert described["name"] == name
    assert encoder.weights_hash == described["weights_hash"]
    assert encoder.width == described["model"]["d_model"] == 128
    assert described["validation_loss"]["challenge2015"] < -0.9
