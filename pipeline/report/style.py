"""One look for all figures: calm axes, colours that colour-blind readers tell apart, SVG that scales."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, SOFT, RULE = "#1f2933", "#5f6c7b", "#d5dbe1"
# Okabe and Ito's palette.
BLUE, ORANGE, GREEN, VERMILION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
METHOD_COLOURS = {
    "mt_pcs": BLUE, "mt_pcs_twin": ORANGE, "st_pcs": GREEN, "mt": PURPLE, "lstm": VERMILION, "locf": INK,
    "shrunk_locf": SOFT, "mt_assim": "#56B4E9", "mt_assim_twin": "#B8A200", "lines": "#8A5A2B",
    "mt_assim_lines": "#4B4FA6",
}  # fmt: skip
LAB_COLOURS = {
    "potassium": BLUE, "calcium": ORANGE, "sodium": GREEN, "glucose": VERMILION, "lactate": PURPLE,
}  # fmt: skip
LAB_MARKERS = {"potassium": "o", "calcium": "s", "sodium": "^", "glucose": "D", "lactate": "v"}
_STYLE: Any = {
    "font.family": "sans-serif", "font.sans-serif": ["Helvetica Neue", "Arial", "DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 9.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.labelcolor": SOFT,
    "axes.edgecolor": RULE, "axes.spines.top": False, "axes.spines.right": False, "axes.labelsize": 8.5,
    "xtick.color": SOFT, "ytick.color": SOFT, "xtick.labelsize": 8.0, "ytick.labelsize": 8.0,
    "text.color": INK,
    "legend.frameon": False, "legend.fontsize": 8.0, "svg.fonttype": "none", "svg.hashsalt": "uniphy-lab",
    "savefig.dpi": 150, "axes.unicode_minus": True,
}  # fmt: skip


@contextmanager
def styled() -> Iterator[None]:
    """Draw with the report's look; nothing global stays changed."""
    with mpl.rc_context(_STYLE):
        yield


def new_figure(
    width: float, height: float, *, layout: Literal["constrained", "compressed"] = "constrained"
) -> Figure:
    """Return an empty figure of ``width`` x ``height`` inches; no pyplot state knows of it."""
    return Figure(figsize=(width, height), layout=layout)


_PATH = re.compile(r' d="[^"]*"')
_PLACES = re.compile(r"(\.\d\d)\d+")
"""Matplotlib writes six decimals; a hundredth of a point is finer than any screen or paper."""


def to_svg(figure: Figure) -> str:
    """Return the figure as an ``<svg>`` element that fills its column and carries no date."""
    with mpl.rc_context(_STYLE), io.StringIO() as file:
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        drawn = file.getvalue()
    element = drawn[drawn.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>\s*", "", element, flags=re.DOTALL)
    element = _PATH.sub(lambda path: _PLACES.sub(r"\1", path.group()), element)
    width = re.search(r'<svg[^>]*? width="([\d.]+)pt"', element)
    points = width.group(1) if width else "600"
    element = re.sub(r'(<svg[^>]*?) width="[\d.]+pt"', r"\1", element, count=1)
    element = re.sub(r'(<svg[^>]*?) height="[\d.]+pt"', r"\1", element, count=1)
    return element.replace("<svg", f'<svg style="width:100%;max-width:{points}pt;height:auto" role="img"', 1)


def zero_line(axes: Axes, *, vertical: bool = True) -> None:
    """Mark "no difference"."""
    draw = axes.axvline if vertical else axes.axhline
    draw(0, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)


def quiet_grid(axes: Axes, axis: str = "x") -> None:
    """Light lines behind the data along one axis."""
    axes.set_axisbelow(True)
    axes.grid(axis=axis, color="#eef1f4", linewidth=0.8)  # pyright: ignore[reportArgumentType]
    axes.tick_params(length=0)
