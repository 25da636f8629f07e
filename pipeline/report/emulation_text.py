"""A method on emulated embeddings beside the same on rendered ones, as text."""

import math

import pandas as pd

from pipeline.emulation.check import TOLERANCE
from pipeline.foundation.number_format import interval, number, signed


def emulation_text(table: pd.DataFrame, readouts: pd.DataFrame, about: str, *, method: str) -> str:
    """Return R2 of both by protocol and lab with the difference and its interval, and R2 of the latents.

    Parameters
    ----------
    table : of ``evaluation.emulation.emulation_rows``
    readouts : the fields of ``emulation.running_means.LatentRow``
    method : whose R2 it is, in words
    """
    head = f"{'rendered':>10}{'emulated':>10}{'difference':>12}"
    lines = [about, "", f"{f'R2 of {method}':<22}{'draws':>7}{head}{'95 %':>17}{'SD of draws':>14}"]
    for row in table.to_dict("records"):
        name, between = (
            f"{row['protocol']} {row['lab']}",
            interval(row["difference_lower"], row["difference_upper"], 3),
        )
        cells = _cells(row["rendered"], row["emulated"], row["difference"])
        lines.append(f"{name:<22}{row['n_labs']:>7}{cells}{between:>17}{number(row['spread'], 3):>14}")
    lines += [
        *_worst(pd.Series(table["difference"])),
        "Same patients, windows and draws, means over divisions and draws of the emulator; 95 % over patients, each of",
        "whom is taken in all divisions or in none. That rendering and training have a luck of their own is left out.",
        "",
        f"{'R2 of latents':<29}{head}{'':>17}{'SD of draws':>14}",
    ]
    gaps = readouts["emulated"] - readouts["rendered"]
    for row, gap in zip(readouts.to_dict("records"), gaps, strict=True):
        cells = _cells(row["rendered"], row["emulated"], gap)
        lines.append(f"{row['latent']:<29}{cells}{'':>17}{number(row['spread'], 3):>14}")
    lines += [
        *_worst(pd.Series(gaps)),
        "Ridge regression on running means of 10, 30 and 120 min, whole recordings, judged on other patients.",
    ]
    return "\n".join(lines) + "\n"


def _cells(rendered: float, emulated: float, difference: float) -> str:
    return f"{number(rendered, 3):>10}{number(emulated, 3):>10}{signed(difference, 3):>12}"


def _worst(differences: pd.Series) -> list[str]:
    known = [value for value in differences if not math.isnan(value)]
    if not known:
        return []
    mean, largest = sum(known) / len(known), max(known, key=abs)
    return [f"mean difference {mean:+.3f}, largest {largest:+.3f} (at most {TOLERANCE} is good)"]
