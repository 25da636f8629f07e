"""MkDocs' hooks: pages that are made while the site is built, and links that lead to them."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docs.tools import api_pages, notebook_pages
from docs.tools.links import site_links

ROOT = Path(__file__).parents[2]
OUTSIDE = {
    "README.md": "project/readme.md",
    "ARCHITECTURE.md": "project/architecture.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "kernels/selective_scan/README.md": "project/selective_scan.md",
    "models/encoders/weights/README.md": "project/weights.md",
}
"""Pages of the site that stand elsewhere in the repository, and where."""
FROM_OUTSIDE = {page: file for file, page in OUTSIDE.items()}
API = "API"
"""The navigation's entry below which the rooms go."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Hang the rooms' pages into the navigation, each layer below a head of its own."""
    layers: dict[str, list[dict[str, str]]] = {}
    for room in api_pages.rooms(ROOT):
        layer, _, name = room.partition(".")
        layers.setdefault(layer, []).append({name: f"api/{room}.md"})
    for entry in config.nav or []:
        if API in entry:
            entry[API] = [*entry[API], *({layer: pages} for layer, pages in layers.items())]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages made from faces, from notebooks and from files outside docs/."""
    for path, (_, text) in api_pages.pages(ROOT).items():
        files.append(File.generated(config, path, content=text))
    for file, path in OUTSIDE.items():
        files.append(File.generated(config, path, content=(ROOT / file).read_text()))
    for notebook in sorted(Path(config.docs_dir, "tutorials").glob("*.ipynb")):
        text, pictures = notebook_pages.page(notebook_pages.read(notebook), notebook.stem)
        files.append(File.generated(config, f"tutorials/{notebook.stem}.md", content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, f"tutorials/{name}", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages."""
    path = page.file.src_uri
    places = {f"docs/{file.src_uri}": _page_of(file.src_uri) for file in files} | OUTSIDE
    return site_links(markdown, FROM_OUTSIDE.get(path, f"docs/{path}"), path, places, ROOT)


def _page_of(path: str) -> str:
    """Return where a link to a file leads: of a notebook to its page."""
    return path.removesuffix(".ipynb") + ".md" if path.endswith(".ipynb") else path
