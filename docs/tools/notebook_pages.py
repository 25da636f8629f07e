"""A stored notebook as a page: its text, its code, and the outputs that are stored with it.

An own converter of a page of code, since mkdocs-jupyter brings nbconvert, jupytext and some forty packages into the
environment of everybody who runs ``make check``, and frames pages in a style of its own.
"""

import base64
import json
import re
from pathlib import Path
from typing import Any

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
PICTURES = {"image/svg+xml": "svg", "image/png": "png"}
LANGUAGES = {"%%bash": "bash"}
"""Language of a cell by the magic word of its first line, which the page leaves out."""


def page(notebook: dict[str, Any], name: str) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as Markdown, and its pictures by file name.

    Parameters
    ----------
    notebook : as nbformat 4 stores it
    name : of its file, without the ending
    """
    lines: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        source = joined(cell["source"])
        if cell["cell_type"] == "markdown":
            lines += [source, ""]
        elif cell["cell_type"] == "code":
            lines += [*_code(source), ""]
            for output in cell["outputs"]:
                lines += [*_shown(output, name, pictures), ""]
    download = f'<p><a href="{name}.ipynb" download>The notebook, with its outputs</a></p>'
    return "\n".join([*lines, download, ""]), pictures


def read(path: Path) -> dict[str, Any]:
    """Return a notebook's content."""
    return json.loads(path.read_text())


def joined(text: str | list[str]) -> str:
    """Return a field that nbformat stores as a string or as its lines."""
    return text if isinstance(text, str) else "".join(text)


def output_text(output: dict[str, Any]) -> str:
    """Return what one output says in plain text, without colours."""
    if output["output_type"] == "stream":
        return COLOUR.sub("", joined(output["text"]))
    return joined(output.get("data", {}).get("text/plain", ""))


def _code(source: str) -> list[str]:
    first, _, rest = source.partition("\n")
    language = LANGUAGES.get(first.strip())
    return [f"```{language or 'python'}", rest if language else source, "```"]


def _shown(output: dict[str, Any], name: str, pictures: dict[str, bytes]) -> list[str]:
    """Return the lines that show one output: a picture, a table, or text."""
    data = output.get("data", {})
    for kind, ending in PICTURES.items():
        if kind in data:
            file = f"{name}-{len(pictures) + 1}.{ending}"
            content = joined(data[kind])
            pictures[file] = base64.b64decode(content) if ending == "png" else content.encode()
            return [f"![]({file}){{ .output }}"]
    if "text/html" in data:
        return ['<div class="output table" markdown="0">', joined(data["text/html"]), "</div>"]
    text = output_text(output).rstrip("\n")
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0))
    return [f"{fence} {{ .text .output .no-copy }}", text, fence] if text else []
