"""Types and shapes hold at every call of a whole job: `make test` leaves these checks out where whole jobs run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHECKED = """
import sys
from jaxtyping import install_import_hook
install_import_hook(["pipeline", "models"], "beartype.beartype")  # for good: stages import inside their functions
from pipeline.__main__ import main
sys.exit(main(["all", "--experiment", "tiny", "--artifacts", sys.argv[1]]))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_whole_job_under_runtime_type_checks(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHECKED, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "tiny" / "report.html").exists()
