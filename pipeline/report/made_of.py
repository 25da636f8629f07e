"""What made each method's estimates, as the terminal and the report show it."""

import pandas as pd

from pipeline.foundation.number_format import number, short_label
from pipeline.foundation.schema import LAB_NAMES, PROTOCOLS
from pipeline.report import html as report_html
from pipeline.report.html import Row, Section, paragraph, text
from pipeline.report.inputs import ReportInputs

SHOWN = ("network", "lines", "reading", "history")
NOTHING = 5e-4
"""A share that would be printed as 0.000."""
SILENT = "the network contributes nothing"
_NOTE = (
    "Shares of the estimates' variance over test draws; parts that work against the others count negative.\n"
    "network: what gradients trained (it may use history too); lines: fitted through the waveform; reading: of\n"
    "the latest windows; history: a line through earlier results or, in assimilation, the results themselves.\n"
)


def made_of_table(shares: pd.DataFrame) -> str:
    """Return a line for each method, protocol and lab; nothing without shares.

    Parameters
    ----------
    shares : ``method`` and ``training.shares.SHARE_COLUMNS``
    """
    if shares.empty:
        return ""
    lines = ["What made the estimates", f"  {'':<14}{'':<10}{'':<10}" + "".join(f"{n:>9}" for n in SHOWN)]
    for method in dict.fromkeys(shares["method"]):
        for protocol in PROTOCOLS:
            mine = shares.loc[(shares["method"] == method) & (shares["protocol"] == protocol)]
            rows = sorted(mine.to_dict(orient="records"), key=lambda row: LAB_NAMES.index(row["lab"]))
            lines += [_line(short_label(method), protocol, row) for row in rows]
    return "\n".join([*lines, "", _NOTE])


def made_of_section(inputs: ReportInputs) -> Section | None:
    """Return the same for the report; None without shares."""
    shares = inputs.made_of
    if shares is None or shares.empty:
        return None
    body: list[Row] = []
    for method in dict.fromkeys(shares["method"]):
        body.append(Row(cells=[text(short_label(method))], kind="group"))
        for row in shares.loc[shares["method"] == method].to_dict(orient="records"):
            cells = [
                text(f"{row['lab']}, {row['protocol']}"),
                *(text(number(row[name], 3)) for name in SHOWN),
            ]
            body.append(Row(cells=[*cells, text(verdict(row))]))
    table = report_html.table(["", *SHOWN, ""], body)
    return Section(
        anchor="made-of",
        title="What made the estimates",
        body=table + paragraph(_NOTE.replace("\n", " "), "note"),
    )


def verdict(row: dict) -> str:
    """Say in words what a reader must not overlook; "" where the numbers say it."""
    if pd.isna(row["network"]):
        return "every estimate is the same"
    return SILENT if abs(row["network"]) < NOTHING else ""


def _line(label: str, protocol: str, row: dict) -> str:
    cells = "".join(f"{number(row[name], 3):>9}" for name in SHOWN)
    return f"  {label:<14}{protocol:<10}{row['lab']:<10}{cells}  {verdict(row)}".rstrip()
