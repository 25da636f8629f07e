"""Recovery by encoder and read-out, beside what each costs, as text."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline.evaluation.recovery import MODEL
from pipeline.foundation.number_format import ABSENT, interval, number, signed
from pipeline.foundation.schema import LAB_NAMES


def scale_text(table: pd.DataFrame, about: str) -> str:
    """Return the study as text: cost first, then R2 and recovery by protocol and lab.

    Parameters
    ----------
    about : cohort, seed and recipe, in words
    """
    wide = max(len("shrunk LOCF"), *(len(name) for name in table["encoder"])) + 1
    lines = [about, "", *_costs(table, wide), ""]
    for protocol, rows in table.groupby("protocol", sort=False):
        lines += [*_protocol(str(protocol), rows, wide), ""]
    lines += [
        "Recovery: share of what the oracle, which knows the latents, is above the same method on another patient's",
        "waveform; no pulse shows all that the oracle knows. Gain: R2 minus the first encoder's, on the same draws.",
        "Same estimates: neither line takes the waveform, which did not clearly lower the error of patients left out.",
        "One training run each: the intervals, 95 % over test patients, do not cover the luck of training.",
    ]
    return "\n".join(lines) + "\n"


def _costs(table: pd.DataFrame, wide: int) -> list[str]:
    lines = [f"{'':<{wide}}{'width':>6}{'windows/s':>11}{'minutes':>9}{'MB a patient-week':>19}"]
    for name, rows in table.groupby("encoder", sort=False):
        row: dict[Any, Any] = rows.iloc[0].to_dict()
        speed, minutes = number(row["windows_per_second"], 0), number(row["embedding_minutes"], 1)
        lines.append(
            f"{name:<{wide}}{row['width']:>6}{speed:>11}{minutes:>9}{row['week_bytes'] / 1e6:>19.1f}"
        )
    return [
        *lines,
        "windows/s, minutes: reading, cutting, encoding and storing the cohort, on this machine as busy as it was",
    ]


def _protocol(protocol: str, rows: pd.DataFrame, wide: int) -> list[str]:
    labs = [lab for lab in LAB_NAMES if lab in set(rows["lab"])]
    by_lab = {lab: rows.loc[rows["lab"] == lab] for lab in labs}
    some: dict[str, dict[Any, Any]] = {lab: part.iloc[0].to_dict() for lab, part in by_lab.items()}
    counts = ", ".join(f"{lab} {row['n_labs']}/{row['n_patients']}" for lab, row in some.items())
    lines = [
        f"protocol {protocol}, {rows['train_patients'].iloc[0]} training patients; test draws/patients: {counts}"
    ]
    lines.append(f"{'R2 (recovery)':<{wide}}" + "".join(f"{lab:>17}" for lab in labs))
    for column, label in (("r2_shrunk_locf", "shrunk LOCF"), ("r2_oracle", "oracle")):
        lines.append(f"{label:<{wide}}" + "".join(f"{number(some[lab][column]):>9}{'':>8}" for lab in labs))
    for kind, cells in (("", _r2_cells), ("R2, 95 %", _interval_cells), ("gain", _gain_cells)):
        if kind:
            lines.append(kind)
        for name in dict.fromkeys(rows["encoder"]):
            ours = [part.loc[part["encoder"] == name].iloc[0].to_dict() for part in by_lab.values()]
            lines.append(f"{name:<{wide}}" + "".join(f"{cell:>17}" for cell in map(cells, ours)))
    return lines


def _r2_cells(row: Mapping[Any, Any]) -> str:
    return f"{number(row[f'r2_{MODEL}'])} ({number(row['recovery'])})"


def _interval_cells(row: Mapping[Any, Any]) -> str:
    return interval(row[f"r2_{MODEL}_lower"], row[f"r2_{MODEL}_upper"], 2)


def _gain_cells(row: Mapping[Any, Any]) -> str:
    if math.isnan(row["gain"]):
        return ABSENT
    if row["gain"] == row["gain_lower"] == row["gain_upper"] == 0:
        return "same estimates"
    return f"{signed(row['gain'])} {interval(row['gain_lower'], row['gain_upper'], 2)}".replace(", ", ",")
