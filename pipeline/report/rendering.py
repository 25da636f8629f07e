"""Pages from documents: Jinja2 templates beside this module, everything escaped, everything inline."""

import re
from collections.abc import Sequence
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from pipeline.report.document import MINUS

_NEGATIVE = re.compile(r"(?:(?<=^)|(?<=[\[(\N{PLUS-MINUS SIGN}])|(?<=, ))-(?=\d|unbounded)")
"""A hyphen before a number that begins a text or a bracket, or follows a comma or a plus-minus sign."""
_GROUPS = re.compile(r"(?<=\d) (?=\d{3}\b)")


def render_page(template: str, **values: object) -> str:
    """Return a whole page from ``templates/<template>``; a name that the template lacks a value for is an error."""
    return _environment().get_template(template).render(**values)


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
    """Return text as it is set: a minus sign before numbers, no line break between the groups of a number's digits."""
    words = _NEGATIVE.sub(MINUS, str(value))
    return _GROUPS.sub("\N{NO-BREAK SPACE}", words)


def _drawing(svg: str, caption: str) -> Markup:
    """Let our own SVG through as it is, with its caption as its name."""
    return Markup(svg.replace("<svg", f'<svg aria-label="{escape(caption)}"', 1))


def _kinds(place: int, text_columns: Sequence[int], starts: set[int]) -> str:
    return " ".join(
        name for name, holds in (("text", place in text_columns), ("start", place in starts)) if holds
    )
