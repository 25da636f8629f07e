"""One patient's estimates and draws as a picture of its own, SVG and PNG, without id or date."""

import io
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.foundation.atomic import require_writable, write_bytes
from pipeline.foundation.schema import LAB_NAMES
from pipeline.prediction.config import HISTORY_ONLY, NO_HISTORY, NO_SIGNAL, STALE
from pipeline.prediction.one_patient import OnePatient
from pipeline.report import style

FORMATS = (".svg", ".png")
WIDTH_INCHES, PANEL_INCHES, DOTS_PER_INCH = 9.0, 1.25, 200
_LOOKS: dict[str, dict[str, Any]] = {
    "estimate": {"color": style.BLUE, "linewidth": 1.1},
    "estimate from earlier results alone": {"color": style.GREEN, "linewidth": 1.1},
    "estimate, stale or without an earlier result": {
        "color": style.BLUE, "linewidth": 1.1, "alpha": 0.45, "linestyle": (0, (2, 1.2)),
    },
    "measured": {"color": style.INK, "marker": "o", "markersize": 4.5, "linestyle": "none"},
}  # fmt: skip
_LINE_OF = {
    HISTORY_ONLY: "estimate from earlier results alone",
    STALE: "estimate, stale or without an earlier result",
    NO_HISTORY: "estimate, stale or without an earlier result",
}
"""How the estimates of a state are drawn; the others' as "estimate"."""
_FOOT = "Research only, not a medical device."
_TRAINED = "This patient helped to train the model: a new patient's estimates are worse."


def picture_names(out: Path) -> tuple[Path, ...]:
    """Return the names of both files; an ending that is one of theirs is taken off first.

    Raises
    ------
    StoreError : they could not be written
    """
    stem = out.with_suffix("") if out.suffix.lower() in FORMATS else out
    names = tuple(stem.with_name(stem.name + ending) for ending in FORMATS)
    for name in names:
        require_writable(name)
    return names


def write_pictures(found: OnePatient, names: tuple[Path, ...]) -> None:
    """Write the picture in each format, readable by its owner alone."""
    with style.styled():
        figure = patient_figure(found)
        for name in names:
            write_bytes(name, _drawn(figure, name.suffix.removeprefix(".")))


def patient_figure(found: OnePatient) -> Figure:
    """Return a panel a lab that has an estimate or a draw: line, interval, measured values; hours on x."""
    estimates, draws = found.trajectory, found.draws
    known = set(estimates.loc[estimates["estimate"].notna(), "lab"]) | set(draws["lab"])
    labs = [lab for lab in LAB_NAMES if lab in known] or [
        lab for lab in LAB_NAMES if lab in set(estimates["lab"])
    ]
    figure = style.new_figure(WIDTH_INCHES, 1.1 + PANEL_INCHES * len(labs))
    panels = figure.subplots(len(labs), 1, sharex=True, squeeze=False)[:, 0]
    for axes, lab in zip(panels, labs, strict=True):
        _panel(axes, estimates.loc[estimates["lab"] == lab], draws.loc[draws["lab"] == lab])
    panels[-1].set_xlabel("hours since the first window")
    entries: dict[str, Any] = {}
    for axes in panels:
        entries |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    order = [label for label in ("interval", "no usable signal", *_LOOKS) if label in entries]
    figure.legend([entries[label] for label in order], order, loc="outside upper left", ncols=len(order))
    figure.supxlabel(
        f"{_TRAINED} {_FOOT}" if found.helped_to_train else _FOOT, fontsize=7.5, color=style.SOFT
    )
    return figure


def _panel(axes: Axes, estimates: pd.DataFrame, draws: pd.DataFrame) -> None:
    lab, unit = estimates[["lab", "unit"]].iloc[0]
    hours, value, lower, upper = (
        estimates[name].to_numpy(dtype=float) for name in ("hours", "estimate", "lower", "upper")
    )
    state = estimates["state"].to_numpy()
    bounded = np.isfinite(lower) & np.isfinite(upper)
    if bounded.any():
        axes.fill_between(
            hours, lower, upper, where=list(bounded), color=style.BLUE, alpha=0.14, linewidth=0, label="interval"
        )  # fmt: skip
    for first, last in _stretches(state == NO_SIGNAL):
        axes.axvspan(
            hours[first], hours[last], color=style.RULE, alpha=0.5, linewidth=0, label="no usable signal"
        )
    line = np.array([_LINE_OF.get(name, "estimate") for name in state])
    for label in list(_LOOKS)[:-1]:
        shown = np.where(line == label, value, np.nan)
        if np.isfinite(shown).any():
            axes.plot(hours, shown, label=label, **_LOOKS[label])
    if len(draws):
        axes.plot(draws["hours"], draws["value"], label="measured", **_LOOKS["measured"])
    axes.set_ylabel(f"{lab}\n{unit}", color=style.INK)
    style.quiet_grid(axes, "both")


def _stretches(chosen: np.ndarray) -> list[tuple[int, int]]:
    """Return first and last index of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]]).astype(int)))
    return [(int(first), int(stop) - 1) for first, stop in edges.reshape(-1, 2)]


def _drawn(figure: Figure, kind: str) -> bytes:
    """Return the file's bytes; they hold no date and no name of a machine, and equal pictures equal bytes."""
    metadata: dict[str, Any] = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with io.BytesIO() as file, mpl.rc_context({"svg.fonttype": "path"}):
        figure.savefig(file, format=kind, dpi=DOTS_PER_INCH, metadata=metadata, facecolor="white")
        drawn = file.getvalue()
    if kind == "svg":
        drawn = re.sub(rb"<metadata>.*?</metadata>\s*", b"", drawn, flags=re.DOTALL)
    return drawn
