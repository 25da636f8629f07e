"""Recovery as pictures: by results known, hours recorded, hours since the last result, and training patients."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pipeline.evaluation.recovery import MODEL, OURS, SUFFIXES
from pipeline.foundation.number_format import short_label
from pipeline.foundation.schema import LAB_NAMES
from pipeline.report import style

_TITLES = {
    "known_draws": "results of that lab known before", "hours_recorded": "hours recorded before the draw",
    "hours_since_last_lab": "hours since the last result",
}  # fmt: skip
_LOOKS = {MODEL: (style.BLUE, "o"), OURS: (style.VERMILION, "s")}
_LOW, _HIGH = -0.5, 1.15
"""Shown range of a recovery; an interval that leaves it is cut off."""


def recovery_by_svg(rows: pd.DataFrame, quantity: str) -> str:
    """Recovery against the oracle in each part of the draws: a panel a lab, a colour a model.

    Parameters
    ----------
    rows : of ``recovery_by``, one condition and quantity
    """
    edges = np.unique(rows[["lower_edge", "upper_edge"]].to_numpy(dtype=float), axis=0)
    names = [_part(float(low), float(high)) for low, high in edges]
    places = np.searchsorted(edges[:, 0], rows["lower_edge"].to_numpy(dtype=float))
    return _svg(rows.assign(place=places), names, _TITLES[quantity])


def recovery_by_size_svg(table: pd.DataFrame) -> str:
    """Recovery against the oracle by training patients, protocol ``anchored``, at coupling 1: the largest regime's.

    Parameters
    ----------
    table : rows of the recovery experiment; emulated conditions are shown where there are some
    """
    rows = table.loc[(table["coupling"] == 1) & (table["protocol"] == "anchored")]
    rows = rows.loc[rows["emulated"]] if rows["emulated"].any() else rows
    sizes, places = np.unique(rows["train_patients"].to_numpy(), return_inverse=True)
    return _svg(rows.assign(place=places), [f"{size}" for size in sizes], "training patients")


def _part(low: float, high: float) -> str:
    return f"{low:g}+" if np.isinf(high) else f"{low:g} to {high:g}"


def _svg(rows: pd.DataFrame, names: Sequence[str], title: str) -> str:
    """Draw `rows` with a column ``place``, the number of their name."""
    with style.styled():
        figure = style.new_figure(10.0, 2.6)
        panels = figure.subplots(1, len(LAB_NAMES), sharey=True)
        for axes, lab in zip(panels, LAB_NAMES, strict=True):
            own = rows.loc[rows["lab"] == lab].sort_values("place")
            for (model, suffix), shift in zip(SUFFIXES.items(), (-0.1, 0.1), strict=True):
                if f"recovery{suffix}" in own:
                    _line(axes, own, f"recovery{suffix}", shift, _LOOKS[model], short_label(model))
            axes.set_title(lab)
            axes.set_ylim(_LOW, _HIGH)
            axes.set_xlim(-0.5, len(names) - 0.5)
            axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
            style.zero_line(axes, vertical=False)
            axes.axhline(1, color=style.SOFT, linewidth=0.6, zorder=0)
            style.quiet_grid(axes, "y")
        panels[0].set_ylabel("recovery (1: the oracle's)")
        figure.supxlabel(title, fontsize=8.5, color=style.SOFT)
        entries: Mapping[str, object] = {
            label: handle
            for axes in panels
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(list(entries.values()), list(entries), loc="outside upper left", ncols=2)
        return style.to_svg(figure)


def _line(axes: Axes, rows: pd.DataFrame, name: str, shift: float, look: tuple[str, str], label: str) -> None:
    """Draw estimates with their intervals; what is not estimable leaves a gap."""
    colour, marker = look
    place, value = rows["place"].to_numpy(dtype=float) + shift, rows[name].to_numpy(dtype=float)
    lower, upper = (
        np.clip(rows[f"{name}_{side}"].to_numpy(dtype=float), _LOW, _HIGH) for side in ("lower", "upper")
    )
    axes.plot(place, value, marker, linestyle="-", color=colour, markersize=3.5, linewidth=1.0, label=label)
    axes.vlines(place, lower, upper, color=colour, linewidth=1.2)
