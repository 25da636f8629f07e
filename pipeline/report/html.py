"""The parts of a self-contained HTML page: no script, no network, everything inline."""

import html
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

MINUS = "\N{MINUS SIGN}"
CSS = """
:root {
  --ink: #1f2933; --soft: #5f6c7b; --rule: #d5dbe1; --wash: #f5f7f9; --warn: #fff4e0; --warn-rule: #d98a00;
}
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); font: 16px/1.55 Georgia, "Times New Roman", serif; }
main { max-width: 72rem; margin: 0 auto; padding: 2rem 1.25rem 5rem; }
h1, h2, h3, table, .meta, .banner, nav, figcaption { font-family: "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; font-weight: 600; }
h2 { font-size: 1.3rem; margin: 3rem 0 .6rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1.02rem; margin: 1.6rem 0 .3rem; }
p, li { max-width: 46rem; }
.lead { color: var(--soft); margin-top: 0; }
.banner {
  background: var(--warn); border-left: 4px solid var(--warn-rule); padding: .7rem 1rem; margin: 1.2rem 0;
  font-size: .92rem;
}
.note { font-size: .86rem; color: var(--soft); }
nav ul { list-style: none; padding: 0; margin: 1rem 0; display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; }
nav { font-size: .86rem; }
nav a { color: #1f5fa8; text-decoration: none; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .78rem; font-variant-numeric: tabular-nums; }
th, td { padding: .26rem .42rem; text-align: right; white-space: nowrap; vertical-align: baseline; }
th { font-weight: 600; border-bottom: 1px solid var(--ink); }
th.start, td.start { border-left: 1px solid var(--rule); }
th.span { border-bottom: 1px solid var(--rule); text-align: center; }
td { border-bottom: 1px solid #eef1f4; }
th:first-child, td:first-child, .text { text-align: left; }
td.text { white-space: normal; min-width: 8.5rem; max-width: 30rem; padding-right: 1.4rem; }
tr.group td { font-weight: 600; background: var(--wash); border-bottom: 1px solid var(--rule); }
tr.ours td { font-weight: 600; }
td.remark { text-align: left; white-space: normal; color: var(--soft); }
.ci { color: var(--soft); font-weight: 400; }
dl.meta { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; font-size: .86rem; }
dl.meta dt { color: var(--soft); }
dl.meta dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 1.2rem 0; }
figure svg { max-width: 100%; height: auto; display: block; }
figcaption { font-size: .84rem; color: var(--soft); margin-top: .4rem; max-width: 46rem; }
@media (max-width: 40rem) {
  body { font-size: 15px; }
  main { padding: 1.2rem .9rem 3rem; }
  h1 { font-size: 1.5rem; }
  dl.meta { grid-template-columns: 1fr; gap: 0; }
  dl.meta dd { margin-bottom: .5rem; }
  figure { overflow-x: auto; }
  figure svg { min-width: 36rem; }
}
@media print {
  html { font-size: 11px; }
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  h2 { break-after: avoid; margin-top: 1.6rem; }
  h3, h2 + p { break-after: avoid; }
  h2 + p { break-inside: avoid; }
  figure, tr, .banner { break-inside: avoid; }
  tr.group { break-after: avoid; }
  thead { display: table-header-group; }
  .scroll { overflow: visible; }
  table { font-size: 7pt; }
  th, td { padding: .14rem .28rem; }
  td.text { min-width: 0; padding-right: .5rem; }
}
"""


@dataclass(frozen=True, kw_only=True)
class Section:
    """One part of the page: an anchor, a heading and its HTML."""

    anchor: str
    title: str
    body: str


def page(title: str, header: str, sections: Sequence[Section]) -> str:
    """Return the whole page; the table of contents follows the header."""
    links = "".join(f'<li><a href="#{part.anchor}">{text(part.title)}</a></li>' for part in sections)
    body = "\n".join(
        f'<section id="{part.anchor}"><h2>{text(part.title)}</h2>\n{part.body}</section>' for part in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{CSS}</style></head>\n<body><main>\n"
        f'<h1>{text(title)}</h1>\n{header}\n<nav aria-label="Contents"><ul>{links}</ul></nav>\n{body}\n'
        "</main></body></html>\n"
    )


