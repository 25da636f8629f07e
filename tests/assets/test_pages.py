"""The report's pages: two names, this machine, nothing else."""

import http.client
import threading
from collections.abc import Iterator

import pytest

from assets.pages import HOST, PORT_VARIABLE, links, page_server, pages_port
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.workspace import Workspace


@pytest.fixture
def port(tmp_path, monkeypatch) -> Iterator[int]:
    monkeypatch.setenv("UNIPHY_ARTIFACTS", str(tmp_path))
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "report.html").write_text("<h1>whole</h1>")
    (tmp_path / "demo" / "splits.json").write_text("{}")
    (tmp_path / "secret.html").write_text("no")
    server = page_server(0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def asked(port: int, path: str, host: str = HOST) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    connection.request("GET", path, headers={"Host": host})
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_a_report_is_served_whole(port: int) -> None:
    assert asked(port, "/demo/report.html") == (200, b"<h1>whole</h1>")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/demo/splits.json",
        "/demo/summary.html",
        "/../secret.html",
        "/demo/../secret.html",
        "/demo/%2e%2e/secret.html",
        "/secret.html",
    ],
)
def test_nothing_else_is(port: int, path: str) -> None:
    assert asked(port, path)[0] == 404


def test_another_sites_name_for_this_machine_leads_nowhere(port: int) -> None:
    assert asked(port, "/demo/report.html", host="evil.example")[0] == 404
    assert asked(port, "/demo/report.html", host=f"localhost:{port}")[0] == 200


def test_links_are_of_pages_that_are_there_and_served(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("UNIPHY_ARTIFACTS", str(tmp_path))
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "report.html").write_text("x")
    assert links(Workspace.from_environment("demo")) == {
        "open the report": "http://127.0.0.1:3001/demo/report.html"
    }
    assert links(Workspace(root=tmp_path / "elsewhere" / "demo")) == {}


def test_a_port_that_is_none_or_taken_is_one_sentence(port: int, monkeypatch) -> None:
    with pytest.raises(ConfigError, match=f"port {port}, for the report's pages, is taken"):
        page_server(port)
    monkeypatch.setenv(PORT_VARIABLE, "http")
    with pytest.raises(ConfigError, match="UNIPHY_PAGES_PORT is 'http'"):
        pages_port()
