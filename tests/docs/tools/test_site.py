"""The site is built by the command that README gives, is whole, and loads nothing from elsewhere."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs.tools.hooks import OUTSIDE, ROOT

LOADS = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=[\"']?(?P<src>(?:https?:)?//[^\"'> ]+)"
    r"|<link\b[^>]*\bhref=[\"']?(?P<href>(?:https?:)?//[^\"'> ]+)",
    re.IGNORECASE,
)
STYLE_LOADS = re.compile(r"@import|url\([\"']?(?:https?:)?//")
FIVE_MINUTES = 300


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as ``make docs`` does, where no server can be reached."""
    folder = tmp_path_factory.mktemp("site")
    nowhere = {
        name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    }
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**environment(), **nowhere},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}


@pytest.mark.slow
@pytest.mark.timeout(FIVE_MINUTES)
def test_the_site_is_built_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages, styles = list(site.rglob("*.html")), list(site.rglob("*.css"))
    assert len(pages) > 50
    assert [(str(page), load) for page in pages for load in LOADS.findall(page.read_text())] == []
    assert [str(style) for style in styles if STYLE_LOADS.search(style.read_text())] == []


@pytest.mark.slow
@pytest.mark.timeout(FIVE_MINUTES)
def test_pages_made_from_faces_notebooks_and_files_outside_are_there(site: Path) -> None:
    for page in OUTSIDE.values():
        assert (site / page).with_suffix(".html").exists()
    scan = (site / "api" / "kernels.selective_scan.html").read_text()
    assert "The state before the first step" in scan
    assert "sequences, channels, state" in scan
    demo = (site / "tutorials" / "demo.html").read_text()
    assert "demo-1.svg" in demo
    assert (site / "tutorials" / "demo-1.svg").stat().st_size > 5_000
    assert (site / "tutorials" / "demo.ipynb").exists()
    assert 'href="demo.html"' in (site / "tutorials" / "index.html").read_text(), "the page, not the file"
    assert not (site / "tools").exists()


@pytest.mark.slow
@pytest.mark.timeout(FIVE_MINUTES)
@pytest.mark.parametrize(
    "link", ["[x](absent.md)", "[x](operations.md#no-such-head)", "[x](../pipeline/absent.py)"]
)
def test_a_link_to_nothing_fails_the_build(tmp_path: Path, link: str) -> None:
    copy = tmp_path / "copy"
    for name in ("docs", "pipeline", "models", "kernels"):
        shutil.copytree(
            ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.safetensors")
        )
    for name in ("mkdocs.yml", "pyproject.toml", *(name for name in OUTSIDE if "/" not in name)):
        shutil.copy(ROOT / name, copy / name)
    page = copy / "docs" / "rehearsal.md"
    page.write_text(f"{page.read_text()}\n{link}\n")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path / "site")],
        cwd=copy, capture_output=True, text=True, check=False, env={**environment(), "PYTHONPATH": str(copy)},
    )  # fmt: skip
    assert done.returncode != 0
    assert "rehearsal.md" in done.stderr


def test_what_loads_is_recognised() -> None:
    for line in (
        '<script defer src="https://e.org/x.js">',
        "<link rel=x href=//e.org/x.css>",
        '<img src="http://e/x">',
    ):
        assert LOADS.search(line)
    assert not LOADS.search('<a href="https://e.org">')
    assert STYLE_LOADS.search("@font-face{src:url(https://e.org/f.woff)}")
