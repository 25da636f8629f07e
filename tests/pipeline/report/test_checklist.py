import re

from pipeline.report.checklist import checklist, checklist_items
from pipeline.report.rendering import render_page

SECTIONS = {
    "summary", "table1", "skill", "added", "made-of", "delays", "trajectories", "data", "learning", "agreement",
    "glucose", "calibration", "alarms", "subgroups", "limits", "all", "paper", "card", "glossary",
}  # fmt: skip


def test_every_item_of_the_statement_is_there_once_and_answered() -> None:
    """27 items, 52 with their parts. Source: BMJ 2024;385:e078378."""
    table = checklist_items()
    assert len(table) == table["item"].nunique() == 52
    assert {int(re.match(r"\d+", item).group()) for item in table["item"]} == set(range(1, 28))
    assert (table["asks"] != "").all()
    assert (table["answer"] != "").all()
    assert set(" ".join(table["where"]).split()) <= SECTIONS


def test_links_lead_to_sections_that_are_there_alone() -> None:
    body = render_page("section.html.jinja", section=checklist(["data", "card"]))
    assert set(re.findall(r'href="#([^"]+)"', body)) == {"data", "card"}
    assert "(not in this run)" in body
    assert "(not in this run)" not in render_page("section.html.jinja", section=checklist(sorted(SECTIONS)))
