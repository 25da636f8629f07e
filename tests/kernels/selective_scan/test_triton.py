"""The GPU kernels: in Triton's interpreter, compiled ahead of time, and on a GPU where there is one."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from kernels.selective_scan import selective_scan
from kernels.testing import ScanCase, assert_close, make_inputs, outputs_and_gradients, widen

pytest.importorskip("triton")
HERE = Path(__file__).parent
BUDGET = {
    # Measured on Triton 3.7.1, sm_90, 16 and 64 states, with some room for other GPUs; nothing may spill.
    "summarize_chunks": 80, "write_chunks": 88, "summarize_adjoints": 80, "pass_over_chunks": 80,
    "differentiate_chunks": 255, "filter_tile": 168, "spread_tile": 80,
}  # fmt: skip
SHARED_BYTES = 4096


def in_process(script, *arguments, **environment):
    command = [sys.executable, "-W", "ignore", str(HERE / script), *arguments]
    root = str(HERE.parents[2])
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


def test_interpreted_kernels_agree_with_the_reference():
    report = json.loads(in_process("interpret.py", TRITON_INTERPRET="1"))
    assert report
    assert all(error is None for error in report.values()), report


@pytest.mark.parametrize("arguments", [
    ("90",),
    *(pytest.param((sm, "all"), marks=[pytest.mark.slow, pytest.mark.timeout(1200)]) for sm in ("80", "90", "100")),
], ids="-".join)  # fmt: skip
def test_compiles_ahead_of_time_within_budget(arguments, compiled):
    environment = {"TRITON_CACHE_DIR": str(compiled), "TRITON_INTERPRET": "0"}
    report = json.loads(in_process("compile_ahead.py", *arguments, **environment))
    assert {name.split()[0] for name in report} == set(BUDGET)
    for name, used in report.items():
        assert used["spills"] == 0, name
        assert used["registers"] <= BUDGET[name.split()[0]], (name, used)
        assert used["shared"] <= SHARED_BYTES, (name, used)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("lengths", [None, (1000, 0, 63, 1)])
def test_gpu_agrees_with_the_reference(dtype, lengths):
    case = ScanCase(
        batch=2 if lengths is None else 1, lengths=lengths, length=500 if lengths is None else sum(lengths),
        channels=70, state=16, groups=2, dtype=dtype, mask=True,
    )  # fmt: skip
    scan = partial(selective_scan, return_last_state=True)
    truth = outputs_and_gradients(partial(scan, backend="reference"), widen(make_inputs(case)))
    ours = outputs_and_gradients(partial(scan, backend="triton"), make_inputs(case, device="cuda"))
    assert_close(ours, truth, dtype)
