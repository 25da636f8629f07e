"""The report's sections on agreement, calibration, alarms, subgroups and the model card."""

from collections.abc import Sequence

import pandas as pd

from pipeline.evaluation.agreement import agreement_table
from pipeline.evaluation.alarms import MINIMUM_EVENTS, alarm_table
from pipeline.evaluation.coverage import coverage, reliability
from pipeline.evaluation.grids import ZONES, allowable_error_table, error_grids, grid_table
from pipeline.evaluation.subgroups import GROUPINGS, SubgroupConfig, subgroup_table
from pipeline.foundation.number_format import (
    UNITS,
    count,
    error_digits,
    interval,
    number,
    short_label,
    signed,
)
from pipeline.foundation.schema import LAB_NAMES
from pipeline.report import checks as report_checks
from pipeline.report import html as report_html
from pipeline.report.html import Row, Section, paragraph, text
from pipeline.report.inputs import ReportInputs

_REFERENCES = ("locf", "shrunk_locf")
_LEAST = SubgroupConfig().minimum_patients
"""Cells with fewer patients are hidden."""


def _hidden(names: Sequence[str]) -> list[Row]:
    """Name the cells that are not shown, all in one row; nothing when there are none."""
    words = f"hidden: under {_LEAST} patients ({', '.join(names)})"
    return [Row(cells=["", text(words)], kind="remark")] if names else []


def agreement(inputs: ReportInputs) -> Section:
    """Bland-Altman for repeated draws."""
    method = inputs.method
    table = agreement_table(_of_methods(inputs, (method, *_REFERENCES)), replicates=500)
    columns = ["", "bias", "limits of agreement", "SD within patients", "SD between", "slope"]
    rows: list[Row] = []
    for lab in LAB_NAMES:
        part = table.loc[table["lab"] == lab]
        if len(part):
            rows.append(Row(cells=[text(f"{lab}, {UNITS[lab]}")], kind="group"))
        for row in part.to_dict(orient="records"):
            places = error_digits(lab)
            limits = f"{signed(row['limit_low'], places)} to {signed(row['limit_high'], places)}"
            bias = report_html.interval_cell(
                signed(row["bias"], places), interval(row["bias_lower"], row["bias_upper"], places)
            )
            cells = [text(number(row[name], places)) for name in ("sd_within", "sd_between")]
            slope = text(signed(row["slope"]))
            rows.append(Row(cells=[text(short_label(row["method"])), bias, text(limits), *cells, slope]))
    figure = report_html.figure(
        report_checks.bland_altman_svg(inputs.blocks, method),
        f"{short_label(method)}, protocol {inputs.protocol}: every dot is a test draw; lines are bias "
        "and 95 % limits of agreement by one-way random effects, since patients give several draws.",
    )
    note = paragraph("Slope: of the difference on the mean; below 0, high values are read too low.", "note")
    return Section(
        anchor="agreement",
        title="Agreement (Bland-Altman)",
        body=figure + report_html.table(columns, rows) + note,
    )


def glucose(inputs: ReportInputs) -> Section | None:
    """Clarke's grid, both grids' zones, MARD."""
    if not any(block.lab == "glucose" for block in inputs.blocks):
        return None
    methods = [name for name in (inputs.method, *_REFERENCES) if name in inputs.blocks[0].estimates]
    figure = report_html.figure(
        report_checks.clarke_svg(inputs.blocks, methods),
        f"Clarke error grid, protocol {inputs.protocol}, measured test draws.",
    )
    table = grid_table(_of_methods(inputs, tuple(methods)))
    rows: list[Row] = []
    for name in dict.fromkeys(table["grid"]):
        grid = error_grids()[name]
        remark = "" if grid["verified"] else " (borders not verified)"
        rows.append(Row(cells=[text(grid["title"] + remark)], kind="group"))
        for row in table.loc[table["grid"] == name].to_dict(orient="records"):
            zones = [f"{100 * row[f'zone_{zone.lower()}']:.1f}" for zone in ZONES]
            cells = [text(short_label(row["method"])), *zones, text(number(row["mard_percent"], 1))]
            rows.append(Row(cells=cells))
    columns = ["share of draws, %", *ZONES, "MARD, %"]
    sources = "".join(
        paragraph(f"{grid['title']}: {grid['source']}", "note") for grid in error_grids().values()
    )
    body = figure + report_html.table(columns, rows) + sources
    return Section(anchor="glucose", title="Glucose error grids", body=body)


