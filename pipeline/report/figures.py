"""Figures of results as SVG text: skill with intervals, what PPG added, trajectories, loss curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pipeline.cohort.scored_set import in_method_order
from pipeline.evaluation.judge import select
from pipeline.foundation.number_format import UNITS, short_label
from pipeline.foundation.schema import LAB_NAMES, PROTOCOLS
from pipeline.report import style

_PROTOCOL_LOOK = {"start": (style.BLUE, "o"), "anchored": (style.VERMILION, "s")}


def forest_svg(evaluation: pd.DataFrame, metric: str = "skill_vs_locf") -> str:
    """Skill against LOCF with its interval: a panel per lab, a line per method, a colour per protocol."""
    tables = {protocol: select(evaluation, protocol=protocol) for protocol in PROTOCOLS}
    shown = pd.concat(list(tables.values()))
    methods = [name for name in in_method_order(list(shown["method"].unique())) if name != "locf"]
    labs = [lab for lab in LAB_NAMES if lab in set(shown["lab"])]
    with style.styled():
        figure = style.new_figure(9.6, 1.1 + 0.3 * len(methods))
        panels = figure.subplots(1, len(labs), sharex=True, sharey=True, squeeze=False)[0]
        low, high = readable_range(
            shown.loc[shown["method"].isin(methods)], f"{metric}_lower", f"{metric}_upper"
        )
        for axes, lab in zip(panels, labs, strict=True):
            for protocol, offset in zip(PROTOCOLS, (-0.14, 0.14), strict=True):
                rows = tables[protocol].loc[tables[protocol]["lab"] == lab]
                for row in rows.to_dict(orient="records"):
                    if row["method"] in methods:
                        bounds = (row[f"{metric}_lower"], row[metric], row[f"{metric}_upper"])
                        place = methods.index(row["method"]) + offset
                        interval_line(axes, bounds, place, (low, high), _PROTOCOL_LOOK[protocol])
            axes.set_xlim(low, high)
            axes.set_title(lab)
            axes.locator_params(axis="x", nbins=5)
            style.zero_line(axes)
            style.quiet_grid(axes)
        panels[0].set_yticks(range(len(methods)), [short_label(name) for name in methods])
        panels[0].invert_yaxis()
        figure.supxlabel(
            "skill = 1 \N{MINUS SIGN} MAE / MAE of LOCF  (right of 0: better than LOCF)",
            fontsize=8.5,
            color=style.SOFT,
        )
        _legend_of_protocols(figure, panels[0])
        return style.to_svg(figure)


def readable_range(rows: pd.DataFrame, lower: str, upper: str) -> tuple[float, float]:
    """Range of an axis for intervals: all of them within -1..1, beyond which a few wide ones would hide the rest."""
    ends = rows[[lower, upper]].to_numpy(dtype=float)
    ends = ends[np.isfinite(ends)]
    low, high = (float(ends.min()), float(ends.max())) if ends.size else (0.0, 0.0)
    low, high = min(max(low, -1.0), -0.05), max(min(high, 1.0), 0.05)
    margin = 0.06 * (high - low)
    return low - margin, high + margin


def interval_line(
    axes: Axes,
    bounds: tuple[float, float, float],
    place: float,
    limits: tuple[float, float],
    look: tuple[str, str],
) -> None:
    """Draw an estimate with its interval (lower, estimate, upper); what leaves the picture ends in an arrow."""
    lower, estimate, upper = bounds
    if not np.isfinite(estimate):
        return
    colour, marker = look
    low, high = limits
    axes.plot([max(lower, low), min(upper, high)], [place, place], color=colour, linewidth=1.5)
    if low <= estimate <= high:
        axes.plot(estimate, place, marker, color=colour, markersize=4.5)
    edge = 0.015 * (high - low)
    for beyond, at, arrow in ((lower < low, low + edge, "<"), (upper > high, high - edge, ">")):
        if beyond:
            axes.plot(at, place, arrow, color=colour, markersize=4.5, clip_on=False)


def _legend_of_protocols(figure: Any, axes: Axes) -> None:
    handles = [
        axes.plot([], [], marker, color=colour, linestyle="-", markersize=4, label=f"protocol {name}")[0]
        for name, (colour, marker) in _PROTOCOL_LOOK.items()
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=2)


def added_svg(comparisons: pd.DataFrame, favoured: str) -> str:
    """Paired differences in R2 and skill with intervals, a line per lab, a colour per protocol."""
    panels_of = (("r2", "difference in R2"), ("skill_vs_locf", "difference in skill vs LOCF"))
    tables = {protocol: select(comparisons, protocol=protocol) for protocol in PROTOCOLS}
    labs = [lab for lab in LAB_NAMES if any(lab in set(table["lab"]) for table in tables.values())]
    with style.styled():
        figure = style.new_figure(9.0, 1.2 + 0.36 * len(labs))
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (metric, title) in zip(panels, panels_of, strict=True):
            of_metric = {name: table.loc[table["metric"] == metric] for name, table in tables.items()}
            limits = readable_range(pd.concat(list(of_metric.values())), "lower", "upper")
            for protocol, offset in zip(PROTOCOLS, (-0.13, 0.13), strict=True):
                for row in of_metric[protocol].to_dict(orient="records"):
                    bounds = (row["lower"], row["difference"], row["upper"])
                    place = labs.index(row["lab"]) + offset
                    interval_line(axes, bounds, place, limits, _PROTOCOL_LOOK[protocol])
            axes.set_xlim(*limits)
            axes.set_xlabel(f"{title}  (right of 0: {favoured} better)")
            style.zero_line(axes)
            style.quiet_grid(axes)
        panels[0].set_yticks(range(len(labs)), labs)
        panels[0].invert_yaxis()
        _legend_of_protocols(figure, panels[0])
        return style.to_svg(figure)


def trajectory_svg(trajectory: pd.DataFrame, draws: pd.DataFrame) -> str:
    """One patient's estimates beside the draws: a panel per lab, hours since t0 on x.

    Parameters
    ----------
    trajectory
        ``lab, hours_since_t0, estimate, lower, upper`` of one sequence; optionally ``protocol``.
    draws
        ``lab, hours_since_t0, value`` of the same sequence; draws before t0 have negative hours.
    """
    labs = [lab for lab in LAB_NAMES if lab in set(trajectory["lab"])]
    with style.styled():
        figure = style.new_figure(9.0, 0.7 + 0.95 * len(labs))
        panels = figure.subplots(len(labs), 1, sharex=True, squeeze=False)[:, 0]
        for axes, lab in zip(panels, labs, strict=True):
            _trajectory_panel(axes, trajectory.loc[trajectory["lab"] == lab], draws.loc[draws["lab"] == lab])
            axes.set_ylabel(f"{lab}\n{UNITS[lab]}", color=style.INK)
        panels[-1].set_xlabel("hours since t0")
        entries: dict[str, Any] = {}
        for axes in panels:
            handles, labels = axes.get_legend_handles_labels()
            entries |= dict(zip(labels, handles, strict=True))
        figure.legend(list(entries.values()), list(entries), loc="outside upper left", ncols=4)
        return style.to_svg(figure)


def _trajectory_panel(axes: Axes, estimates: pd.DataFrame, draws: pd.DataFrame) -> None:
    looks = {"anchored": (style.BLUE, "-"), "start": (style.VERMILION, "-"), "": (style.BLUE, "-")}
    protocols = list(dict.fromkeys(estimates["protocol"])) if "protocol" in estimates.columns else [""]
    for protocol in protocols:
        rows = estimates.loc[estimates["protocol"] == protocol] if protocol else estimates
        rows = rows.sort_values("hours_since_t0")
        hours, lower, upper = (
            rows[name].to_numpy(dtype=float) for name in ("hours_since_t0", "lower", "upper")
        )
        bounded = np.isfinite(lower) & np.isfinite(upper)
        colour, line = looks.get(protocol, looks[""])
        remark = f", protocol {protocol}" if protocol else ""
        if bounded.any():
            axes.fill_between(
                hours,
                lower,
                upper,
                where=list(bounded),
                color=colour,
                alpha=0.14,
                linewidth=0,
                label=f"interval{remark}",
            )
        axes.plot(hours, rows["estimate"], line, color=colour, linewidth=0.7, label=f"estimate{remark}")
    shown = draws.sort_values("hours_since_t0")
    if shown.empty:
        return
    end = max(*estimates["hours_since_t0"], *shown["hours_since_t0"])
    hours = np.append(shown["hours_since_t0"].to_numpy(dtype=float), end)
    values = np.append(shown["value"].to_numpy(dtype=float), shown["value"].iloc[-1])
    axes.step(
        hours,
        values,
        where="post",
        color=style.SOFT,
        linewidth=0.9,
        linestyle=(0, (3, 2)),
        label="last lab carried forward",
    )
    axes.plot(hours[:-1], values[:-1], "o", color=style.INK, markersize=4, label="lab draw")
    style.quiet_grid(axes, "both")


def loss_curve_svg(rows: Sequence[Mapping[str, Any]]) -> str:
    """Loss by epoch, and the validation error by epoch and lab.

    Parameters
    ----------
    rows
        Epochs as ``pipeline.training.curves.read_curves`` returns them: ``epoch``, ``loss``, ``validation`` (by
        lab or "protocol/lab", scaled units) and ``part`` ("all", or one lab each for single-task models).
    """
    parts = list(dict.fromkeys(row.get("part", "all") for row in rows))
    parts.sort(key=lambda part: LAB_NAMES.index(part) if part in LAB_NAMES else -1)
    with style.styled():
        figure = style.new_figure(9.0, 2.6)
        training, validation = figure.subplots(1, 2)
        for part in parts:
            mine = [row for row in rows if row.get("part", "all") == part]
            colour = style.LAB_COLOURS.get(part, style.INK)
            epochs = [row["epoch"] for row in mine]
            losses = [np.nan if row["loss"] is None else row["loss"] for row in mine]
            training.plot(epochs, losses, ".-", color=colour, linewidth=1.2, label=part)
            if (kept := _kept_epoch(mine)) is not None:
                validation.axvline(kept, color=colour, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
            for lab in LAB_NAMES:
                errors = [_error_of(lab, row["validation"] or {}) for row in mine]
                if np.isfinite(errors).any():
                    validation.plot(
                        epochs, errors, ".-", color=style.LAB_COLOURS[lab], linewidth=1.2, label=lab
                    )
        training.set_title("Training loss")
        training.set_ylabel("share of the labs' range")
        validation.set_title("Validation error (dashed: epoch kept)")
        validation.set_ylabel("mean absolute, share of range")
        for axes in (training, validation):
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
            style.quiet_grid(axes, "y")
        entries: dict[str, Any] = {}
        for axes in (training, validation):
            handles, labels = axes.get_legend_handles_labels()
            entries |= {name: handle for name, handle in zip(labels, handles, strict=True) if name != "all"}
        shown = [lab for lab in LAB_NAMES if lab in entries]
        if shown:
            figure.legend([entries[lab] for lab in shown], shown, loc="outside upper left", ncols=len(shown))
        return style.to_svg(figure)


def _kept_epoch(rows: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the epoch that is kept: the last that was better than all before it; None where the rows do not tell."""
    return next((int(row["epoch"]) for row in reversed(rows) if row.get("kept")), None)


def _error_of(lab: str, errors: Mapping[str, float]) -> float:
    """Return a lab's validation error under the anchored protocol where that is known, NaN where none is."""
    return next((errors[name] for name in (f"anchored/{lab}", f"start/{lab}", lab) if name in errors), np.nan)
