"""Links between files of the repository lead to pages of the site."""

from pathlib import Path

import pytest

from docs.tools.links import site_links

PLACES = {"README.md": "project/readme.md", "docs/operations.md": "operations.md", "docs/a/b.md": "a/b.md"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "code.py").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("file", "page", "link", "moved"),
    [
        ("README.md", "project/readme.md", "[a](docs/operations.md#x)", "[a](../operations.md#x)"),
        ("docs/a/b.md", "a/b.md", "[r](../../README.md)", "[r](../project/readme.md)"),
        ("docs/a/b.md", "a/b.md", "![o](../operations.md)", "![o](../operations.md)"),
        ("docs/a/b.md", "a/b.md", "[h](#here) [w](https://e.org/x)", "[h](#here) [w](https://e.org/x)"),
        ("README.md", "project/readme.md", "see [the code](pipeline/code.py).", "see the code."),
        ("README.md", "project/readme.md", "[gone](docs/gone.md)", "[gone](docs/gone.md)"),
        ("README.md", "project/readme.md", "```\n[c](README.md)\n```\n", "```\n[c](README.md)\n```\n"),
    ],
)
def test_a_link_is_moved(file: str, page: str, link: str, moved: str, root: Path) -> None:
    assert site_links(link, file, page, PLACES, root) == moved
