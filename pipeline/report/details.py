"""The report's sections on agreement, error grids, alarms, subgroups and allowable errors."""

from collections.abc import Sequence

import pandas as pd

from pipeline.evaluation.agreement import agreement_table
from pipeline.evaluation.alarms import MINIMUM_EVENTS, alarm_table
from pipeline.evaluation.grids import ZONES, allowable_error_table, error_grids, grid_table
from pipeline.evaluation.subgroups import GROUPINGS, SubgroupConfig, subgroup_table
from pipeline.foundation.number_format import (
    UNITS,
    count,
    counted,
    error_digits,
    interval,
    number,
    short_label,
    signed,
)
from pipeline.foundation.schema import LAB_NAMES
from pipeline.report import checks as report_checks
from pipeline.report.document import Block, Cell, Figure, Row, Section, Table, Words, bounded
from pipeline.report.inputs import ReportInputs

REFERENCES = ("locf", "shrunk_locf")
LEAST_PATIENTS = SubgroupConfig().minimum_patients
"""Cells with fewer patients are hidden."""


def agreement(inputs: ReportInputs) -> Section:
    """Bland-Altman for repeated draws."""
    method = inputs.method
    table = agreement_table(of_methods(inputs, (method, *REFERENCES)), replicates=500)
    columns = ["", "bias", "limits of agreement", "SD within patients", "SD between", "slope"]
    rows: list[Row] = []
    for lab in LAB_NAMES:
        part = table.loc[table["lab"] == lab]
        if len(part):
            rows.append(Row(cells=[f"{lab}, {UNITS[lab]}"], kind="group"))
        for row in part.to_dict(orient="records"):
            places = error_digits(lab)
            limits = f"{signed(row['limit_low'], places)} to {signed(row['limit_high'], places)}"
            bounds = interval(row["bias_lower"], row["bias_upper"], places)
            bias = Cell(value=signed(row["bias"], places), bounds=bounds)
            cells = [number(row[name], places) for name in ("sd_within", "sd_between")]
            rows.append(Row(cells=[short_label(row["method"]), bias, limits, *cells, signed(row["slope"])]))
    figure = Figure(
        svg=report_checks.bland_altman_svg(inputs.blocks, method),
        caption=f"{short_label(method)}, protocol {inputs.protocol}: every dot is a test draw; lines are bias "
        "and 95 % limits of agreement by one-way random effects, since patients give several draws.",
    )
    note = Words(
        text="Slope: of the difference on the mean; below 0, high values are read too low.", kind="note"
    )
    body = [figure, Table(columns=columns, rows=rows, folded="Bias and limits of agreement in numbers"), note]
    return Section(anchor="agreement", title="Agreement (Bland-Altman)", blocks=body)


def glucose(inputs: ReportInputs) -> Section | None:
    """Clarke's grid, both grids' zones, MARD."""
    if not any(block.lab == "glucose" for block in inputs.blocks):
        return None
    methods = [name for name in (inputs.method, *REFERENCES) if name in inputs.blocks[0].estimates]
    figure = Figure(
        svg=report_checks.clarke_svg(inputs.blocks, methods),
        caption=f"Clarke error grid, protocol {inputs.protocol}, measured test draws. Diamonds are the events: draws "
        f"below {report_checks.LOW_GLUCOSE:g} or above {report_checks.HIGH_GLUCOSE:g} mg/dL.",
    )
    table = grid_table(of_methods(inputs, tuple(methods)))
    rows: list[Row] = []
    for name in dict.fromkeys(table["grid"]):
        grid = error_grids()[name]
        remark = "" if grid["verified"] else " (borders not verified)"
        rows.append(Row(cells=[grid["title"] + remark], kind="group"))
        for row in table.loc[table["grid"] == name].to_dict(orient="records"):
            zones = [f"{100 * row[f'zone_{zone.lower()}']:.1f}" for zone in ZONES]
            rows.append(Row(cells=[short_label(row["method"]), *zones, number(row["mard_percent"], 1)]))
    columns = ["share of draws, %", *ZONES, "MARD, %"]
    zone_d = Words(text=_zone_d(inputs, methods))
    sources = [
        Words(text=f"{grid['title']}: {grid['source']}", kind="note") for grid in error_grids().values()
    ]
    body = [figure, zone_d, Table(columns=columns, rows=rows), *sources]
    return Section(anchor="glucose", title="Glucose error grids", blocks=body)


def _zone_d(inputs: ReportInputs, methods: list[str]) -> str:
    """Say what zone D means and how many of the events lie in it."""
    block = next(block for block in inputs.blocks if block.lab == "glucose")
    events = report_checks.glucose_events(block.truth)
    told = [f"{short_label(name)} {count(report_checks.missed_events(block, name))}" for name in methods]
    return (
        "Zone D is the dangerous one for estimates that keep to the mean: glucose is below 70 or above 240 mg/dL and "
        f"the estimate says that all is well. Of {counted(int(events.sum()), 'events')} here, so many lie in zone D: "
        f"{', '.join(told)}."
    )