def text(value: object) -> str:
    """Escape a value for HTML; a leading hyphen-minus of a number becomes a minus sign."""
    words = html.escape(str(value))
    return f"{MINUS}{words[1:]}" if words[:1] == "-" and words[1:2].isdigit() else words


def paragraph(words: str, kind: str = "") -> str:
    """Set plain text as a paragraph."""
    return f'<p class="{kind}">{text(words)}</p>' if kind else f"<p>{text(words)}</p>"


def interval_cell(value: str, bounds: str) -> str:
    """Set a formatted value with its interval in a softer tone."""
    shown = text(bounds).replace("[-", f"[{MINUS}").replace(", -", f", {MINUS}")
    return f'{text(value)} <span class="ci">{shown}</span>'


@dataclass(frozen=True, kw_only=True)
class Row:
    """Cells of one table row, HTML.

    ``kind``: "", "group" (a heading across the table), "ours" (set off), "remark" (a first cell, and words
    across the rest).
    """

    cells: Sequence[str]
    kind: str = ""


def table(
    columns: Sequence[str],
    rows: Sequence[Row],
    *,
    spans: Sequence[tuple[str, int]] = (),
    text_columns: Sequence[int] = (0,),
) -> str:
    """Return a table that scrolls sideways on narrow screens.

    Parameters
    ----------
    columns
        Column headings, plain text.
    rows
        Body; a "group" row has one cell.
    spans
        Optional row above the headings: (title, number of columns); a rule parts them.
    text_columns
        Columns set flush left.
    """
    starts = set(itertools.accumulate(width for _, width in spans[:-1]))
    above = "".join(f'<th class="span start" colspan="{width}">{text(title)}</th>' for title, width in spans)
    above = above.replace("span start", "span", 1)
    kinds = [_kind(place in text_columns, place in starts) for place in range(len(columns))]
    head = "".join(_cell("th", text(name), kind) for name, kind in zip(columns, kinds, strict=True))
    body = "".join(_row(row, kinds) for row in rows)
    return (
        f'<div class="scroll"><table><thead>{f"<tr>{above}</tr>" if above else ""}<tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _row(row: Row, kinds: Sequence[str]) -> str:
    if row.kind == "group":
        return f'<tr class="group"><td colspan="{len(kinds)}">{row.cells[0]}</td></tr>'
    if row.kind == "remark":
        first, words = row.cells
        remark = f'<td class="remark" colspan="{len(kinds) - 1}">{words}</td>'
        return f"<tr>{_cell('td', first, kinds[0])}{remark}</tr>"
    cells = "".join(_cell("td", cell, kind) for cell, kind in zip(row.cells, kinds, strict=True))
    return f'<tr class="{row.kind}">{cells}</tr>' if row.kind else f"<tr>{cells}</tr>"


def _kind(is_text: bool, is_start: bool) -> str:
    return " ".join(name for name, holds in (("text", is_text), ("start", is_start)) if holds)


def _cell(tag: str, content: str, kind: str) -> str:
    return f'<{tag} class="{kind}">{content}</{tag}>' if kind else f"<{tag}>{content}</{tag}>"


def figure(svg: str, caption: str) -> str:
    """Set a drawing with its caption, which also tells it to those who cannot see it."""
    drawn = svg.replace("<svg", f'<svg aria-label="{html.escape(caption, quote=True)}"', 1)
    return f"<figure>{drawn}<figcaption>{text(caption)}</figcaption></figure>"


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Set pairs of name and value, plain text."""
    items = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in pairs)
    return f'<dl class="meta">{items}</dl>'


def bullets(items: Sequence[str]) -> str:
    """Set plain sentences as a list."""
    return "<ul>" + "".join(f"<li>{text(item)}</li>" for item in items) + "</ul>"
