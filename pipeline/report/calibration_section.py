"""The report's section on calibration: what intervals hold, and whether an estimate means what it says."""

from collections.abc import Sequence

import pandas as pd

from pipeline.evaluation.calibration_line import calibration_lines
from pipeline.evaluation.coverage import coverage, reliability
from pipeline.foundation.number_format import UNITS, count, counted, error_digits, number, short_label
from pipeline.foundation.schema import LAB_NAMES
from pipeline.report import checks as report_checks
from pipeline.report.details import LEAST_PATIENTS, REFERENCES, of_methods
from pipeline.report.document import Block, Figure, Row, Section, Table, Words, bounded
from pipeline.report.inputs import ReportInputs


def calibration(inputs: ReportInputs) -> Section:
    """Slope and intercept, coverage of the intervals, reliability of the estimates."""
    mine = inputs.focus.loc[inputs.focus["method"] == inputs.method]
    levels = reliability(mine)
    n_patients = mine.loc[mine["split"] == "calibration", "patient"].nunique()
    figure = Figure(
        svg=report_checks.reliability_svg(levels, inputs.blocks, inputs.method),
        caption=f"{short_label(inputs.method)}, protocol {inputs.protocol}. Left: split conformal intervals, "
        f"calibrated on {counted(n_patients, 'patients')}, at several levels. Right: test draws in fifths of "
        "the estimate; on the diagonal, an estimate means what it says.",
    )
    blocks: list[Block] = [figure, *_lines(inputs), *_coverage(inputs, mine)]
    return Section(anchor="calibration", title="Calibration and coverage", blocks=blocks)


def _lines(inputs: ReportInputs) -> list[Block]:
    table = calibration_lines(of_methods(inputs, (inputs.method, *REFERENCES)))
    rows: list[Row] = []
    for lab in LAB_NAMES:
        part = table.loc[table["lab"] == lab]
        if len(part):
            rows.append(Row(cells=[f"{lab}, {UNITS[lab]}"], kind="group"))
        for row in part.to_dict(orient="records"):
            cells = [
                bounded(row, name, places)
                for name, places in (("slope", 2), ("intercept", error_digits(lab)))
            ]
            rows.append(Row(cells=[short_label(row["method"]), *cells]))
    caption = (
        "Calibration line: truth = intercept + slope x estimate, [95 % interval by bootstrap over patients]."
    )
    note = (
        "Slope 1 and intercept 0: an estimate means what it says. Slope below 1: estimates are too extreme."
    )
    return [
        Table(columns=["", "slope", "intercept"], rows=rows, caption=caption),
        Words(text=note, kind="note"),
    ]


def _coverage(inputs: ReportInputs, mine: pd.DataFrame) -> list[Block]:
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
    hidden: list[str] = []
    for lab in LAB_NAMES:
        part = table.loc[table["lab"] == lab]
        if len(part):
            rows.append(Row(cells=[f"{lab}, {UNITS[lab]}"], kind="group"))
        cells = sorted(part.to_dict(orient="records"), key=lambda row: _gap_order(row["gap"]))
        shown = [row for row in cells if row["n_patients"] >= LEAST_PATIENTS or row["gap"] == "all"]
        rows += [Row(cells=_coverage_cells(row, lab)) for row in shown]
        away = [row["gap"] for row in cells if row not in shown]
        hidden += [f"{lab} ({', '.join(away)})"] if away else []
    told = f" Hidden, since under {LEAST_PATIENTS} patients: {'; '.join(hidden)}." if hidden else ""
    promise = (
        f"Intervals promise {100 * inputs.interval_level:g} % for a draw of a new patient, over patients. Coverage and "
        f"width are of the draws that have an interval.{_without_interval(table)}{told}"
    )
    caption = f"Coverage of the {100 * inputs.interval_level:g} % intervals, by hours since the last lab."
    return [Table(columns=columns, rows=rows, caption=caption), Words(text=promise, kind="note")]


def _without_interval(table: pd.DataFrame) -> str:
    """Say which labs have draws without an interval, and why; nothing where all have one."""
    missing = table.loc[(table["gap"] == "all") & (table["missing_share"] > 0)]
    told = [f"{row['lab']} ({row['missing_reason']})" for row in missing.to_dict(orient="records")]
    return f" Without interval: {', '.join(told)}." if told else ""


def _coverage_cells(row: dict, lab: str) -> Sequence[str]:
    label = "all" if row["gap"] == "all" else f"{row['gap']} since the last lab"
    shares = [number(100 * row[name], 1) for name in ("coverage", "coverage_patient_macro")]
    width = number(row["mean_width"], error_digits(lab))
    missing = number(100 * row["missing_share"], 0)
    return [label, count(row["n_labs"]), count(row["n_patients"]), *shares, width, missing]


def _gap_order(gap: str) -> float:
    if gap == "all":
        return -1.0
    return float("inf") if gap.startswith(">") else float(gap.split("-")[0])
