"""A method on emulated embeddings beside the same on rendered ones, as text."""

import math

import pandas as pd

from pipeline.emulation.check import TOLERANCE
from pipeline.evaluation.recovery import MODEL
from pipeline.foundation.number_format import interval, number, signed

RENDERED, EMULATED_TOO = "rendered", "emulated"


def emulation_text(table: pd.DataFrame, about: str) -> str:
    """Return R2 of both by protocol and lab, and the difference with its interval."""
    rows = table.loc[table["encoder"] == EMULATED_TOO]
    before = table.loc[table["encoder"] == RENDERED].set_index(["protocol", "lab"])[f"r2_{MODEL}"]
    lines = [about, "", f"{'R2 of MT+PCS':<22}{'draws':>7}{'rendered':>10}{'emulated':>10}{'difference':>12}"]
    for row in rows.to_dict("records"):
        was = float(before.loc[(row["protocol"], row["lab"])])
        cells = f"{row['n_labs']:>7}{number(was, 3):>10}{number(row[f'r2_{MODEL}'], 3):>10}"
        between = interval(row["gain_lower"], row["gain_upper"], 3)
        lines.append(f"{row['protocol'] + ' ' + row['lab']:<22}{cells}{signed(row['gain'], 3):>12} {between}")
    gains = [gain for gain in rows["gain"] if not math.isnan(gain)]
    if gains:
        lines.append(
            f"mean difference {sum(gains) / len(gains):+.3f}, largest {max(gains, key=abs):+.3f} "
            f"(at most {TOLERANCE} is good)"
        )
    lines += [
        "Same patients, windows and draws; 95 % over test patients. One training run and one draw of the emulator:",
        "the intervals do not cover their luck.",
    ]
    return "\n".join(lines) + "\n"
