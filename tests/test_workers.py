"""How `make test` shares tests out: a file's fixtures are made once, and so are those of a folder like tests/e2e."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
MAKEFILE = (HERE.parent / "Makefile").read_text()
TESTS = """
import os
import pytest

@pytest.mark.parametrize("number", range(4))
def test_it(number):
    with open({told!r}, "a") as file:
        file.write(__file__.split(os.sep)[-2] + " " + os.path.basename(__file__) + " "
                   + os.environ["PYTEST_XDIST_WORKER"] + chr(10))
"""


def test_one_worker_takes_a_whole_file_and_all_of_e2e(tmp_path: Path) -> None:
    options = re.findall(r"-m pytest (-n 2 .*?) -m ", MAKEFILE)
    assert len(options) == 1
    told = tmp_path / "told"
    shutil.copytree(HERE, tmp_path / "tests", ignore=lambda _, names: set(names) - {"conftest.py"})
    for folder, files in (("e2e", "abcd"), ("models", "ef")):
        (tmp_path / "tests" / folder).mkdir(exist_ok=True)
        for name in files:
            (tmp_path / "tests" / folder / f"test_{name}.py").write_text(TESTS.format(told=str(told)))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options[0].split(), "-p", "xdist.plugin", "-p", "no:cacheprovider", "-q",
         "-c", os.devnull, "--rootdir", ".", "tests"],
        cwd=tmp_path, env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, capture_output=True, text=True,
        check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in told.read_text().splitlines()]
    assert len(rows) == 24
    assert len({worker for folder, _, worker in rows if folder == "e2e"}) == 1
    for file in {file for _, file, _ in rows}:
        assert len({worker for _, name, worker in rows if name == file}) == 1
    assert len({worker for *_, worker in rows}) == 2
