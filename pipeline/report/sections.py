"""The report's sections on data and results: Table 1, what PPG added, trajectories, learning."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pipeline.cohort.scored_set import in_method_order
from pipeline.evaluation.delay_methods import ADDED
from pipeline.evaluation.judge import AGGREGATIONS, select
from pipeline.foundation.number_format import (
    UNITS,
    count,
    error_digits,
    interval,
    number,
    p_value,
    short_label,
    signed,
)
from pipeline.foundation.schema import LAB_NAMES, PROTOCOLS, TWINS
from pipeline.prediction.intervals import GIVEN, INTERVAL_STATE, NO_ESTIMATE
from pipeline.report import figures as report_figures
from pipeline.report import html as report_html
from pipeline.report.comparison_text import COMPARISON_METHODS, NOT_ESTIMABLE, PROTOCOL_TITLES, training_luck
from pipeline.report.html import Row, Section, paragraph, text
from pipeline.report.inputs import ReportInputs
from pipeline.report.paper_table import heading, table1, table1_html
from pipeline.report.result_delay_text import method_label
from pipeline.training.curves import kept_epochs

_STAGES = {
    "waveform_catalog": "waveform records",
    "lab_events": "lab results",
    "ppg_embeddings": "segments and windows",
    "lab_alignment": "draws, when labs and windows are brought together",
}
_TITLES = {"pooled": "every draw weighs the same", "patient_macro": "every patient weighs the same"}


def summary(inputs: ReportInputs) -> Section:
    """Say what came out, from the numbers alone."""
    lines = []
    if inputs.comparisons is not None and not inputs.comparisons.empty:
        pairs = inputs.comparisons
        for twin, method in TWINS.items():
            pair = pairs.loc[(pairs["method_a"] == method) & (pairs["method_b"] == twin)]
            for protocol in PROTOCOLS:
                rows = select(pair, protocol=protocol)
                rows = rows.loc[rows["metric"] == "r2"]
                if len(rows):
                    lines.append(_added_sentence(short_label(method), protocol, rows))
    for protocol in PROTOCOLS:
        rows = select(inputs.evaluation, protocol=protocol)
        rows = rows.loc[rows["method"] == inputs.method]
        if len(rows):
            lines.append(_skill_sentence(protocol, short_label(inputs.method), rows))
    return Section(anchor="summary", title="What came out", body=report_html.bullets(lines) + _caveat(inputs))


def _added_sentence(label: str, protocol: str, rows: pd.DataFrame) -> str:
    if not len(rows["difference"].dropna()):
        return f"What PPG added to {label}, protocol {protocol}: {NOT_ESTIMABLE} (it and its twin)."
    better = list(rows.loc[(rows["lower"] > 0) & (rows["p_holm"] < 0.05), "lab"])
    worse = list(rows.loc[(rows["upper"] < 0) & (rows["p_holm"] < 0.05), "lab"])
    harm = f" and lowered it for {_listed(worse, len(rows))}" if worse else ""
    return (
        f"What PPG added to {label}, protocol {protocol}: the patient's own pulse wave, against another patient's, "
        f"raised R2 for {_listed(better, len(rows))}{harm} (interval clear of 0 and p < 0.05 after Holm). "
        f"{training_luck(rows)}"
    )


def _skill_sentence(protocol: str, label: str, rows: pd.DataFrame) -> str:
    better = list(rows.loc[rows["skill_vs_locf_lower"] > 0, "lab"])
    shrunk = list(rows.loc[rows["skill_vs_shrunk_locf_lower"] > 0, "lab"])
    return (
        f"Against carrying the last lab forward, protocol {protocol}: {label} has the smaller MAE for "
        f"{_listed(better, len(rows))}; against shrunk LOCF, for {_listed(shrunk, len(rows))} (interval "
        "of the skill above 0)."
    )


def _listed(labs: list[str], n_scored: int) -> str:
    if not labs:
        return f"none of {n_scored} labs"
    return (
        f"all {n_scored} labs"
        if len(labs) == n_scored
        else f"{len(labs)} of {n_scored} labs ({', '.join(labs)})"
    )


def data(inputs: ReportInputs) -> Section:
    """Show the funnel: how much went in, how much was dropped and why."""
    steps = [Row(cells=[text(name), count(number)]) for name, number in inputs.funnel]
    parts = [report_html.table(["step", "count"], steps)] if steps else []
    for stage, reasons in inputs.exclusions.items():
        dropped = [Row(cells=[text(name), count(number)]) for name, number in reasons.items()]
        parts.append(f"<h3>Dropped: {text(_STAGES.get(stage, stage))}</h3>")
        parts.append(report_html.table(["reason", "count"], dropped) if dropped else paragraph("Nothing."))
    return Section(anchor="data", title="Data and exclusions", body="".join(parts))


def table_one(inputs: ReportInputs) -> Section | None:
    """Table 1 under the paper's protocol."""
    if "start" not in set(inputs.evaluation["protocol"]):
        return None
    words = paragraph(f"{PROTOCOL_TITLES['start']}; measured draws.", "lead")
    body = _caveat(inputs) + words + table1_html(table1(inputs.evaluation))
    return Section(anchor="table1", title="Table 1", body=body)


