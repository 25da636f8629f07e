"""TRIPOD+AI, filled in: where the report answers each item of the checklist."""

from collections.abc import Sequence
from functools import cache
from importlib import resources

import pandas as pd

from pipeline.report.document import Cell, Link, Row, Section, Table, Words

SOURCE = (
    "TRIPOD+AI: Collins et al., BMJ 2024;385:e078378 (CC BY 4.0). The items are in our words; the answers are this "
    "run's. Where no section is named, the answer is all there is."
)


def checklist(anchors: Sequence[str]) -> Section:
    """Return the checklist with links into the report.

    Parameters
    ----------
    anchors : of the sections that this report has
    """
    rows: list[Row] = []
    part = ""
    for item in checklist_items().to_dict(orient="records"):
        if item["part"] != part:
            part = item["part"]
            rows.append(Row(cells=[part], kind="group"))
        links = [Link(anchor=name, text=name) for name in item["where"].split() if name in anchors]
        missing = bool(item["where"]) and not links
        answer = f"{item['answer']} (not in this run)" if missing else item["answer"]
        rows.append(Row(cells=[item["item"], item["asks"], answer, Cell(links=links)]))
    table = Table(columns=["item", "asks for", "here", "where"], rows=rows, text_columns=(0, 1, 2, 3),
                  folded="The checklist, item by item")  # fmt: skip
    return Section(
        anchor="tripod", title="TRIPOD+AI checklist", blocks=[table, Words(text=SOURCE, kind="note")]
    )


@cache
def checklist_items() -> pd.DataFrame:
    """Return ``item, part, asks, where, answer`` as shipped, all text."""
    with (resources.files("pipeline.report") / "data" / "tripod_ai.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, comment="#", dtype=str, keep_default_na=False)