def alarms(inputs: ReportInputs) -> Section | None:
    """AUROC and AUPRC per alarm; None where no threshold has enough draws on both sides."""
    table = alarm_table(of_methods(inputs, (inputs.method, "mt_pcs_twin", *REFERENCES)))
    if bool(table["skipped"].to_numpy(dtype=bool).all()):
        return None
    columns = ["", "AUROC", "AUPRC", "events", "prevalence, %"]
    rows: list[Row] = []
    skipped: list[str] = []
    for name in dict.fromkeys(table["alarm"]):
        part = table.loc[table["alarm"] == name]
        if part["skipped"].astype(bool).all():
            skipped.append(name)
            continue
        rows.append(Row(cells=[name], kind="group"))
        best = {column: part[column].astype(float).round(2).max() for column in ("auroc", "auprc")}
        for row in part.to_dict(orient="records"):
            cells: list[Cell | str] = [
                bounded(row, "auroc", best=bool(round(float(row["auroc"]), 2) == best["auroc"])),
                Cell(value=number(row["auprc"]), best=bool(round(float(row["auprc"]), 2) == best["auprc"])),
                count(row["n_events"]),
                number(100 * row["prevalence"], 1),
            ]
            rows.append(Row(cells=[short_label(row["method"]), *cells]))
    body: list[Block] = [Table(columns=columns, rows=rows)]
    if skipped:
        body.append(Words(text=_not_judged(skipped)))
    note = f"Protocol {inputs.protocol}. The estimate is the score; AUPRC by chance is the prevalence. Not for use."
    return Section(anchor="alarms", title="Thresholds", blocks=[*body, Words(text=note, kind="note")])


def _not_judged(names: Sequence[str]) -> str:
    why = f"fewer than {MINIMUM_EVENTS} draws beyond the threshold, or on its other side"
    return f"Thresholds not judged, with {why}: {', '.join(names)}."


def no_alarms(inputs: ReportInputs) -> str:
    """Name the thresholds in one line where none of them can be judged; "" where one can."""
    table = alarm_table(of_methods(inputs, (inputs.method,)), replicates=1)
    return (
        _not_judged(list(dict.fromkeys(table["alarm"])))
        if bool(table["skipped"].to_numpy(dtype=bool).all())
        else ""
    )


def subgroups(inputs: ReportInputs) -> Section:
    """Metrics by subgroup; what is hidden stands in one line."""
    methods = (inputs.method, *REFERENCES)
    table = subgroup_table(of_methods(inputs, methods), patients=inputs.patients, quality=inputs.quality)
    blocks: list[Block] = []
    if not table.loc[table["grouping"] == "gap", "suppressed"].astype(bool).all():
        caption = (
            f"Mean absolute error by hours since the last lab, protocol {inputs.protocol}; lines are 95 % intervals by "
            f"bootstrap over patients, bins under {LEAST_PATIENTS} patients hidden."
        )
        blocks.append(Figure(svg=report_checks.gap_svg(table, methods), caption=caption))
    own = table.loc[table["method"] == inputs.method]
    hidden: list[str] = []
    for grouping, title in GROUPINGS.items():
        rows = own.loc[own["grouping"] == grouping]
        if rows.empty:
            continue
        shown = rows.loc[~rows["suppressed"].astype(bool)]
        away = [group for group in dict.fromkeys(rows["group"]) if group not in set(shown["group"])]
        if len(shown):
            blocks.append(_subgroup_table(shown, title))
            hidden += [f"{title.lower()}: {', '.join(away)}"] if away else []
        else:
            hidden.append(f"{title.lower()} (all groups)")
    told = f"Hidden, since under {LEAST_PATIENTS} patients: {'; '.join(hidden)}. " if hidden else ""
    told += f"Shown is {short_label(inputs.method)}; a group is shown for the labs of which it has enough patients. "
    told += "Ethnicity is as recorded; skin tone, which matters to PPG, is not recorded."
    blocks.append(Words(text=told, kind="note"))
    if line := no_alarms(inputs):
        blocks.append(Words(text=line, kind="note"))
    return Section(anchor="subgroups", title="Subgroups", blocks=blocks)


def _subgroup_table(table: pd.DataFrame, title: str) -> Table:
    columns = ["", "draws", "patients", "MAE", "ME", "skill vs LOCF"]
    rows: list[Row] = []
    for lab in dict.fromkeys(table["lab"]):
        places = error_digits(lab)
        rows.append(Row(cells=[f"{lab}, {UNITS[lab]}"], kind="group"))
        for row in table.loc[table["lab"] == lab].to_dict(orient="records"):
            cells = [
                bounded(row, name, digits, signed if name == "me" else number)
                for name, digits in (("mae", places), ("me", places), ("skill_vs_locf", 2))
            ]
            rows.append(Row(cells=[row["group"], count(row["n_labs"]), count(row["n_patients"]), *cells]))
    return Table(columns=columns, rows=rows, folded=title)


def allowable(inputs: ReportInputs) -> Section:
    """Share within allowable errors, apart from the headline, with the source of every limit."""
    table = allowable_error_table(of_methods(inputs, (inputs.method, *REFERENCES)))
    columns = ["", "within the limit, %", "limit verified"]
    rows: list[Row] = []
    for scheme in dict.fromkeys(table["scheme"]):
        part = table.loc[table["scheme"] == scheme]
        rows.append(Row(cells=[f"{scheme}: {part['source'].iloc[0]}"], kind="group"))
        for row in part.to_dict(orient="records"):
            label = f"{row['lab']}, {short_label(row['method'])}"
            share = number(100 * row["share_within"], 1)
            rows.append(Row(cells=[label, share, "yes" if row["verified"] else "no"]))
    words = Words(
        text="Limits for laboratories, not goals that an estimate from a pulse wave is expected to meet. "
        "A limit that is not verified was not found in a source that could be read."
    )
    body = [words, Table(columns=columns, rows=rows, folded="Share of draws within each limit")]
    return Section(anchor="limits", title="Allowable errors of laboratories", blocks=body)


def of_methods(inputs: ReportInputs, methods: tuple[str, ...]) -> pd.DataFrame:
    """Return the predictions of some methods under the report's protocol, lowest seed."""
    return inputs.focus.loc[inputs.focus["method"].isin(methods)]
