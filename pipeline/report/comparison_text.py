"""The comparison of all methods as the terminal shows it: plain text, fixed width."""

from typing import Any

import pandas as pd

from pipeline.cohort.scored_set import in_method_order
from pipeline.evaluation.judge import select
from pipeline.foundation.number_format import error_digits, interval, number, p_value, short_label, signed
from pipeline.foundation.schema import LAB_NAMES, PROTOCOLS, TWINS
from pipeline.report.claims import NOT_ESTIMABLE
from pipeline.report.paper_text import heading

COMPARISON_METHODS = (
    "locf", "shrunk_locf", "lstm", "mt", "st_pcs", "mt_pcs", "mt_pcs_twin", "lines", "mt_assim", "mt_assim_twin",
    "mt_assim_lines",
)  # fmt: skip
PROTOCOL_TITLES = {
    "start": "Protocol start: the model sees no lab after the first 30 minutes",
    "anchored": "Protocol anchored: the model sees every result that has become available",
}
_CELLS = (("r2", "R2"), ("mae", "MAE"), ("skill_vs_locf", "skill"))
_NOTE = (
    "Measured draws of the test patients; [95 % interval by bootstrap over patients].\n"
    "Skill = 1 - MAE / MAE of LOCF. p: of the difference in R2, by Holm over the labs.\n"
)


def training_luck(comparisons: pd.DataFrame) -> str:
    """Say what the intervals of a comparison cover, by how many training runs it rests on."""
    runs = max(comparisons["n_seeds"].to_list())
    if runs == 1:
        return "One training run: these intervals cover the choice of patients, not the luck of training."
    return f"Mean over {runs} training runs: these intervals cover patients and, as far as {runs} runs tell, training."


def comparison_table(
    evaluation: pd.DataFrame, comparisons: pd.DataFrame | None = None, caveat: str = ""
) -> str:
    """Return methods against each other per protocol and lab, and the paired differences below them.

    Parameters
    ----------
    evaluation
        Table with ``schema.EVALUATION_COLUMNS``; shown are measured draws, pooled, the mean over seeds.
    comparisons
        Table with ``evaluation.COMPARISON_COLUMNS``, for example MT+PCS minus its twin; None or empty:
        left out.
    caveat
        Why the experiment's protocol flatters; stands above the table.
    """
    parts = [caveat + "\n"] if caveat else []
    for protocol in PROTOCOLS:
        rows = select(evaluation, protocol=protocol)
        rows = rows.loc[rows["method"].isin(COMPARISON_METHODS)]
        if rows.empty:
            continue
        parts.append(_methods_text(protocol, rows))
        if comparisons is not None and not comparisons.empty:
            parts += _differences(comparisons, protocol)
    return "\n".join([*parts, _NOTE])


def _methods_text(protocol: str, rows: pd.DataFrame) -> str:
    lines = [PROTOCOL_TITLES[protocol], _header()]
    for lab in LAB_NAMES:
        part = rows.loc[rows["lab"] == lab]
        if part.empty:
            continue
        lines.append(heading(lab, part))
        by_method = {row["method"]: row for row in part.to_dict(orient="records")}
        for method in in_method_order(list(by_method)):
            cells = [_cell(by_method[method], name, lab) for name, _ in _CELLS]
            lines.append(f"  {short_label(method):<12}{''.join(cells)}".rstrip())
    return "\n".join(lines) + "\n"


def _differences(comparisons: pd.DataFrame, protocol: str) -> list[str]:
    pairs = comparisons.drop_duplicates(["method_a", "method_b"]).to_dict(orient="records")
    texts = []
    for pair in pairs:
        a, b = pair["method_a"], pair["method_b"]
        mine = comparisons.loc[(comparisons["method_a"] == a) & (comparisons["method_b"] == b)]
        rows = select(mine, protocol=protocol)
        if rows.empty:
            continue
        added = "What PPG added: " if TWINS.get(b) == a else ""
        title = f"{added}{short_label(a)} minus {short_label(b)}, paired by patient ({protocol})"
        lines = [_difference_row(lab, rows.loc[rows["lab"] == lab]) for lab in dict.fromkeys(rows["lab"])]
        texts.append("\n".join([title, f"{_header()}     p", *lines, training_luck(rows)]) + "\n")
    return texts


def _difference_row(lab: str, rows: pd.DataFrame) -> str:
    by_metric = {row["metric"]: row for row in rows.to_dict(orient="records")}
    if not len(rows["difference"].dropna()):
        return f"  {lab:<12}  {NOT_ESTIMABLE}"
    cells = []
    for metric, _ in _CELLS:
        row, places = by_metric[metric], _places(metric, lab)
        bounds = interval(row["lower"], row["upper"], places)
        cells.append(f"{signed(row['difference'], places):>8} {bounds:<16}")
    return f"  {lab:<12}{''.join(cells)} {p_value(by_metric['r2']['p_holm'])}"


def _header() -> str:
    return f"  {'':<12}" + "".join(f"{title:>8} {'':<16}" for _, title in _CELLS).rstrip().ljust(72)


def _cell(row: dict[Any, Any], name: str, lab: str) -> str:
    places = _places(name, lab)
    bounds = interval(row[f"{name}_lower"], row[f"{name}_upper"], places)
    return f"{number(row[name], places):>8} {bounds:<16}"


def _places(name: str, lab: str) -> int:
    return error_digits(lab) if name == "mae" else 2
