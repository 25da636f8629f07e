"""The report's sections on results: what came out, skill, what PPG added, results that come later, all methods."""

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
from pipeline.foundation.schema import LAB_NAMES, PROTOCOLS
from pipeline.report import figures as report_figures
from pipeline.report.best import best_of
from pipeline.report.claims import CLAIMED, NOT_ESTIMABLE, RULE, claim_sentences, claims
from pipeline.report.comparison_text import COMPARISON_METHODS, PROTOCOL_TITLES, training_luck
from pipeline.report.document import (
    Banner,
    Block,
    Bullets,
    Cell,
    Figure,
    Heading,
    Row,
    Section,
    Table,
    Words,
    bounded,
)
from pipeline.report.inputs import ReportInputs
from pipeline.report.made_of import made_of_sentences, patients_sentence
from pipeline.report.paper_table import table1
from pipeline.report.paper_text import (
    FOOTNOTES,
    PAPER_FOOTNOTE,
    WHY_NOT_COMPARED,
    heading,
    ours_table,
    paper_columns,
)
from pipeline.report.result_delay_text import method_label

_TITLES = {"pooled": "every draw weighs the same", "patient_macro": "every patient weighs the same"}
_METRIC_ORDER = ("r2", "skill_vs_locf", "skill_vs_shrunk_locf", "mae", "me", "rmse")


def sentences(inputs: ReportInputs) -> list[Block]:
    """Say what no table may be read without: what made the estimates, on whom they were tested, the rule."""
    made = made_of_sentences(inputs.makeups, inputs.made_of)
    return [Bullets(items=[*made, patients_sentence(inputs.predictions), RULE], kind="sentence")]


def summary(inputs: ReportInputs) -> Section:
    """Say what came out, from the numbers alone and by one rule."""
    shown = (*CLAIMED, inputs.method)
    found = claims(inputs.comparisons, shown)
    luck = (
        [Words(text=training_luck(inputs.comparisons), kind="note")]
        if inputs.comparisons is not None and found
        else []
    )
    said = [Bullets(items=claim_sentences(found))] if found else []
    departures = [Words(text=words, kind="note") for words in inputs.departures]
    blocks = [*sentences(inputs), *said, *luck, *departures, *caveat(inputs)]
    return Section(anchor="summary", title="What came out", blocks=blocks)


def table_one(inputs: ReportInputs) -> Section | None:
    """Table 1 under the paper's protocol."""
    if "start" not in set(inputs.evaluation["protocol"]):
        return None
    lead = Words(text=f"{PROTOCOL_TITLES['start']}; measured draws.", kind="lead")
    notes = [Words(text=words, kind="note") for words in FOOTNOTES]
    blocks = [*caveat(inputs), lead, ours_table(table1(inputs.evaluation)), *sentences(inputs), *notes]
    return Section(anchor="table1", title="Table 1", blocks=blocks)


def paper(inputs: ReportInputs) -> Section | None:
    """Show the paper's figures, apart from ours, and say why."""
    if "start" not in set(inputs.evaluation["protocol"]):
        return None
    why = [Banner(text=WHY_NOT_COMPARED)] if inputs.synthetic else []
    blocks = [*why, paper_columns(table1(inputs.evaluation)), Words(text=PAPER_FOOTNOTE, kind="note")]
    return Section(anchor="paper", title="The paper's figures", blocks=blocks)


def skill(inputs: ReportInputs) -> Section:
    """Forest plot of skill."""
    methods = inputs.evaluation["method"].isin(COMPARISON_METHODS)
    figure = Figure(
        svg=report_figures.forest_svg(inputs.evaluation.loc[methods]),
        caption="Skill against LOCF, pooled over measured test draws; lines are 95 % intervals by bootstrap over "
        "patients, an arrow where one leaves the picture. Shrunk LOCF, a + b x LOCF fitted on training patients, "
        "shows what two numbers per lab can do without PPG.",
    )
    return Section(anchor="skill", title="Skill against carrying the last lab forward", blocks=[figure])


def added(inputs: ReportInputs) -> Section | None:
    """MT+PCS minus its twin, and any other comparison."""
    table = inputs.comparisons
    if table is None or table.empty:
        return None
    blocks: list[Block] = [
        *caveat(inputs),
        Words(
            text="A twin is its method trained and scored with the embeddings of another patient of the same "
            "split; history labs, times and gaps are the patient's own. What is left between the two is "
            "what PPG added."
        ),
    ]
    for number_of_pair, pair in enumerate(
        table.drop_duplicates(["method_a", "method_b"]).to_dict(orient="records")
    ):
        a, b = pair["method_a"], pair["method_b"]
        rows = table.loc[(table["method_a"] == a) & (table["method_b"] == b)]
        luck = f" {training_luck(rows)}" if number_of_pair == 0 else ""
        caption = "Differences on the same test draws, paired by patient; lines are 95 % bootstrap intervals, an arrow "
        caption += f"where one leaves the picture.{luck}"
        figure = Figure(svg=report_figures.added_svg(rows, short_label(a)), caption=caption)
        words = f"{short_label(a)} minus {short_label(b)}"
        blocks += [Heading(text=words), figure, _difference_table(rows, f"{words}: the numbers")]
    resolution = "With B replicates the smallest p is 2 / (B + 1), times 5 after Holm."
    blocks.append(Words(text=resolution, kind="note"))
    return Section(anchor="added", title="What PPG added", blocks=blocks)


