"""The report's sections on courses: a few patients over time, and every training over its epochs."""

import pandas as pd

from pipeline.cohort.scored_set import in_method_order
from pipeline.foundation.number_format import short_label
from pipeline.prediction.intervals import GIVEN, INTERVAL_STATE, NO_ESTIMATE
from pipeline.report import figures as report_figures
from pipeline.report.document import Block, Figure, Section, Words
from pipeline.report.inputs import ReportInputs
from pipeline.training.curves import kept_epochs


def trajectories(inputs: ReportInputs) -> Section | None:
    """Estimates over time for some test patients."""
    if inputs.trajectories is None or inputs.trajectories.empty:
        return None
    draws = inputs.draws if inputs.draws is not None else inputs.trajectories.iloc[:0].assign(value=0.0)
    blocks: list[Block] = [
        Words(
            text=f"Estimates of {short_label(inputs.method)} every 30 s for some test patients; a long recording is "
            f"thinned to what a picture can show. Bands are the {100 * inputs.interval_level:g} % prediction intervals."
            f"{_without_band(inputs.trajectories)} Hours count from t0; no dates are shown."
        )
    ]
    for label in dict.fromkeys(inputs.trajectories["sequence"]):
        mine = inputs.trajectories.loc[inputs.trajectories["sequence"] == label]
        own = draws.loc[draws["sequence"] == label]
        blocks.append(Figure(svg=report_figures.trajectory_svg(mine, own), caption=str(label)))
    return Section(anchor="trajectories", title="Trajectories", blocks=blocks)


def _without_band(trajectories: pd.DataFrame) -> str:
    """Say which labs have estimates without an interval, and why; nothing where all have one."""
    if INTERVAL_STATE not in trajectories.columns:
        return ""
    bare = trajectories.loc[~trajectories[INTERVAL_STATE].isin([GIVEN, NO_ESTIMATE])]
    told = bare.groupby(INTERVAL_STATE, sort=False)["lab"].unique()
    listed = [f"{', '.join(labs)} ({reason})" for reason, labs in told.items()]
    return f" Estimates without a band: {'; '.join(listed)}." if listed else ""


def learning(inputs: ReportInputs) -> Section | None:
    """Loss curves of every trained method."""
    curves = {name: rows for name, rows in inputs.training_curves.items() if len(rows)}
    if not curves:
        return None
    blocks = [
        Figure(
            svg=report_figures.loss_curve_svg(curves[name]),
            caption=f"{short_label(name)}{kept_epochs(curves[name])}",
        )
        for name in in_method_order(list(curves))
    ]
    return Section(anchor="learning", title="Loss curves", blocks=blocks)
