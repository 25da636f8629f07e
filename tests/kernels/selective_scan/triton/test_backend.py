"""The GPU kernels: in Triton's interpreter, compiled ahead of time, and on a GPU where there is one."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")
HERE = Path(__file__).parent
BUDGET = {
    # Measured on Triton 3.7.1, sm_80 to sm_100, 17 and 64 states, with some room.
    "summarize_chunks": 80, "write_chunks": 88, "summarize_adjoints": 96, "pass_over_chunks": 128,
    "differentiate_chunks": 255, "convolve": 72, "differentiate_filter": 120, "spread": 56,
    # The second design, up to 16 states; `write` takes all for two groups of 33 channels that end anywhere (sm_90),
    # `finish` 94 for programs of one warp (sm_80).
    "summarize": 176, "carry": 80, "write": 255, "summarize_back": 192, "differentiate": 255, "finish": 104,
}  # fmt: skip
SPILLS = {"differentiate": 128}
"""Accesses to registers that did not fit; none elsewhere. `differentiate` holds the states and decays of four steps,
128 registers, beside 48 of A, its gradient and the adjoint: what does not fit is read or written a few times a step, of
some 500 instructions (README has the counts)."""
FAST = {
    "summarize",
    "carry",
    "write",
    "summarize_back",
    "differentiate",
    "finish",
    "convolve",
    "differentiate_filter",
    "spread",
}
SHARED_BYTES = 4096


def load(name):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CHECKS = load("checks").checks("cuda", large=True)


def in_process(script, *arguments, **environment):
    command = [sys.executable, "-W", "ignore", str(HERE / script), *arguments]
    root = str(HERE.parents[3])
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": root, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Fresh, and shared: what the fast test compiled, the slow ones find."""
    return tmp_path_factory.mktemp("triton")


@pytest.mark.timeout(900)  # of some 200 seconds on a core of its own
def test_interpreted_kernels_agree_with_the_reference(tmp_path):
    report = json.loads(in_process("interpret.py", TRITON_INTERPRET="1", XDG_CACHE_HOME=str(tmp_path)))
    assert len(report) > 20
    assert all(error is None for error in report.values()), report


@pytest.mark.parametrize("arguments", [
    ("90",),
    *(pytest.param((sm, "all"), marks=[pytest.mark.slow, pytest.mark.timeout(1200)]) for sm in ("80", "90", "100")),
], ids="-".join)  # fmt: skip
def test_compiles_ahead_of_time_within_budget(arguments, compiled):
    environment = {"TRITON_CACHE_DIR": str(compiled), "TRITON_INTERPRET": "0"}
    report = json.loads(in_process("compile_ahead.py", *arguments, **environment))
    assert {name.split()[0] for name in report} == (set(BUDGET) if "all" in arguments else FAST)
    for name, used in report.items():
        assert used["spills"] <= SPILLS.get(name.split()[0], 0), (name, used)
        assert used["registers"] <= BUDGET[name.split()[0]], (name, used)
        assert used["shared"] <= SHARED_BYTES, (name, used)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", CHECKS)
def test_on_a_gpu(name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    CHECKS[name]()