def _difference_table(table: pd.DataFrame, folded: str) -> Table:
    columns = ["", "R2", "p (Holm)", "skill vs LOCF", "p (Holm)", "MAE", "p (Holm)"]
    body: list[Row] = []
    for protocol in PROTOCOLS:
        rows = select(table, protocol=protocol)
        if len(rows):
            body.append(Row(cells=[f"protocol {protocol}"], kind="group"))
        for lab in dict.fromkeys(rows["lab"]):
            by_metric = {row["metric"]: row for row in rows.loc[rows["lab"] == lab].to_dict(orient="records")}
            if all(math.isnan(row["difference"]) for row in by_metric.values()):
                body.append(Row(cells=[f"{lab}, {UNITS[lab]}", NOT_ESTIMABLE], kind="remark"))
                continue
            cells: list[Cell | str] = []
            for metric, places in (("r2", 2), ("skill_vs_locf", 2), ("mae", error_digits(lab))):
                row = by_metric[metric]
                bounds = interval(row["lower"], row["upper"], places)
                cells += [
                    Cell(value=signed(row["difference"], places), bounds=bounds),
                    p_value(row["p_holm"]),
                ]
            body.append(Row(cells=[f"{lab}, {UNITS[lab]}", *cells]))
    return Table(columns=columns, rows=body, folded=folded)


def delays(inputs: ReportInputs) -> Section | None:
    """Show what the methods achieve when results come later."""
    table = inputs.delays
    if table is None or table.empty:
        return None
    minutes = sorted(table["delay_minutes"].unique().tolist())
    spans = [("", 1), *((f"result after {delay} min", 2) for delay in minutes)]
    columns = ["", *(["R2", "MAE"] * len(minutes))]
    blocks: list[Block] = [
        Words(
            text="No result is known before its delay; models as trained, baselines fitted anew. A delay moves draws "
            "into and out of the scored set: compare the methods of one delay."
        )
    ]
    for protocol in (name for name in PROTOCOLS if name in set(table["protocol"])):
        mine = table.loc[table["protocol"] == protocol]
        body = Table(columns=columns, rows=_delay_rows(mine, minutes), spans=spans)
        blocks += [Heading(text=f"Protocol {protocol}"), body]
    return Section(anchor="delays", title="If results come later", blocks=blocks)


def _delay_rows(table: pd.DataFrame, minutes: Sequence[int]) -> list[Row]:
    body: list[Row] = []
    for lab in (name for name in LAB_NAMES if name in set(table["lab"])):
        part = table.loc[table["lab"] == lab]
        draws = part.drop_duplicates("delay_minutes").set_index("delay_minutes")["n_labs"].to_dict()
        counts = " / ".join(count(draws.get(delay)) for delay in minutes)
        body.append(Row(cells=[f"{lab}, {UNITS[lab]}: {counts} draws"], kind="group"))
        for method in dict.fromkeys(part["method"]):
            rows = part.loc[part["method"] == method].set_index("delay_minutes").to_dict(orient="index")
            cells = [cell for delay in minutes for cell in _delay_cells(rows.get(delay), lab, method)]
            kind = "ours" if method == ADDED else ""
            body.append(Row(cells=[method_label(method), *cells], kind=kind))
    return body


def _delay_cells(row: Mapping[Any, Any] | None, lab: str, method: str) -> list[Cell | str]:
    if row is None:
        return [number(None)] * 2
    show = signed if method == ADDED else number
    return [bounded(row, name, places, show) for name, places in (("r2", 2), ("mae", error_digits(lab)))]


def all_methods(inputs: ReportInputs) -> Section:
    """Every method, protocol, scoring and aggregation."""
    blocks: list[Block] = [
        *caveat(inputs),
        Words(
            text="The mean over seeds where there are several. Where every patient weighs the same, R2 is taken about "
            "each patient's own mean: it asks whether a method follows the changes within a patient, and knowing "
            "only his level scores 0 at best. Bold: the best of a lab, live LOCF left aside, which sees labs that the "
            "others do not; where the difference counts stands above."
        ),
    ]
    for scoring in dict.fromkeys(inputs.evaluation["scoring"]):
        for protocol in PROTOCOLS:
            for aggregation in AGGREGATIONS:
                rows = select(inputs.evaluation, protocol=protocol, scoring=scoring, aggregation=aggregation)
                if len(rows):
                    title = f"Protocol {protocol}, {scoring} draws: {_TITLES[aggregation]}"
                    blocks.append(_method_table(rows, title))
    return Section(anchor="all", title="All methods", blocks=blocks)


def _method_table(rows: pd.DataFrame, folded: str) -> Table:
    columns = ["", "R2", "skill vs LOCF", "skill vs shrunk LOCF", "MAE", "ME", "RMSE"]
    body: list[Row] = []
    for lab in LAB_NAMES:
        part = rows.loc[rows["lab"] == lab]
        if part.empty:
            continue
        body.append(Row(cells=[heading(lab, part)], kind="group"))
        by_method = {row["method"]: row for row in part.to_dict(orient="records")}
        best = {name: best_of(name, part) for name in _METRIC_ORDER}
        for method in in_method_order(list(by_method)):
            cells = [
                _metric_cell(by_method[method], name, lab, method in best[name]) for name in _METRIC_ORDER
            ]
            kind = "ours" if method == "mt_pcs" else ""
            body.append(Row(cells=[short_label(method), *cells], kind=kind))
    return Table(columns=columns, rows=body, folded=folded)


def _metric_cell(row: Mapping[Any, Any], name: str, lab: str, best: bool) -> Cell:
    places = error_digits(lab) if name in ("mae", "me", "rmse") else 2
    if name == "rmse":
        return Cell(value=number(row[name], places), best=best)
    return bounded(row, name, places, signed if name == "me" else number, best=best)


def caveat(inputs: ReportInputs) -> list[Block]:
    """Say above a table why its figures flatter, where they do."""
    return [Banner(text=inputs.caveat)] if inputs.caveat else []
