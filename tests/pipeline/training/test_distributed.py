"""Several processes of one training: devices, errors that end all of them, and files that rank 0 alone touches."""

import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from pipeline.foundation.errors import ConfigError
from pipeline.training.distributed import Ranks, joined_ranks, pick_device

PREPARE = """
    import json, os, sys
    from dataclasses import replace
    from pathlib import Path
    from pipeline.foundation.errors import *
    from pipeline.training.distributed import joined_ranks
    rank, out = int(os.environ["RANK"]), Path(sys.argv[1])
    said = []

    def tried(work):
        try:
            said.append(work())
        except Exception as error:
            said.append([type(error).__name__, str(error)])

    def failing(error):
        raise error
"""
TRAINING = """
    from pipeline.testing.cohort import TINY_MODEL, tiny_cohort
    from pipeline.training import run as loop
    from pipeline.training.batches import PieceSource
    from pipeline.training.method import TrainingConfig, train
    cohort = tiny_cohort(n_patients=8, hours=1.5, draws=4)
"""
"""Seconds of imports, for those that train."""


def two_processes(folder, body, **environment):
    """Run `body` in two processes that train together, and return what each said; they must end by themselves."""
    script = folder / "worker.py"
    ending = "\n(out / f'said{rank}.json').write_text(json.dumps(said))\n"
    script.write_text(textwrap.dedent(PREPARE) + textwrap.dedent(body) + ending)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1",
                           "PYTHONPATH": os.getcwd()} | environment  # fmt: skip
    started = [
        subprocess.Popen(
            [sys.executable, str(script), str(folder)],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], errors
    return [json.loads((folder / f"said{rank}.json").read_text()) for rank in (0, 1)]


def test_an_error_on_one_rank_ends_the_step_on_both(tmp_path):
    first, second = two_processes(tmp_path, """
    with joined_ranks() as ranks:
        def step():
            with ranks.in_step():
                if rank == 1:
                    failing(StoreError("no such patient"))
        tried(step)
        tried(lambda: ranks.alone(lambda: failing(OtherRunError("of another configuration"))))
        tried(lambda: ranks.alone(lambda: failing(ZeroDivisionError("a mistake"))))
        tried(lambda: ranks.from_first(lambda: bytes([0, 1, 255]) * 1000).hex()[-6:] + str(rank))
        tried(lambda: ranks.from_first(lambda: b"").hex())
        tried(lambda: ranks.least(7 - rank))
    """)  # fmt: skip
    assert first[0][0] == "OtherRankError"
    assert "process 1 of 2" in first[0][1]
    assert second[0] == ["StoreError", "no such patient"]
    assert first[1] == second[1] == ["OtherRunError", "of another configuration"]
    assert first[2] == ["ZeroDivisionError", "a mistake"]
    assert second[2][0] == "OtherRankError"
    assert [first[3], second[3]] == ["0001ff0", "0001ff1"]
    assert first[4:] == second[4:] == ["", 6]


def test_a_process_that_dies_does_not_leave_the_other_waiting(tmp_path):
    first, _ = two_processes(tmp_path, """
    with joined_ranks() as ranks:
        ranks.wait()
        if rank == 1:
            (out / "said1.json").write_text("[]")
            os._exit(0)
        tried(ranks.wait)
    """)  # fmt: skip
    assert first[0][0] == "OtherRankError"
    assert "has ended" in first[0][1]


def test_training_ends_on_both_when_one_cannot_read_and_goes_on_from_rank_0s_files(tmp_path):
    """Rank 1 has no files of its own, as on another machine: what it resumes from comes from rank 0."""
    first, second = two_processes(tmp_path, TRAINING + """
    config = TrainingConfig(epochs=3, batch_pieces=6, learning_rate=1e-2, warmup_epochs=1.0, tensorboard=False,
                            device="cpu", steps_per_micro_batch=200)
    def trained(folder, config=config):
        where = out / folder if rank == 0 else out / "never"
        result = train("mt_pcs", cohort.aligned, cohort.store, cohort.scaler, cohort.splits, dict(TINY_MODEL), config,
                       where)
        return [row["loss"] for row in result.epochs]
    tried(lambda: trained("whole"))
    load, calls = PieceSource.load, []
    def breaking(self, group, items, epoch):
        if rank == 1 and epoch == 1:
            failing(StoreError("the disk of rank 1 is gone"))
        return load(self, group, items, epoch)
    PieceSource.load = breaking
    tried(lambda: trained("cut"))
    PieceSource.load = load
    tried(lambda: trained("cut"))
    save = loop.save_resume
    loop.save_resume = lambda *rest: failing(StoreError("the disk of rank 0 is full"))
    tried(lambda: trained("full"))
    loop.save_resume = save
    tried(lambda: trained("cut", replace(config, seed=1)))
    said.append((out / "never").exists())
    """)  # fmt: skip
    assert len(first[0]) == 3
    assert first[0] == second[0] == first[2] == second[2]
    assert first[1][0] == "OtherRankError"
    assert second[1] == ["StoreError", "the disk of rank 1 is gone"]
    assert first[3] == second[3] == ["StoreError", "the disk of rank 0 is full"]
    assert first[4][0] == second[4][0] == "OtherRunError"
    assert first[5] is second[5] is False


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_torchrun_trains_over_a_finished_run_and_loses_nothing(tmp_path):
    """The command that hung (issue 13): the earlier run is set aside once, the new one is finished, and told once."""
    command = [sys.executable, "-m", "pipeline"]
    where = ["--experiment", "tiny", "--artifacts", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}

    def run(*arguments):
        done = subprocess.run(
            arguments, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    for stage in ("cohort", "catalog", "embed", "labs", "split", "normalize", "align"):
        run(*command, stage, *where)
    train = ["train", *where, "--method", "mt_pcs"]
    run(*command, *train)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    folder = tmp_path / "tiny" / "checkpoints" / "mt_pcs"
    earlier = (folder / "seed0" / "metrics.jsonl").read_bytes()
    said = run(*torchrun, "pipeline", *train, "--set", "training.epochs=3")
    assert said.count("train_mt_pcs:") == 1
    assert (folder / "previous" / "seed0" / "metrics.jsonl").read_bytes() == earlier
    together = losses(folder)
    assert len(together) == 3
    again = run(*torchrun, "pipeline", *train, "--set", "training.epochs=3").splitlines()
    assert [line for line in again if "nothing to do" not in line] == said.splitlines()
    assert len(again) == len(said.splitlines()) + 1, "it says that it is finished"
    run(*command, *train)
    run(*command, *train, "--set", "training.epochs=3")
    assert losses(folder) == pytest.approx(together, abs=1e-6)
    assert len(list((folder / "previous").iterdir())) == 3


def losses(folder: Path) -> list[float]:
    return [
        json.loads(line)["loss"] for line in (folder / "seed0" / "metrics.jsonl").read_text().splitlines()
    ]


def test_alone_there_is_nobody_to_wait_for():
    with joined_ranks() as ranks:
        assert ranks == Ranks()
        with pytest.raises(ZeroDivisionError), ranks.in_step():
            _ = 1 / 0
        assert ranks.from_first(lambda: b"x") == b"x"
        assert ranks.least(3) == 3


def test_what_an_earlier_launch_left_in_the_shell_is_one_clear_error(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        ConfigError, match=r"WORLD_SIZE = 2 .* MASTER_ADDR and MASTER_PORT is not set: .* unset"
    ):
        joined_ranks().__enter__()


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that there are two GPUs; returns those that were made current."""
    current = []
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


@pytest.mark.parametrize(("name", "rank", "processes", "number"), [
    ("auto", 0, 1, 0), ("auto", 1, 2, 1), ("cuda", 1, 2, 1), ("cuda:1", 0, 1, 1),
])  # fmt: skip
def test_each_process_takes_its_own_gpu(gpus, monkeypatch, name, rank, processes, number):
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    assert pick_device(name) == torch.device("cuda", number)
    assert gpus == [torch.device("cuda", number)]


@pytest.mark.parametrize(("name", "rank", "processes", "message"), [
    ("auto", 2, 3, "at most 2 processes"), ("cuda:2", 0, 1, "sees 2"), ("cuda:1", 1, 2, 'leave it "auto"'),
    ("gpu", 0, 1, "cuda:N"), ("meta", 0, 1, "cuda:N"), ("cuda:x", 0, 1, "cuda:N"),
])  # fmt: skip
def test_a_device_that_is_not_there_is_one_clear_error(gpus, monkeypatch, name, rank, processes, message):
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    with pytest.raises(ConfigError, match=message):
        pick_device(name)
    assert gpus == []


def test_a_gpu_without_driver_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="sees no GPU"):
        pick_device("cuda")
    assert pick_device("auto") == torch.device("cpu")


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no two CUDA devices")
def test_two_gpus_train_as_one(tmp_path):
    first, second = two_processes(tmp_path, TRAINING + """
    config = TrainingConfig(epochs=2, batch_pieces=6, learning_rate=1e-2, warmup_epochs=1.0, tensorboard=False,
                            steps_per_micro_batch=200, amp=False)
    def trained(folder, device):
        shape = dict(TINY_MODEL) | {"dropout": 0.0}
        result = train("mt_pcs", cohort.aligned, cohort.store, cohort.scaler, cohort.splits, shape,
                       replace(config, device=device), out / folder)
        return [row["loss"] for row in result.epochs]
    tried(lambda: trained("gpus", "auto"))
    tried(lambda: trained("cpus", "cpu"))
    """, LOCAL_WORLD_SIZE="2")  # fmt: skip
    assert first[0] == second[0]
    assert first[0] == pytest.approx(first[1], rel=1e-4)
