"""Table 1 for people: ours, and the paper's figures in a table of their own; for the terminal and for pages."""

from typing import Any

import pandas as pd

from pipeline.foundation.number_format import (
    UNITS,
    counted,
    error_digits,
    interval,
    number,
    short_label,
    signed,
)
from pipeline.foundation.schema import LAB_NAMES
from pipeline.report.best import best_of
from pipeline.report.document import Cell, Row, Table
from pipeline.report.paper_table import NAMES_IN_PAPER, OURS, PAPER_METRICS, most
from pipeline.report.synthetic import SyntheticCohort

FOOTNOTES = (
    "Estimate minus truth in clinical units; skill = 1 - MAE / MAE of LOCF; [95 % interval by bootstrap over "
    "patients]. With several seeds: their mean, the envelope of their intervals, and \N{PLUS-MINUS SIGN} their SD. "
    "Bold: the best of a lab, by the printed figure, live LOCF left aside; whether a difference counts is told by "
    "the rule.",
    "Live LOCF sees labs that the models do not: under protocol start it is the paper's LOCF row.",
)
PAPER_FOOTNOTE = (
    "Paper: arXiv 2509.16345, Table 1; its skill is computed here from its MAE. Its MIMIC-III errors of LOCF and of "
    "its own methods are not in clinical units: left out, and the LSTM's skill with them."
)
WHY_NOT_COMPARED = (
    "These figures cannot be compared with ours: the paper judged real patients of its hospital and of MIMIC-III, ours "
    "here are a synthetic cohort whose labs follow the pulse as far as a number (its coupling) says. Other patients, "
    "other spread of the labs, other draws: neither R2 nor skill carries over. They stand here for a run on real data."
)


def table1_text(
    table: pd.DataFrame, caveat: str = "", *, synthetic: SyntheticCohort | None = None, below: str = ""
) -> str:
    """Return Table 1 in fixed width, then the paper's figures in a table of their own.

    Parameters
    ----------
    table : of ``paper_table.table1``
    caveat : why a protocol flatters; stands above it
    synthetic : the cohort, where nobody real was judged: its banner stands above, and why the paper's figures cannot
        be compared above those
    below : what must be said under it
    """
    width = 23 if max(table["n_seeds"]) > 1 else 15
    lines = [
        *([caveat] if caveat else []),
        *([synthetic.banner()] if synthetic else []),
        f"{'':<15}{'R2':>6} {'':<{width}}{'skill':>6} {'':<{width}}{'MAE':>8}{'ME':>10}",
    ]
    for lab, part in table.groupby("lab", sort=False):
        lines.append(heading(str(lab), part))
        lines += [_ours_line(row, width) for row in part.to_dict(orient="records")]
    return (
        "\n".join([*lines, "", *([below] if below else []), *FOOTNOTES, "", *_paper_lines(table, synthetic)])
        + "\n"
    )


def _ours_line(row: dict[Any, Any], width: int) -> str:
    digits = error_digits(row["lab"])
    ours = [f"{number(row[name]):>6} {_bounds(row, name, 2):<{width}}" for name in ("r2", "skill_vs_locf")]
    errors = f"{number(row['mae'], digits):>8}{signed(row['me'], digits):>10}"
    return f"  {short_label(row['method']):<13}{''.join(ours)}{errors}"


def _paper_lines(table: pd.DataFrame, synthetic: SyntheticCohort | None) -> list[str]:
    lines = [
        *([WHY_NOT_COMPARED] if synthetic else []),
        f"{'The paper':<15}{'institutional':^37}   {'MIMIC-III':^16}",
        f"{'':<15}{'R2':>6}{'skill':>7}{'MAE':>8}{'ME':>8}{'RMSE':>8}   {'R2':>8}{'skill':>8}",
    ]
    for lab, part in table.groupby("lab", sort=False):
        lines.append(f"{lab} ({UNITS[str(lab)]})")
        of_paper = part.loc[part["method"].isin(list(NAMES_IN_PAPER.values()))]
        lines += [_paper_line(row) for row in of_paper.to_dict(orient="records")]
    return [*lines, "", PAPER_FOOTNOTE]


