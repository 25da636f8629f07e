"""The report's pages at this machine's own address, so that Dagster can link to them: no page may open a file.

Only the two pages of an experiment's folder are served, only to this machine, and only while ``make ui`` runs.
"""

import os
import re
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pipeline.foundation.errors import ConfigError
from pipeline.foundation.workspace import Workspace

PORT_VARIABLE = "UNIPHY_PAGES_PORT"
USUAL_PORT = 3001
HOST = "127.0.0.1"
PAGES = ("report.html", "summary.html")
_PATH = re.compile(r"/(?P<experiment>[A-Za-z0-9][A-Za-z0-9_.-]{0,63})/(?P<page>[a-z]+\.html)")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def pages_port() -> int:
    """Return the port of the pages.

    Raises
    ------
    ConfigError : ``UNIPHY_PAGES_PORT`` is no port
    """
    told = os.environ.get(PORT_VARIABLE) or str(USUAL_PORT)
    if not told.isdecimal() or not 0 < int(told) < 65536:
        raise ConfigError(
            f"{PORT_VARIABLE} is {told!r}: give a port, 1 to 65535, or leave it out ({USUAL_PORT})."
        )
    return int(told)


def links(workspace: Workspace) -> dict[str, str]:
    """Return the address of each page that is there, by what it opens; none for folders that are not served."""
    if workspace.root.parent != _served():
        return {}
    there = {"report": workspace.report, "one page to print": workspace.one_page}
    base = f"http://{HOST}:{pages_port()}/{workspace.root.name}"
    return {f"open the {what}": f"{base}/{path.name}" for what, path in there.items() if path.exists()}


def page_server(port: int) -> ThreadingHTTPServer:
    """Return the server of the pages, bound and not yet serving.

    Raises
    ------
    ConfigError : something else listens on the port
    """
    try:
        return ThreadingHTTPServer((HOST, port), _Pages)
    except OSError as error:
        raise ConfigError(
            f"port {port}, for the report's pages, is taken ({error.strerror}): set {PORT_VARIABLE} to a free one."
        ) from None


def _served() -> Path:
    return Workspace.from_environment("any").root.parent


class _Pages(BaseHTTPRequestHandler):
    """Answers GET /<experiment>/<page> and nothing else."""

    server_version, sys_version = "uniphy-lab", ""

    def do_GET(self) -> None:
        """Send one page."""
        page = self._page()
        if page is None:
            self.send_error(HTTPStatus.NOT_FOUND, "no such page")
            return
        content = page.read_bytes()
        self.send_response(HTTPStatus.OK)
        for name, value in (
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(content))),
            ("Content-Security-Policy", _POLICY),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _page(self) -> Path | None:
        """Return the file that is asked for; None for another one, and for a page that another site's name leads to."""
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
        asked = _PATH.fullmatch(self.path)
        if host not in (HOST, "localhost") or asked is None or asked["page"] not in PAGES:
            return None
        path = _served() / asked["experiment"] / asked["page"]
        return path if path.is_file() else None

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the terminal belongs to Dagster."""
