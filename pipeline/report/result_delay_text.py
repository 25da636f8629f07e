"""What ``pipeline.evaluation.result_delay`` found, as the terminal shows it: plain text, fixed width."""

from collections.abc import Sequence

import pandas as pd

from pipeline.evaluation.delay_methods import ADDED, DELAY_METHODS
from pipeline.foundation.number_format import UNITS, interval, number, short_label, signed
from pipeline.foundation.schema import LAB_NAMES, PROTOCOLS


def delay_text(table: pd.DataFrame) -> str:
    """Return R2 by protocol, lab, method and delay as fixed-width text."""
    delays = sorted(table["delay_minutes"].unique().tolist())
    lines = []
    for protocol in PROTOCOLS:
        mine = table.loc[table["protocol"] == protocol]
        if mine.empty:
            continue
        heads = "".join(f"{f'{delay} min':>8} {'':<15}" for delay in delays)
        lines += [
            f"Protocol {protocol}: R2 when a result is known so long after its draw",
            f"{'':<18}{heads}",
        ]
        for lab in (name for name in LAB_NAMES if name in set(mine["lab"])):
            lines += _lab_lines(mine.loc[mine["lab"] == lab], lab, delays)
        lines.append("")
    return "\n".join([*lines, *NOTES]) + "\n"


NOTES = (
    "Models as trained, baselines fitted anew. A delay moves draws into and out of the scored set: compare the",
    "methods of one delay. [95 % interval by bootstrap over patients]",
)


def _lab_lines(rows: pd.DataFrame, lab: str, delays: Sequence[int]) -> list[str]:
    cells = rows.set_index(["method", "delay_minutes"])
    draws = rows.loc[rows["method"] == "locf"].set_index("delay_minutes")["n_labs"]
    counts = "".join(
        f"{int(draws[delay]) if delay in draws.index else 0:>8} {'draws':<15}" for delay in delays
    )
    lines = [f"{f'{lab} ({UNITS[lab]})':<18}{counts}".rstrip()]
    for method in (*DELAY_METHODS, ADDED):
        if method in set(rows["method"]):
            shown = "".join(_cell(cells, method, delay) for delay in delays)
            lines.append(f"  {method_label(method):<16}{shown}".rstrip())
    return lines


def method_label(method: str) -> str:
    """Label of a row: a method, or what PPG added."""
    return "what PPG added" if method == ADDED else short_label(method)


def _cell(cells: pd.DataFrame, method: str, delay: int) -> str:
    if (method, delay) not in cells.index:
        return f"{number(None):>8} {'':<15}"
    row = cells.loc[(method, delay)].to_dict()
    value = signed(row["r2"]) if method == ADDED else number(row["r2"])
    return f"{value:>8} {interval(row['r2_lower'], row['r2_upper']):<15}"
