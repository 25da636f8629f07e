"""How long the history that enters through h0 is remembered, as terminal and report show it."""

import pandas as pd

from pipeline.foundation.number_format import number, short_label
from pipeline.report.document import Row, Section, Table, Words
from pipeline.report.inputs import ReportInputs

_NOTE = (
    "Share of the initial state h0 that is alive so many hours after t0, mean over all channels and states/of the\n"
    "slowest of them, in the longest test recordings; hours without a pulse do not count. What history tells\n"
    "through h0 lasts as long; what else of a method sees it, the tables above say.\n"
)


def initial_state_table(survival: pd.DataFrame) -> str:
    """Return a line for each method and layer, a column an hour; nothing without rows.

    Parameters
    ----------
    survival : ``method`` and ``training.initial_state.SURVIVAL_COLUMNS``
    """
    if survival.empty:
        return ""
    hours = sorted(set(survival["hours"]))
    lines = ["How long h0 lasts", f"  {'hours after t0':<32}" + "".join(f"{hour:>10g}" for hour in hours)]
    for method, layer, cells in _rows(survival, hours):
        shown = "".join(f"{cell:>10}" for cell in cells)
        lines.append(f"  {method:<14}{layer:<18}{shown}".rstrip())
    return "\n".join([*lines, "", _NOTE])


def initial_state_section(inputs: ReportInputs) -> Section | None:
    """Return the same for the report; None without rows."""
    survival = inputs.initial_state
    if survival is None or survival.empty:
        return None
    hours = sorted(set(survival["hours"]))
    body = [Row(cells=[f"{method}, {layer}", *cells]) for method, layer, cells in _rows(survival, hours)]
    table = Table(columns=["hours after t0", *(f"{hour:g}" for hour in hours)], rows=body)
    note = Words(text=_NOTE.replace("\n", " ").strip(), kind="note")
    return Section(anchor="initial-state", title="How long the history in h0 lasts", blocks=[table, note])


def _rows(survival: pd.DataFrame, hours: list[float]) -> list[tuple[str, str, list[str]]]:
    rows = []
    for method, layer in survival[["method", "layer"]].drop_duplicates().itertuples(index=False):
        own = survival.loc[(survival["method"] == method) & (survival["layer"] == layer)]
        at = own.set_index("hours")
        cells = [
            f"{number(at.loc[hour, 'mean'], 2)}/{number(at.loc[hour, 'slowest'], 2)}"
            if hour in at.index
            else ""
            for hour in hours
        ]
        rows.append((short_label(str(method)), str(layer), cells))
    return rows
