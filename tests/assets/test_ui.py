"""One Ctrl-C ends Dagster, its code server, its daemon and what they started, within 10 s."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from assets.ui import GROUPS, end_session, open_groups, session_members

ROOT = Path(__file__).parents[2]
STUBBORN = (
    "import signal, subprocess, sys, time\n"
    "for n in (signal.SIGINT, signal.SIGTERM): signal.signal(n, signal.SIG_IGN)\n"
)


def test_the_lineage_opens_with_every_group() -> None:
    address = open_groups(3000)
    assert address.startswith("http://127.0.0.1:3000/asset-groups?expanded=")
    assert all(f"global@global:{group}" in address for group in GROUPS)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="sessions are read from /proc")
def test_a_child_that_ignores_every_request_is_ended_with_its_own_children(monkeypatch) -> None:
    monkeypatch.setattr("assets.ui.GENTLE_SECONDS", 0.5)
    monkeypatch.setattr("assets.ui.FIRM_SECONDS", 0.5)
    inner = f"{STUBBORN}time.sleep(600)"
    script = f"{STUBBORN}subprocess.Popen([sys.executable, '-c', {inner!r}])\nprint('up', flush=True)\ntime.sleep(600)"
    leader = subprocess.Popen([sys.executable, "-c", script], start_new_session=True, stdout=subprocess.PIPE)
    assert leader.stdout is not None
    assert leader.stdout.readline() == b"up\n"
    assert len(session_members(leader.pid)) == 2
    end_session(leader)
    assert session_members(leader.pid) == []
    assert leader.poll() is not None
    leader.stdout.close()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_one_ctrl_c_ends_everything_within_10_s(tmp_path: Path, ports: tuple[int, int]) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text((ROOT / "scripts" / "dagster.yaml").read_text())
    port, port_of_pages = ports
    environment = os.environ | {
        "DAGSTER_HOME": str(home), "UNIPHY_PAGES_PORT": str(port_of_pages), "UNIPHY_ARTIFACTS": str(tmp_path),
        "UNIPHY_EXPERIMENT": "tiny", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    environment.pop("DAGSTER_MODULE_NAME", None)
    command = f"import sys; from assets.ui import run_ui; sys.exit(run_ui({port}))"
    with (tmp_path / "ui.log").open("wb") as log:
        face = subprocess.Popen(
            [sys.executable, "-c", command],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            end = time.monotonic() + 300
            while not _answers(port):
                assert time.monotonic() < end, "Dagster is not ready"
                time.sleep(1)
            dagster = _child(face.pid)
            assert len(session_members(dagster)) >= 3  # itself, the web server, the daemon or a code server
            began = time.monotonic()
            face.send_signal(signal.SIGINT)
            assert face.wait(30) == 0
            assert time.monotonic() - began < 10
            assert session_members(dagster) == []
            assert not _answers(port)
        finally:
            for pid in session_members(face.pid):
                os.kill(pid, signal.SIGKILL)
            face.wait(10)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