def _paper_line(row: dict[Any, Any]) -> str:
    widths = {"r2": (2, 6), "skill": (2, 7), "mae": (3, 8), "me": (3, 8), "rmse": (3, 8)}
    institutional = [
        f"{number(row[f'paper_institutional_{name}'], places):>{width}}"
        for name, (places, width) in widths.items()
    ]
    mimic = [f"{number(row[f'paper_mimic3_{name}']):>8}" for name in ("r2", "skill")]
    return f"  {short_label(row['method']):<13}{''.join(institutional)}   {''.join(mimic)}"


def ours_table(table: pd.DataFrame) -> Table:
    """Return our part of Table 1, the best method of each lab in bold."""
    rows: list[Row] = []
    for lab in LAB_NAMES:
        part = table.loc[table["lab"] == lab]
        rows.append(Row(cells=[heading(lab, part)], kind="group"))
        best = {name: best_of(name, part) for name in OURS}
        scored = part.loc[part["n_labs"] > 0].to_dict(orient="records")
        rows += [_ours_row(row, {name for name in OURS if row["method"] in best[name]}) for row in scored]
    return Table(columns=["", "R2", "skill vs LOCF", "MAE", "ME", "RMSE"], rows=rows)


def _ours_row(row: dict[Any, Any], best: set[str]) -> Row:
    digits = error_digits(row["lab"])
    cells = []
    for name in OURS:
        places = 2 if name in ("r2", "skill_vs_locf") else digits
        shown = signed(row[name], places) if name == "me" else number(row[name], places)
        bounds = "" if name in ("me", "rmse") else _bounds(row, name, places)
        cells.append(Cell(value=shown, bounds=bounds, best=name in best))
    return Row(cells=[short_label(row["method"]), *cells], kind="ours" if row["method"] == "mt_pcs" else "")


def paper_columns(table: pd.DataFrame) -> Table:
    """Return the paper's figures alone, of its own methods."""
    rows: list[Row] = []
    for lab in LAB_NAMES:
        rows.append(Row(cells=[f"{lab} ({UNITS[lab]})"], kind="group"))
        of_paper = table.loc[(table["lab"] == lab) & table["method"].isin(list(NAMES_IN_PAPER.values()))]
        rows += [_paper_row(row) for row in of_paper.to_dict(orient="records")]
    return Table(
        columns=["", "R2", "skill", "MAE", "ME", "RMSE", "R2", "skill"],
        rows=rows,
        spans=[("", 1), ("institutional", 5), ("MIMIC-III", 2)],
        folded="The paper's Table 1 (arXiv 2509.16345)",
    )


def _paper_row(row: dict[Any, Any]) -> Row:
    institutional = [
        number(row[f"paper_institutional_{name}"], 2 if name in ("r2", "skill") else 3)
        for name in PAPER_METRICS
    ]
    mimic = [number(row[f"paper_mimic3_{name}"]) for name in ("r2", "skill")]
    return Row(cells=[short_label(row["method"]), *institutional, *mimic])


def _bounds(row: dict[Any, Any], name: str, places: int) -> str:
    shown = interval(row[f"{name}_lower"], row[f"{name}_upper"], places)
    return (
        f"{shown} \N{PLUS-MINUS SIGN}{number(row[f'{name}_seed_sd'], places)}"
        if row["n_seeds"] > 1
        else shown
    )


def heading(lab: str, rows: pd.DataFrame) -> str:
    """Name of a lab with its unit, and how many draws of how many patients were scored."""
    scored = rows.loc[rows["n_labs"] > 0]
    if scored.empty:
        return f"{lab} ({UNITS[lab]}), not scored"
    sizes = f"{counted(most(scored, 'n_labs'), 'draws')} of {counted(most(scored, 'n_patients'), 'patients')}"
    return f"{lab} ({UNITS[lab]}), {sizes}"