def calibration(inputs: ReportInputs) -> Section:
    """Coverage of the intervals, reliability of the estimates."""
    mine = inputs.focus.loc[inputs.focus["method"] == inputs.method]
    levels = reliability(mine)
    n_patients = mine.loc[mine["split"] == "calibration", "patient"].nunique()
    figure = report_html.figure(
        report_checks.reliability_svg(levels, inputs.blocks, inputs.method),
        f"{short_label(inputs.method)}, protocol {inputs.protocol}. Left: split conformal intervals, "
        f"calibrated on {count(n_patients)} patients, at several levels. Right: test draws in fifths of "
        "the estimate; on the diagonal, an estimate means what it says.",
    )
    table = coverage(mine, inputs.interval_level)
    columns = [
        "",
        "draws",
        "patients",
        "coverage, %",
        "mean over patients, %",
        "mean width",
        "without interval, %",
    ]
    rows: list[Row] = []
    for lab in LAB_NAMES:
        part = table.loc[table["lab"] == lab]
        if len(part):
            rows.append(Row(cells=[text(f"{lab}, {UNITS[lab]}")], kind="group"))
        cells = sorted(part.to_dict(orient="records"), key=lambda row: _gap_order(row["gap"]))
        shown = [row for row in cells if row["n_patients"] >= _LEAST or row["gap"] == "all"]
        rows += [Row(cells=_coverage_cells(row, lab)) for row in shown]
        rows += _hidden([row["gap"] for row in cells if row not in shown])
    promise = paragraph(
        f"Intervals promise {100 * inputs.interval_level:g} % for a draw of a new patient, over patients. Coverage and "
        f"width are of the draws that have an interval.{_without_interval(table)} Cells under 10 patients are hidden.",
        "note",
    )
    return Section(
        anchor="calibration",
        title="Calibration and coverage",
        body=figure + report_html.table(columns, rows) + promise,
    )


def _without_interval(table: pd.DataFrame) -> str:
    """Say which labs have draws without an interval, and why; nothing where all have one."""
    missing = table.loc[(table["gap"] == "all") & (table["missing_share"] > 0)]
    told = [f"{row['lab']} ({row['missing_reason']})" for row in missing.to_dict(orient="records")]
    return f" Without interval: {', '.join(told)}." if told else ""


def _coverage_cells(row: dict, lab: str) -> list[str]:
    label = "all" if row["gap"] == "all" else f"{row['gap']} since the last lab"
    shares = [number(100 * row[name], 1) for name in ("coverage", "coverage_patient_macro")]
    width = number(row["mean_width"], error_digits(lab))
    missing = number(100 * row["missing_share"], 0)
    return [text(label), count(row["n_labs"]), count(row["n_patients"]), *shares, text(width), missing]


def _gap_order(gap: str) -> float:
    if gap == "all":
        return -1.0
    return float("inf") if gap.startswith(">") else float(gap.split("-")[0])


def alarms(inputs: ReportInputs) -> Section:
    """AUROC and AUPRC per alarm."""
    table = alarm_table(_of_methods(inputs, (inputs.method, "mt_pcs_twin", *_REFERENCES)))
    columns = ["", "AUROC", "AUPRC", "events", "prevalence, %"]
    rows: list[Row] = []
    skipped: list[str] = []
    for name in dict.fromkeys(table["alarm"]):
        part = table.loc[table["alarm"] == name]
        if part["skipped"].astype(bool).all():
            skipped.append(name)
            continue
        rows.append(Row(cells=[text(name)], kind="group"))
        for row in part.to_dict(orient="records"):
            auroc = report_html.interval_cell(
                number(row["auroc"]), interval(row["auroc_lower"], row["auroc_upper"])
            )
            cells = [text(number(row["auprc"])), count(row["n_events"]), number(100 * row["prevalence"], 1)]
            rows.append(Row(cells=[text(short_label(row["method"])), auroc, *cells]))
    note = paragraph(
        f"Protocol {inputs.protocol}. The estimate is the score; AUPRC by chance is the prevalence. Not "
        "an alarm for use.",
        "note",
    )
    body = report_html.table(columns, rows) if rows else ""
    if skipped:
        body += paragraph(
            f"Skipped, with fewer than {MINIMUM_EVENTS} events or fewer than {MINIMUM_EVENTS} draws without one: "
            f"{', '.join(skipped)}."
        )
    return Section(anchor="alarms", title="Thresholds", body=body + note)


