"""The method page's figures are what its script draws."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs.tools.figures import FIGURES, IMAGES, whole_file, write

NUMBER = re.compile(r"-?\d+\.?\d*(?:e-?\d+)?")


@pytest.mark.parametrize("name", FIGURES)
def test_a_stored_figure_is_what_is_drawn(name: str) -> None:
    stored, drawn = (IMAGES / f"{name}.svg").read_text(), whole_file(FIGURES[name]())
    assert NUMBER.sub("#", stored) == NUMBER.sub("#", drawn), "python -m docs.tools.figures"
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (stored, drawn)]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.05)


def test_each_is_a_whole_file_that_loads_nothing(tmp_path: Path) -> None:
    write(tmp_path)
    for path in tmp_path.glob("*.svg"):
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
        assert not re.search(r"(?:href|src)=\"https?:", path.read_text())
    assert len(list(tmp_path.glob("*.svg"))) == len(FIGURES)
