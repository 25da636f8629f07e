"""What a page is made of, without markup: paragraphs, tables, figures. ``templates/`` turns them into HTML."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pipeline.foundation.number_format import interval, number

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True, kw_only=True)
class Link:
    """A reference to a section of the same page."""

    anchor: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a table: a value, its interval in a softer tone, links behind it."""

    value: str = ""
    bounds: str = ""
    best: bool = False
    """Set bold: no other method of its table does better."""
    links: Sequence[Link] = ()


def bounded(
    row: Mapping[Any, Any],
    name: str,
    places: int = 2,
    show: Callable[..., str] = number,
    *,
    best: bool = False,
) -> Cell:
    """Return a figure of a table's row with its interval, ``<name>_lower`` to ``<name>_upper``."""
    bounds = interval(row[f"{name}_lower"], row[f"{name}_upper"], places)
    return Cell(value=show(row[name], places), bounds=bounds, best=best)


@dataclass(frozen=True, kw_only=True)
class Row:
    """Cells of one table row.

    ``kind``: "", "group" (one cell, a heading across the table), "ours" (set off), "remark" (a first cell, and words
    across the rest).
    """

    cells: Sequence[Cell | str]
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table that scrolls sideways on narrow screens, its head in sight.

    Attributes
    ----------
    columns : headings
    spans : optional row above the headings: (title, number of columns); a rule parts them
    text_columns : columns set flush left
    caption : above the table
    folded : words on which a reader clicks to see it; "": it stands open
    """

    template: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Row]
    spans: Sequence[tuple[str, int]] = ()
    text_columns: Sequence[int] = (0,)
    caption: str = ""
    folded: str = ""

    @property
    def starts(self) -> set[int]:
        """Columns with a rule before them."""
        places, so_far = set(), 0
        for _, width in self.spans[:-1]:
            so_far += width
            places.add(so_far)
        return places


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing, its caption above it; the caption also tells it to those who cannot see it."""

    template: ClassVar[str] = "figure"
    svg: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class Words:
    """A paragraph. ``kind``: "", "note" (smaller), "lead"."""

    template: ClassVar[str] = "words"
    text: str
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class Heading:
    """A heading below the section's."""

    template: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True, kw_only=True)
class Banner:
    """A warning."""

    template: ClassVar[str] = "banner"
    text: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Pairs of name and value."""

    template: ClassVar[str] = "facts"
    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Bullets:
    """Sentences, one below the other. ``kind``: "", "sentence" (set off: what a reader must not miss)."""

    template: ClassVar[str] = "bullets"
    items: Sequence[str]
    kind: str = ""


Block = Table | Figure | Words | Heading | Banner | Facts | Bullets


@dataclass(frozen=True, kw_only=True)
class Section:
    """One part of the page: an anchor, a heading and what stands below it."""

    anchor: str
    title: str
    blocks: Sequence[Block]