def subgroups(inputs: ReportInputs) -> Section:
    """Metrics by subgroup, small cells hidden."""
    methods = (inputs.method, *_REFERENCES)
    table = subgroup_table(_of_methods(inputs, methods), patients=inputs.patients, quality=inputs.quality)
    parts = []
    if not table.loc[table["grouping"] == "gap", "suppressed"].astype(bool).all():
        caption = (
            f"Mean absolute error by hours since the last lab, protocol {inputs.protocol}; lines are 95 % intervals by "
            f"bootstrap over patients, bins under {_LEAST} patients hidden."
        )
        parts.append(report_html.figure(report_checks.gap_svg(table, methods), caption))
    own = table.loc[table["method"] == inputs.method]
    for grouping, title in GROUPINGS.items():
        rows = own.loc[own["grouping"] == grouping]
        if len(rows) and rows["suppressed"].astype(bool).all():
            words = f"Every group has under {_LEAST} patients and is hidden."
            parts.append(f"<h3>{text(title)}</h3>{paragraph(words, 'note')}")
        elif len(rows):
            parts.append(f"<h3>{text(title)}</h3>{_subgroup_rows(rows)}")
    parts.append(
        paragraph(
            f"{short_label(inputs.method)}; groups under 10 patients are hidden. Ethnicity is as "
            "recorded; skin tone, which matters to PPG, is not recorded.",
            "note",
        )
    )
    return Section(anchor="subgroups", title="Subgroups", body="".join(parts))


def _subgroup_rows(table: pd.DataFrame) -> str:
    columns = ["", "draws", "patients", "MAE", "ME", "skill vs LOCF"]
    rows: list[Row] = []
    for lab in dict.fromkeys(table["lab"]):
        places = error_digits(lab)
        rows.append(Row(cells=[text(f"{lab}, {UNITS[lab]}")], kind="group"))
        for row in table.loc[table["lab"] == lab].to_dict(orient="records"):
            if row["suppressed"]:
                continue
            cells = [
                report_html.interval_cell(
                    signed(row[name], digits) if name == "me" else number(row[name], digits),
                    interval(row[f"{name}_lower"], row[f"{name}_upper"], digits),
                )
                for name, digits in (("mae", places), ("me", places), ("skill_vs_locf", 2))
            ]
            rows.append(
                Row(cells=[text(row["group"]), count(row["n_labs"]), count(row["n_patients"]), *cells])
            )
        mine = table.loc[table["lab"] == lab]
        rows += _hidden(list(mine.loc[mine["suppressed"].astype(bool), "group"]))
    return report_html.table(columns, rows)


def allowable(inputs: ReportInputs) -> Section:
    """Share within allowable errors, apart from the headline, with the source of every limit."""
    table = allowable_error_table(_of_methods(inputs, (inputs.method, *_REFERENCES)))
    columns = ["", "within the limit, %", "limit verified"]
    rows: list[Row] = []
    for scheme in dict.fromkeys(table["scheme"]):
        part = table.loc[table["scheme"] == scheme]
        rows.append(Row(cells=[text(f"{scheme}: {part['source'].iloc[0]}")], kind="group"))
        for row in part.to_dict(orient="records"):
            label = f"{row['lab']}, {short_label(row['method'])}"
            share = number(100 * row["share_within"], 1)
            rows.append(Row(cells=[text(label), share, "yes" if row["verified"] else "no"]))
    words = paragraph(
        "Limits for laboratories, not goals that an estimate from a pulse wave is expected to meet. "
        "A limit that is not verified was not found in a source that could be read."
    )
    return Section(
        anchor="limits",
        title="Allowable errors of laboratories",
        body=words + report_html.table(columns, rows),
    )


def model_card(inputs: ReportInputs) -> Section:
    """Intended use, data, licences and limits."""
    facts = report_html.facts(
        [
            (
                "Task",
                "estimate potassium, total calcium, sodium, glucose and lactate from PPG and earlier labs",
            ),
            ("Intended use", "research on retrospective recordings"),
            (
                "Not for",
                "any decision about a patient; it is not a medical device and nothing here is a lab result",
            ),
            ("Encoder", inputs.encoder or "not stated"),
            ("Data", inputs.source or "not stated"),
            ("Licence of the data", inputs.data_licence or "not stated"),
        ]
    )
    limits = report_html.bullets(
        [
            "Results hold for patients like those above. Another hospital, monitor, sensor or "
            "laboratory may differ.",
            "Labs are drawn for a reason: scored draws are not a random sample of time.",
            "Where result times are unknown, a result is taken as available when drawn, unless a delay "
            "is configured; that favours every method that uses earlier labs.",
            "Pulse oximeter signals depend on skin tone, perfusion, temperature and vasopressors; skin "
            "tone is not recorded.",
            "Weights, embeddings and predictions may carry traces of the patients they were made from: "
            "share them only as the licence of the data allows.",
            "Intervals hold on average over patients, not for each patient.",
        ]
    )
    return Section(anchor="card", title="Model card", body=facts + "<h3>Limits</h3>" + limits)


def _of_methods(inputs: ReportInputs, methods: tuple[str, ...]) -> pd.DataFrame:
    return inputs.focus.loc[inputs.focus["method"].isin(methods)]