def all_methods(inputs: ReportInputs) -> Section:
    """Every method, protocol, scoring and aggregation."""
    parts = [
        _caveat(inputs),
        paragraph(
            "The mean over seeds where there are several. Where every patient weighs the same, R2 is taken about "
            "each patient's own mean: it asks whether a method follows the changes within a patient, and knowing "
            "only his level scores 0 at best."
        ),
    ]
    for scoring in dict.fromkeys(inputs.evaluation["scoring"]):
        for protocol in PROTOCOLS:
            for aggregation in AGGREGATIONS:
                rows = select(inputs.evaluation, protocol=protocol, scoring=scoring, aggregation=aggregation)
                if len(rows):
                    weighing = _TITLES[aggregation]
                    parts.append(
                        f"<h3>Protocol {protocol}, {scoring} draws: {weighing}</h3>{_method_rows(rows)}"
                    )
    return Section(anchor="all", title="All methods", body="".join(parts))


def _method_rows(rows: pd.DataFrame) -> str:
    columns = ["", "R2", "skill vs LOCF", "skill vs shrunk LOCF", "MAE", "ME", "RMSE"]
    body: list[Row] = []
    for lab in LAB_NAMES:
        part = rows.loc[rows["lab"] == lab]
        if part.empty:
            continue
        body.append(Row(cells=[text(heading(lab, part))], kind="group"))
        by_method = {row["method"]: row for row in part.to_dict(orient="records")}
        for method in in_method_order(list(by_method)):
            cells = [_metric_cell(by_method[method], name, lab) for name in _METRIC_ORDER]
            kind = "ours" if method == "mt_pcs" else ""
            body.append(Row(cells=[text(short_label(method)), *cells], kind=kind))
    return report_html.table(columns, body)


_METRIC_ORDER = ("r2", "skill_vs_locf", "skill_vs_shrunk_locf", "mae", "me", "rmse")


def _metric_cell(row: Mapping[Any, Any], name: str, lab: str) -> str:
    places = error_digits(lab) if name in ("mae", "me", "rmse") else 2
    if name == "rmse":
        return text(number(row[name], places))
    shown = signed(row[name], places) if name == "me" else number(row[name], places)
    return report_html.interval_cell(shown, interval(row[f"{name}_lower"], row[f"{name}_upper"], places))


def skill(inputs: ReportInputs) -> Section:
    """Forest plot of skill."""
    methods = inputs.evaluation["method"].isin(COMPARISON_METHODS)
    figure = report_html.figure(
        report_figures.forest_svg(inputs.evaluation.loc[methods]),
        "Skill against LOCF, pooled over measured test draws; lines are 95 % intervals by bootstrap over "
        "patients, an arrow where one leaves the picture. Shrunk LOCF, a + b x LOCF fitted on training patients, "
        "shows what two numbers per lab can do without PPG.",
    )
    return Section(anchor="skill", title="Skill against carrying the last lab forward", body=figure)


def added(inputs: ReportInputs) -> Section | None:
    """MT+PCS minus its twin, and any other comparison."""
    table = inputs.comparisons
    if table is None or table.empty:
        return None
    parts = [
        paragraph(
            "A twin is its method trained and scored with the embeddings of another patient of the same "
            "split; history labs, times and gaps are the patient's own. What is left between the two is "
            "what PPG added."
        )
    ]
    for pair in table.drop_duplicates(["method_a", "method_b"]).to_dict(orient="records"):
        rows = table.loc[(table["method_a"] == pair["method_a"]) & (table["method_b"] == pair["method_b"])]
        parts.append(
            f"<h3>{text(short_label(pair['method_a']))} minus {text(short_label(pair['method_b']))}</h3>"
        )
        parts.append(
            report_html.figure(
                report_figures.added_svg(rows, short_label(pair["method_a"])),
                "Differences on the same test draws, paired by patient; lines are 95 % bootstrap intervals, an arrow "
                f"where one leaves the picture. {training_luck(rows)} With B replicates the smallest p is "
                "2 / (B + 1), times 5 after Holm.",
            )
        )
        parts.append(_difference_table(rows))
    return Section(anchor="added", title="What PPG added", body=_caveat(inputs) + "".join(parts))


