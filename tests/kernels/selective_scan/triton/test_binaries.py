"""The short way to the launcher, which every call but the first goes: it gives what Triton's own way gives."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
HERE = Path(__file__).parent
KERNELS = ["summarize", "carry", "write", "summarize_back", "carry", "differentiate", "finish"]


@pytest.mark.skipif(shutil.which("cc") is None, reason="the driver that does nothing needs a C compiler")
def test_a_launch_by_the_short_way_has_the_arguments_of_tritons_own(tmp_path):
    environment = {
        "PYTHONPATH": str(HERE.parents[3]),
        "TRITON_CACHE_DIR": str(tmp_path),
        "TRITON_INTERPRET": "0",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(HERE / "launches.py")], env={**os.environ, **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    for name, found in report.items():
        assert found["differences"] == [], name
        if name.startswith("convolution"):
            assert found["kernels"] == ["convolve", "differentiate_filter", "spread"], name
            continue
        expected = KERNELS if name != "not cut" else ["write", "differentiate", "finish"]
        assert found["kernels"] == expected, name
        assert found["later_parts"], name
        assert bool(found["parameters"]) == (name == "parameters"), name
