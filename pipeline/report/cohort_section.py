"""The report's section on the cohort: the flow of patients and draws, who is in which split, what was left out."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline.foundation.number_format import ABSENT, count, counted, number
from pipeline.foundation.schema import SPLITS
from pipeline.report.document import Block, Figure, Heading, Row, Section, Table, Words
from pipeline.report.flow import flow_svg
from pipeline.report.inputs import ReportInputs

_STAGES = {
    "waveform_catalog": "waveform records",
    "lab_events": "lab results",
    "ppg_embeddings": "segments and windows",
    "lab_alignment": "draws, when labs and windows are brought together",
}


def data(inputs: ReportInputs) -> Section:
    """Show who is in: how much went in, who is in which split, how much was left out and why."""
    blocks: list[Block] = []
    if inputs.flow is not None:
        caption = (
            "Flow of patients and draws, from the recordings to the draws that every method is tested on."
        )
        blocks.append(Figure(svg=flow_svg(inputs.flow), caption=caption))
    if inputs.characteristics is not None and not inputs.characteristics.empty:
        blocks += _characteristics(inputs.characteristics)
    dropped = {stage: reasons for stage, reasons in inputs.exclusions.items() if reasons}
    if dropped:
        blocks.append(Heading(text="Left out, by reason"))
    for stage, reasons in dropped.items():
        rows = [Row(cells=[reason, count(n)]) for reason, n in reasons.items()]
        total = count(sum(reasons.values()))
        told = f"{_STAGES.get(stage, stage)}: {counted(len(rows), 'reasons')}, {total} in all"
        blocks.append(Table(columns=["reason", "count"], rows=rows, folded=told))
    return Section(anchor="data", title="Patients, data and exclusions", blocks=blocks)


def _characteristics(table: pd.DataFrame) -> list[Block]:
    splits = [split for split in SPLITS if split in set(table["split"])]
    rows = []
    hidden = []
    for name in dict.fromkeys(table["characteristic"]):
        mine = table.loc[table["characteristic"] == name].set_index("split").to_dict(orient="index")
        cells = [_characteristic(mine.get(split)) for split in splits]
        if all(cell == ABSENT for cell in cells):
            hidden.append(str(name))
        else:
            rows.append(Row(cells=[str(name), *cells]))
    caption = "Characteristics by split: counts, medians [quartiles], shares of the patients."
    told = "A dash: fewer than 10 patients, or nobody."
    if hidden:
        told += f" Hidden in every split: {', '.join(hidden)}."
    columns = ["", *splits]
    return [Table(columns=columns, rows=rows, caption=caption), Words(text=told, kind="note")]


def _characteristic(row: Mapping[Any, Any] | None) -> str:
    if row is None or math.isnan(row["value"]):
        return ABSENT
    if row["kind"] == "count":
        return count(row["value"])
    if row["kind"] == "share":
        return f"{100 * row['value']:.0f} %"
    return f"{number(row['value'], 1)} [{number(row['lower'], 1)}, {number(row['upper'], 1)}]"
