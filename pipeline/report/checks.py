"""Figures of agreement and calibration: Bland-Altman, Clarke grid, reliability, error by hours."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from matplotlib.axes import Axes

from pipeline.cohort.scored_set import ScoredSet
from pipeline.evaluation.agreement import repeated_bland_altman
from pipeline.evaluation.coverage import GAP_EDGES_HOURS, gap_names
from pipeline.evaluation.grids import clarke_zones
from pipeline.foundation.number_format import UNITS, error_digits, short_label, signed
from pipeline.foundation.schema import LAB_NAMES
from pipeline.report import style
from pipeline.report.document import MINUS


def bland_altman_svg(blocks: Sequence[ScoredSet], method: str) -> str:
    """Difference against mean of estimate and truth, with bias and limits of agreement for repeated draws."""
    with style.styled():
        figure = style.new_figure(9.6, 2.5)
        panels = figure.subplots(1, len(blocks), squeeze=False)[0]
        for axes, block in zip(panels, blocks, strict=True):
            difference = block.estimates[method] - block.truth
            found = repeated_bland_altman(difference, block.patient)
            mean = (block.estimates[method] + block.truth) / 2
            axes.plot(
                mean,
                difference,
                "o",
                color=style.BLUE,
                alpha=0.5,
                markersize=3.5,
                markeredgewidth=0,
                rasterized=True,
            )
            digits = error_digits(block.lab)
            for name, line in (("limit_high", ":"), ("bias", "-"), ("limit_low", ":")):
                value = float(getattr(found, name)[0])
                if np.isfinite(value):
                    axes.axhline(value, color=style.INK, linewidth=1, linestyle=line)
                    axes.annotate(
                        signed(value, digits).replace("-", MINUS),
                        (1, value),
                        xycoords=("axes fraction", "data"),
                        fontsize=7.5,
                        ha="right",
                        va="bottom",
                    )
            axes.set_title(block.lab)
            axes.set_xlabel(f"mean, {UNITS[block.lab]}")
            axes.margins(y=0.12)
        panels[0].set_ylabel("estimate \N{MINUS SIGN} truth")
        return style.to_svg(figure)


LOW_GLUCOSE, HIGH_GLUCOSE = 70.0, 240.0
"""mg/dL; a draw beyond them that is estimated between 70 and 180 lies in Clarke's zone D."""