def _difference_table(table: pd.DataFrame) -> str:
    columns = ["", "R2", "p (Holm)", "skill vs LOCF", "p (Holm)", "MAE", "p (Holm)"]
    body: list[Row] = []
    for protocol in PROTOCOLS:
        rows = select(table, protocol=protocol)
        if len(rows):
            body.append(Row(cells=[text(f"protocol {protocol}")], kind="group"))
        for lab in dict.fromkeys(rows["lab"]):
            by_metric = {row["metric"]: row for row in rows.loc[rows["lab"] == lab].to_dict(orient="records")}
            cells = []
            if all(math.isnan(row["difference"]) for row in by_metric.values()):
                body.append(Row(cells=[text(f"{lab}, {UNITS[lab]}"), text(NOT_ESTIMABLE)], kind="remark"))
                continue
            for metric, places in (("r2", 2), ("skill_vs_locf", 2), ("mae", error_digits(lab))):
                row = by_metric[metric]
                bounds = interval(row["lower"], row["upper"], places)
                cells += [
                    report_html.interval_cell(signed(row["difference"], places), bounds),
                    text(p_value(row["p_holm"])),
                ]
            body.append(Row(cells=[text(f"{lab}, {UNITS[lab]}"), *cells]))
    return report_html.table(columns, body)


def delays(inputs: ReportInputs) -> Section | None:
    """Show what the methods achieve when results come later."""
    table = inputs.delays
    if table is None or table.empty:
        return None
    minutes = sorted(table["delay_minutes"].unique().tolist())
    spans = [("", 1), *((f"result after {delay} min", 2) for delay in minutes)]
    columns = ["", *(["R2", "MAE"] * len(minutes))]
    parts = [
        paragraph(
            "No result is known before its delay; models as trained, baselines fitted anew. A delay moves draws into "
            "and out of the scored set: compare the methods of one delay."
        )
    ]
    for protocol in (name for name in PROTOCOLS if name in set(table["protocol"])):
        mine = table.loc[table["protocol"] == protocol]
        body = report_html.table(columns, _delay_rows(mine, minutes), spans=spans)
        parts.append(f"<h3>Protocol {text(protocol)}</h3>{body}")
    return Section(anchor="delays", title="If results come later", body="".join(parts))


def _delay_rows(table: pd.DataFrame, minutes: Sequence[int]) -> list[Row]:
    body: list[Row] = []
    for lab in (name for name in LAB_NAMES if name in set(table["lab"])):
        part = table.loc[table["lab"] == lab]
        draws = part.drop_duplicates("delay_minutes").set_index("delay_minutes")["n_labs"].to_dict()
        counts = " / ".join(count(draws.get(delay)) for delay in minutes)
        body.append(Row(cells=[text(f"{lab}, {UNITS[lab]}: {counts} draws")], kind="group"))
        for method in dict.fromkeys(part["method"]):
            rows = part.loc[part["method"] == method].set_index("delay_minutes").to_dict(orient="index")
            cells = [cell for delay in minutes for cell in _delay_cells(rows.get(delay), lab, method)]
            kind = "ours" if method == ADDED else ""
            body.append(Row(cells=[text(method_label(method)), *cells], kind=kind))
    return body


def _delay_cells(row: Mapping[Any, Any] | None, lab: str, method: str) -> list[str]:
    if row is None:
        return [text(number(None))] * 2
    show = signed if method == ADDED else number
    return [
        report_html.interval_cell(
            show(row[name], places), interval(row[f"{name}_lower"], row[f"{name}_upper"], places)
        )
        for name, places in (("r2", 2), ("mae", error_digits(lab)))
    ]


def trajectories(inputs: ReportInputs) -> Section | None:
    """Estimates over time for some test patients."""
    if inputs.trajectories is None or inputs.trajectories.empty:
        return None
    draws = inputs.draws if inputs.draws is not None else inputs.trajectories.iloc[:0].assign(value=0.0)
    parts = [
        paragraph(
            f"Estimates of {short_label(inputs.method)} every 30 s for some test patients; a long recording is thinned "
            f"to what a picture can show. The band is the {100 * inputs.interval_level:g} % prediction interval."
            f"{_without_band(inputs.trajectories)} Hours count from t0; no dates are shown."
        )
    ]
    for label in dict.fromkeys(inputs.trajectories["sequence"]):
        mine = inputs.trajectories.loc[inputs.trajectories["sequence"] == label]
        own = draws.loc[draws["sequence"] == label]
        parts.append(report_html.figure(report_figures.trajectory_svg(mine, own), str(label)))
    return Section(anchor="trajectories", title="Trajectories", body="".join(parts))


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
    parts = [
        report_html.figure(
            report_figures.loss_curve_svg(curves[name]), f"{short_label(name)}{kept_epochs(curves[name])}"
        )
        for name in in_method_order(list(curves))
    ]
    return Section(anchor="learning", title="Loss curves", body="".join(parts))


def _caveat(inputs: ReportInputs) -> str:
    return f'<div class="banner">{text(inputs.caveat)}</div>' if inputs.caveat else ""
