"""Two processes train as one."""

import json
import os
import subprocess
import sys

import pytest

WORKER = """
import sys, json, os
from pathlib import Path
import torch
from pipeline.training import line_fit
from pipeline.testing.cohort import TINY_MODEL, tiny_cohort
from pipeline.training.config import TrainingConfig
from pipeline.training.method import train
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
