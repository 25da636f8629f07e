"""Pages from documents: Jinja2 templates beside this module, everything escaped, everything inline."""

from collections.abc import Sequence
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from pipeline.report.document import MINUS, Section


def render_page(template: str, **values: object) -> str:
    """Return a whole page from ``templates/<template>``; a name that the template lacks a value for is an error."""
    return _environment().get_template(template).render(**values)


def render_section(section: Section) -> str:
    """Return the HTML of one section, its heading included."""
    return render_page("section.html.jinja", section=section)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipeline.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"shown": shown, "drawing": _drawing, "kinds": _kinds}
    return environment


def shown(value: object) -> str:
    """Return text in which the hyphen before a number, also inside an interval, is a minus sign."""
    words = str(value)
    for before in ("", "[", ", ", "\N{PLUS-MINUS SIGN}"):
        for digit in "0123456789":
            if not before:
                words = f"{MINUS}{words[1:]}" if words.startswith(f"-{digit}") else words
            else:
                words = words.replace(f"{before}-{digit}", f"{before}{MINUS}{digit}")
    return words.replace("-unbounded", f"{MINUS}unbounded")


def _drawing(svg: str, caption: str) -> Markup:
    """Let our own SVG through as it is, with its caption as its name."""
    return Markup(svg.replace("<svg", f'<svg aria-label="{escape(caption)}"', 1))  # noqa: S704 - drawn here


def _kinds(place: int, text_columns: Sequence[int], starts: set[int]) -> str:
    return " ".join(name for name, holds in (("text", place in text_columns), ("start", place in starts)) if holds)
