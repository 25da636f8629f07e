"""A real Dagster server with its daemon, for the slow tests."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
READY_SECONDS = 240.0


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running ``dagster dev`` and its folders."""

    url: str
    home: Path
    environment: dict[str, str]

    def ask(self, query: str) -> dict[str, Any]:
        """Ask the GraphQL interface."""
        request = urllib.request.Request(
            f"{self.url}/graphql",
            data=json.dumps({"query": query}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["data"]

    def runs(self) -> list[dict[str, Any]]:
        """Return all runs, newest first."""
        found = self.ask("{ runsOrError { ... on Runs { results { runId status jobName } } } }")
        return found["runsOrError"]["results"]

    def wait_until(self, happened: Callable[[], Any], what: str, seconds: float = READY_SECONDS) -> Any:
        """Return the first true answer of `happened`."""
        return wait_until(happened, what, seconds)

    def command(self, *words: str) -> str:
        """Run a Dagster command beside the server and return what it printed."""
        done = subprocess.run(
            words, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False, timeout=280
        )
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr[-3000:]}"
        return done.stdout


def wait_until(happened: Callable[[], Any], what: str, seconds: float = READY_SECONDS) -> Any:
    """Return the first true answer of `happened`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = happened()
        if answer:
            return answer
        time.sleep(1.0)
    pytest.fail(f"{what}: not within {seconds:.0f} s")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def ports() -> tuple[int, int]:
    """Give two free ports."""
    return free_port(), free_port()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/server_info", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Give a function that starts ``dagster dev``; everything it started ends with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**variables: str) -> Server:
        home = tmp_path / "home"
        home.mkdir()
        (home / "dagster.yaml").write_text((ROOT / "scripts" / "dagster.yaml").read_text())
        path = f"{ROOT / 'scripts' / 'bin'}:{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"
        environment = (
            os.environ | {"DAGSTER_HOME": str(home), "PATH": path, "OMP_NUM_THREADS": "1"} | variables
        )
        environment.pop("DAGSTER_MODULE_NAME", None)
        port = free_port()
        with (tmp_path / "server.log").open("wb") as log:
            process = subprocess.Popen(
                ["dagster", "dev", "-h", "127.0.0.1", "-p", str(port)],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # else SIGTERM is ignored and children stay
            )
        started.append(process)
        server = Server(url=f"http://127.0.0.1:{port}", home=home, environment=environment)
        wait_until(lambda: _answers(server.url), "dagster dev is ready")
        return server

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
