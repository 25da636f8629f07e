"""Each room has a page with every name that its face lists, read from the source."""

import importlib
from pathlib import Path

import pytest

from docs.tools.api_pages import page, pages, read_face, rooms

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("room", rooms(ROOT))
def test_every_public_name_of_a_room_is_on_its_page(room: str) -> None:
    _, text = pages(ROOT)[f"api/{room}.md"]
    shown = {line.split(".")[-1] for line in text.splitlines() if line.startswith("::: ")}
    assert shown == set(importlib.import_module(room).__all__)
    assert all(f"<dt>{word}</dt>" in text for word in ("In", "Out", "Never"))


def test_rooms_come_as_data_walk_through_them() -> None:
    order = rooms(ROOT)
    assert order.index("pipeline.sources") < order.index("pipeline.cohort") < order.index("pipeline.report")
    assert {"pipeline.sources.wfdb", "models.encoders", "models.regressor", "models.assimilation"} <= set(
        order
    )
    assert "kernels.selective_scan" in order
    assert not any("testing" in room for room in order)


def test_a_new_name_appears_by_itself(tmp_path: Path) -> None:
    face = tmp_path / "__init__.py"
    face.write_text(
        '"""Shops.\n\nIn: money,\n    of any kind.\nOut: goods.\nNever: credit.\n"""\n'
        "import lazy_loader\nfrom town.shop.till import count\nfrom elsewhere import other\n"
        '_ = lazy_loader.attach(__name__, submodules=["clerks"], submod_attrs={"goods": ["NEW"]})\n'
    )
    read = read_face(face, "town.shop")
    assert read.names == {"": ["clerks"], "goods": ["NEW"], "till": ["count"]}
    assert read.offers == {"In": "money, of any kind.", "Out": "goods.", "Never": "credit."}
    text = page(read)
    assert "::: town.shop.goods.NEW" in text
    assert "::: town.shop.clerks\n" in text
    assert "elsewhere" not in text
