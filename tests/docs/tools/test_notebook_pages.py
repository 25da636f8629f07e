"""A stored notebook becomes a page with its text, code, tables and pictures."""

import base64

from docs.tools.notebook_pages import page


def cell(source: str, *outputs: dict) -> dict:
    return {"cell_type": "code", "source": source, "outputs": list(outputs)}


def stream(text: str) -> dict:
    return {"output_type": "stream", "name": "stdout", "text": text}


def data(**kinds: str) -> dict:
    return {
        "output_type": "display_data",
        "data": {name.replace("_", "/"): value for name, value in kinds.items()},
    }


def test_text_code_and_output_stand_in_order() -> None:
    notebook = {"cells": [{"cell_type": "markdown", "source": ["# Head\n", "prose"]},
                          cell("print(1)", stream("\x1b[31m1\x1b[0m\n")), cell("%%bash\nmake test")]}  # fmt: skip
    text, pictures = page(notebook, "name")
    assert text.startswith("# Head\nprose\n")
    assert "```python\nprint(1)\n```" in text
    assert "\n1\n```" in text
    assert "```bash\nmake test\n```" in text
    assert text.index("print(1)") < text.index("make test")
    assert 'href="name.ipynb" download' in text
    assert pictures == {}


def test_pictures_lie_beside_and_tables_stay() -> None:
    png = base64.b64encode(b"png").decode()
    shown = [
        data(image_png=png, text_plain="left out"),
        data(text_html="<table></table>", text_plain="left out"),
    ]
    text, pictures = page({"cells": [cell("draw()", *shown)]}, "name")
    assert pictures == {"name-1.png": b"png"}
    assert "![](name-1.png)" in text
    assert "<table></table>" in text
    assert "left out" not in text


def test_a_fence_in_an_output_does_not_end_it() -> None:
    text, _ = page({"cells": [cell("show()", stream("```\ninside\n"))]}, "name")
    assert text.count("````") == 2