def glucose_events(truth: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Return which draws are events: glucose, mg/dL, so low or so high that somebody must act."""
    return (truth < LOW_GLUCOSE) | (truth > HIGH_GLUCOSE)


def missed_events(block: ScoredSet, method: str) -> int:
    """Count the events that a method's estimate hides: zone D of Clarke's grid."""
    return int((clarke_zones(block.truth, block.estimates[method]) == "D").sum())


def clarke_svg(blocks: Sequence[ScoredSet], methods: Sequence[str]) -> str:
    """Glucose estimate against truth on Clarke's grid, a panel per method."""
    block = next(block for block in blocks if block.lab == "glucose")
    top = (
        max(400.0, float(block.truth.max()), *(float(block.estimates[name].max()) for name in methods)) * 1.03
    )
    with style.styled():
        figure = style.new_figure(3.2 * len(methods), 3.6, layout="compressed")
        panels = figure.subplots(1, len(methods), sharey=True, squeeze=False)[0]
        for axes, method in zip(panels, methods, strict=True):
            _clarke_borders(axes, top)
            colour, events = style.METHOD_COLOURS.get(method, style.BLUE), glucose_events(block.truth)
            for chosen, look in (
                (~events, {"marker": "o", "alpha": 0.5, "markersize": 3.5, "markeredgewidth": 0}),
                (
                    events,
                    {"marker": "D", "markersize": 5, "markeredgewidth": 0.8, "markeredgecolor": style.INK},
                ),
            ):
                drawn = block.truth[chosen], block.estimates[method][chosen]
                axes.plot(*drawn, linestyle="", color=colour, rasterized=True, **look)
            axes.set_title(short_label(method))
            axes.set_xlabel("truth, mg/dL")
            axes.set(xlim=(0, top), ylim=(0, top), aspect="equal")
        panels[0].set_ylabel("estimate, mg/dL")
        return style.to_svg(figure)


def _clarke_borders(axes: Axes, top: float) -> None:
    lines = [
        ([0, top], [0, top], (0, (2, 3))),
        ([0, 175 / 3, top / 1.2], [70, 70, top], "-"),
        ([70, 70, top], [0, 56, 0.8 * top], "-"),
        ([70, 70], [84, top], "-"),
        ([0, 70], [180, 180], "-"),
        ([70, top - 110], [180, top], "-"),
        ([130, 180], [0, 70], "-"),
        ([180, 180], [0, 70], "-"),
        ([180, top], [70, 70], "-"),
        ([240, 240], [70, 180], "-"),
        ([240, top], [180, 180], "-"),
    ]
    for x, y, line in lines:
        axes.plot(x, y, color=style.SOFT, linewidth=0.8, linestyle=line)
    for zone, x, y in (
        ("A", 30, 20), ("B", 300, 220), ("B", 225, 303), ("C", 110, 330), ("C", 170, 18), ("D", 25, 110),
        ("D", 350, 110),         ("E", 25, 300), ("E", 300, 25),
    ):  # fmt: skip
        axes.text(x, y, zone, color=style.SOFT, fontsize=10, fontweight="bold", ha="center", va="center")


def reliability_svg(levels: pd.DataFrame, blocks: Sequence[ScoredSet], method: str) -> str:
    """Coverage against the promised level, and mean truth against mean estimate in fifths of the estimate.

    Parameters
    ----------
    levels
        ``intervals.reliability`` of one method, protocol, scoring and seed; rows whose draws mostly have
        no interval are left out.
    blocks
        The same method's draws, one block per lab.
    """
    with style.styled():
        figure = style.new_figure(9.6, 3.3)
        promised, calibration = figure.subplots(1, 2)
        _coverage_panel(promised, levels.loc[levels["missing_share"] < 0.5])
        for block in blocks:
            _fifths(calibration, block, method)
        calibration.axline((0, 0), slope=1, color=style.SOFT, linewidth=0.8, linestyle=(0, (4, 3)))
        calibration.set(
            xlabel="mean estimate, SDs of the lab's truth", ylabel="mean truth, SDs of the lab's truth"
        )
        calibration.set_title("Estimates, by fifths")
        for axes in (promised, calibration):
            style.quiet_grid(axes, "both")
        return style.to_svg(figure)


def _coverage_panel(axes: Axes, given: pd.DataFrame) -> None:
    for lab in LAB_NAMES:
        rows = given.loc[given["lab"] == lab].sort_values("nominal")
        axes.plot(
            100 * rows["nominal"], 100 * rows["coverage_patient_macro"], marker=style.LAB_MARKERS[lab], markersize=4,
            linewidth=1.1, color=style.LAB_COLOURS[lab], label=lab,
        )  # fmt: skip
    axes.plot([45, 100], [45, 100], color=style.SOFT, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set(
        xlabel="promised coverage, %",
        xlim=(45, 100),
        ylabel="coverage, mean over test patients, %",
        ylim=(0, 103),
    )
    axes.set_title("Intervals")
    axes.legend(loc="lower right", ncols=2)
    if given.empty:
        axes.text(72, 50, "too few calibration patients\nfor any interval", ha="center", color=style.SOFT)


def _fifths(axes: Axes, block: ScoredSet, method: str) -> None:
    spread = block.truth.std()
    if block.truth.size < 10 or spread == 0:
        return
    estimate = (block.estimates[method] - block.truth.mean()) / spread
    truth = (block.truth - block.truth.mean()) / spread
    fifths = np.array_split(np.argsort(estimate, kind="stable"), 5)
    axes.plot(
        [estimate[rows].mean() for rows in fifths], [truth[rows].mean() for rows in fifths],
        marker=style.LAB_MARKERS[block.lab], markersize=4, linewidth=1.1, color=style.LAB_COLOURS[block.lab],
    )  # fmt: skip


def gap_svg(subgroups: pd.DataFrame, methods: Sequence[str]) -> str:
    """MAE by hours since the last lab, a panel per lab; ``subgroups`` of one protocol, scoring and seed."""
    rows = subgroups.loc[(subgroups["grouping"] == "gap") & ~subgroups["suppressed"].astype(bool)]
    names = gap_names(GAP_EDGES_HOURS)
    labs = [lab for lab in LAB_NAMES if lab in set(rows["lab"])]
    with style.styled():
        figure = style.new_figure(9.6, 2.6)
        panels = figure.subplots(1, len(labs), squeeze=False)[0]
        for axes, lab in zip(panels, labs, strict=True):
            for number, method in enumerate(methods):
                mine = rows.loc[(rows["lab"] == lab) & (rows["method"] == method)]
                places = np.array([names.index(group) for group in mine["group"]]) + 0.14 * (number - 1)
                errors = mine[["mae", "mae_lower", "mae_upper"]].to_numpy(dtype=float)
                colour = style.METHOD_COLOURS.get(method, style.BLUE)
                axes.vlines(places, errors[:, 1], errors[:, 2], color=colour, linewidth=1.2)
                axes.plot(
                    places,
                    errors[:, 0],
                    "o-",
                    color=colour,
                    markersize=3.5,
                    linewidth=1,
                    label=short_label(method),
                )
            axes.set_xticks(range(len(names)), [name.removesuffix(" h") for name in names], rotation=60)
            axes.set_title(f"{lab}, {UNITS[lab]}")
            axes.set_ylim(bottom=0)
            style.quiet_grid(axes, "y")
        panels[0].set_ylabel("MAE")
        figure.supxlabel("hours since the last lab", fontsize=8.5, color=style.SOFT)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(methods))
        return style.to_svg(figure)
