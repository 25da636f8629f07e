"""How numbers look in every table and figure: digits per lab, intervals, and a dash for what is not known."""

import math
import re

from pipeline.foundation.schema import LABS, METHOD_LABELS

ABSENT = "\N{EN DASH}"
UNITS = {lab.name: lab.unit for lab in LABS}
_ERROR_DIGITS = {"sodium": 2, "glucose": 1}


def error_digits(lab: str) -> int:
    """Decimals of an error in the lab's unit."""
    return _ERROR_DIGITS.get(lab, 3)


def number(value: float | None, digits: int = 2) -> str:
    """Format with fixed decimals; a dash for None and NaN, infinity in words."""
    if value is None or math.isnan(value):
        return ABSENT
    if math.isinf(value):
        return "unbounded" if value > 0 else "-unbounded"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def signed(value: float | None, digits: int = 2) -> str:
    """Format as ``number`` does, with a plus sign before what is printed as more than 0."""
    text = number(value, digits)
    return text if text == ABSENT or text.startswith("-") or not float(text) else f"+{text}"


def interval(lower: float | None, upper: float | None, digits: int = 2) -> str:
    """Format an interval as "[low, high]"; a dash when it is not known."""
    if lower is None or upper is None or math.isnan(lower) or math.isnan(upper):
        return ABSENT
    return f"[{number(lower, digits)}, {number(upper, digits)}]"


def count(value: float | int | None) -> str:
    """Format a whole number in groups of three digits; a dash when it is not known."""
    return ABSENT if value is None or math.isnan(value) else f"{int(value):,}".replace(",", " ")


def counted(n: float | int | None, things: str) -> str:
    """Format a number of things: "1 285 numbers", "1 draw, protocol start".

    Parameters
    ----------
    things : in the plural; with one of them, its first word that ends in "s" loses it
    """
    named = re.sub(r"s\b", "", things, count=1) if n == 1 else things
    return f"{count(n)} {named}"


def p_value(value: float) -> str:
    """Format a p-value to three decimals, "< 0.001" below that."""
    if math.isnan(value):
        return ABSENT
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def short_label(method: str) -> str:
    """Label of a method without the remark in its parentheses; an unknown method keeps its name."""
    return METHOD_LABELS.get(method, method).split(" (sees")[0]
