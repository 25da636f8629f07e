import pytest
from jinja2 import UndefinedError

from pipeline.report.document import Cell, Figure, Link, Row, Section, Table, Words
from pipeline.report.rendering import render_page, shown


def rendered(*blocks) -> str:
    return render_page("section.html.jinja", section=Section(anchor="a", title="A <title>", blocks=blocks))


def test_words_are_escaped_and_numbers_have_a_minus_sign() -> None:
    body = rendered(Words(text="<script>"), Table(columns=["x"], rows=[Row(cells=["-0.5"])]))
    assert "<script>" not in body
    assert "A &lt;title&gt;" in body
    assert '<td class="text">\N{MINUS SIGN}0.5</td>' in body
    assert shown("[-0.1, -2]") == "[\N{MINUS SIGN}0.1, \N{MINUS SIGN}2]"
    assert shown("(-1 to 34 %)") == "(\N{MINUS SIGN}1 to 34 %)"
    assert shown("8-12 h") == "8-12 h"
    assert shown("1 234 567 numbers, 5 labs") == "1\N{NO-BREAK SPACE}234\N{NO-BREAK SPACE}567 numbers, 5 labs"


def test_a_table_folds_spans_and_marks_the_best() -> None:
    table = Table(
        columns=["", "R2", "MAE"],
        spans=[("", 1), ("ours", 2)],
        rows=[
            Row(cells=["sodium"], kind="group"),
            Row(
                cells=[
                    "LOCF",
                    Cell(value="0.5", bounds="[0.1, 0.9]", best=True),
                    Cell(links=[Link(anchor="b", text="B")]),
                ]
            ),
            Row(cells=["MT", "hidden"], kind="remark"),
        ],
        caption="Caption",
        folded="Open",
    )
    body = rendered(table)
    assert "<details><summary>Open</summary>" in body
    assert body.count("</details>") == 1
    assert "<caption>Caption</caption>" in body
    assert '<th class="span start" colspan="2">ours</th>' in body
    assert '<b>0.5</b> <span class="ci">[0.1, 0.9]</span>' in body
    assert '<a href="#b">B</a>' in body
    assert '<td class="remark" colspan="2">hidden</td>' in body
    assert "<details>" not in rendered(Table(columns=["x"], rows=[]))


def test_a_caption_stands_above_its_figure_and_names_it() -> None:
    body = rendered(Figure(svg="<svg></svg>", caption='A "b" & c'))
    assert body.index("<figcaption>") < body.index("<svg")
    assert 'aria-label="A &#34;b&#34; &amp; c"' in body


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render_page("report.html.jinja", title="x")
