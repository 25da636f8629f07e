"""One page that prints alone: what was asked, on whom, what came out, what it may be used for."""

from pathlib import Path

from pipeline.evaluation.judge import select
from pipeline.foundation.atomic import write_text
from pipeline.foundation.number_format import counted, short_label
from pipeline.foundation.schema import LAB_NAMES, PROTOCOLS, TWINS
from pipeline.report.best import best_of
from pipeline.report.claims import CLAIMED, claim_sentences, claims
from pipeline.report.document import Block, Bullets, Cell, Figure, Heading, Row, Table, Words, bounded
from pipeline.report.figures import forest_svg
from pipeline.report.inputs import ReportInputs
from pipeline.report.rendering import render_page
from pipeline.report.sections import sentences

SHOWN = ("locf", "shrunk_locf", "mt_pcs_twin", "mt_pcs", "lines", "mt_assim")
"""Methods of the one table: history alone, the paper's method with its twin, and ours."""


def write_one_page(path: Path, inputs: ReportInputs, research_only: str) -> None:
    """Write the page to ``path`` (mode 0600); it needs no network and no script."""
    banners = [research_only, *([inputs.synthetic.banner()] if inputs.synthetic else [])]
    foot = ", ".join(part for part in (inputs.created, f"configuration {inputs.config_hash}") if part)
    page = render_page(
        "one_page.html.jinja",
        title=f"Laboratory values from PPG, one page: {inputs.experiment}",
        banners=banners,
        parts=_parts(inputs),
        foot=f"{foot}. The whole report: report.html, beside this file.",
    )
    write_text(path, page)


def _parts(inputs: ReportInputs) -> list[Block]:
    told = (*TWINS, "shrunk_locf")  # what PPG added, and what is left above history alone
    found = [claim for claim in claims(inputs.comparisons, (*CLAIMED, inputs.method)) if claim.other in told]
    asked = "Can potassium, calcium, sodium, glucose and lactate be estimated between blood draws from the pulse wave "
    asked += (
        "of the bedside monitor and earlier results, and does the pulse wave add anything to those results?"
    )
    methods = inputs.evaluation["method"].isin(SHOWN)
    parts: list[Block] = [Words(text=asked), *sentences(inputs)]
    if found:
        parts += [Heading(text="What came out"), Bullets(items=claim_sentences(found))]
    parts += [
        *(
            _table(inputs, protocol)
            for protocol in PROTOCOLS
            if protocol in set(inputs.evaluation["protocol"])
        )
    ]
    caption = "Skill against LOCF with 95 % intervals over patients; right of 0: better than the last result."
    return [*parts, Figure(svg=forest_svg(inputs.evaluation.loc[methods]), caption=caption)]


def _table(inputs: ReportInputs, protocol: str) -> Table:
    rows_of = select(inputs.evaluation, protocol=protocol)
    rows_of = rows_of.loc[rows_of["method"].isin(SHOWN)]
    labs = [lab for lab in LAB_NAMES if lab in set(rows_of["lab"])]
    rows: list[Row] = []
    best = {lab: best_of("r2", rows_of.loc[rows_of["lab"] == lab]) for lab in labs}
    for method in (name for name in SHOWN if name in set(rows_of["method"])):
        mine = rows_of.loc[rows_of["method"] == method].set_index("lab").to_dict(orient="index")
        rows.append(
            Row(cells=[short_label(method), *(_cell(mine.get(lab), method in best[lab]) for lab in labs)])
        )
    draws = rows_of.drop_duplicates("lab").set_index("lab")["n_labs"].to_dict()
    heads = [f"{lab}, {counted(draws[lab], 'draws')}" for lab in labs]
    caption = f"Protocol {protocol}: R2 [95 % interval over patients]. Bold: the highest of these rows."
    return Table(columns=["", *heads], rows=rows, caption=caption)


def _cell(row: dict | None, best: bool) -> Cell | str:
    if row is None:
        return ""
    return bounded(row, "r2", best=best)
