"""Recovery of what was planted, as text: the table condition by condition, and what was expected of it."""

import re
import textwrap
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.evaluation.recovery import (
    IDEAL,
    MODEL,
    ON_EMBEDDING,
    ORACLE,
    OUR_LINES,
    OUR_TWIN,
    OURS,
    PART_ADDED,
    RESULTS_ALONE,
    SUFFIXES,
    TWIN,
    TWIN_OF,
    WITHOUT_TWIN,
    ZERO_H0,
)
from pipeline.foundation.number_format import counted, interval, number, short_label, signed
from pipeline.foundation.schema import LAB_NAMES
from pipeline.report.claims import NOT_ESTIMABLE

SHOWN = {
    MODEL: ("locf", "shrunk_locf", "lstm", TWIN, ZERO_H0, MODEL, ORACLE),
    OURS: ("lines", RESULTS_ALONE, OUR_TWIN, OUR_LINES, OURS, ON_EMBEDDING, IDEAL, ORACLE),
}
"""Columns of the two tables of a condition and protocol: the paper's methods, and ours beside the ideal readers."""
BESIDE = {MODEL: [("added_h0", "MT+PCS - MT")], OURS: [("added_network", "assim. - by line")]}
"""Further differences of a table: what h0 from history adds to one of zero, and networks to lines."""
Show = Callable[[float, int], str]
LINE = 110
"""Columns of a sentence; tables take what they need."""
_INSIDE = "\N{NO-BREAK SPACE}"
HUNDREDTH = 0.01
"""Of R2: what the tables tell."""
TARGET_RECOVERY, TARGET_LABS = 0.5, 3
LONG_TARGETS: Mapping[str, float] = {
    "calcium": 0.80, "potassium": 0.78, "sodium": 0.75, "glucose": 0.75, "lactate": 0.75,
}  # fmt: skip
"""Recovery of assimilation against the oracle, protocol ``anchored``, on rendered recordings of days at coupling 1."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether one expectation was met, and in words."""

    met: bool
    text: str


def verdicts(table: pd.DataFrame) -> list[Verdict]:
    """Judge a table of rows with ``condition``: the targets at coupling 1 and both nulls, by protocol and method."""
    found = []
    for protocol in dict.fromkeys(table["protocol"]):
        rows = table.loc[table["protocol"] == protocol]
        models = [model for model, suffix in SUFFIXES.items() if f"added{suffix}" in rows]
        part = rows.loc[rows["condition"] == "coupling 1"]
        found += [_target(part, protocol, model) for model in models if len(part)]
        part = rows.loc[rows["condition"] == "rendered, coupling 1"]
        if len(part) and protocol == "anchored" and OURS in models:
            found.append(_long_target(part))
        part = rows.loc[rows["condition"] == "emulated, coupling 1"]
        if len(part) and "added_network" in part:
            found.append(_network(part, protocol))
        for _, part in rows.loc[rows["null"] == "a"].groupby("condition", sort=False):
            found += [_null_a(part, protocol, model) for model in models]
        if len(part := rows.loc[rows["null"] == "b"]):
            found.append(_null_b(part, protocol))
    return found


def _target(rows: pd.DataFrame, protocol: str, model: str) -> Verdict:
    reached = rows.loc[rows[f"recovery{SUFFIXES[model]}"] >= TARGET_RECOVERY, "lab"].to_list()
    labs = f"{counted(len(reached), 'labs')} ({_names(reached)})"
    words = f"recovery of at least {TARGET_RECOVERY} at coupling 1 on {labs}"
    words = words if model == MODEL else f"{short_label(model)}: {words}"
    return Verdict(met=len(reached) >= TARGET_LABS, text=f"{protocol}: {words}; target {TARGET_LABS}")


def _long_target(rows: pd.DataFrame) -> Verdict:
    share = dict(zip(rows["lab"], rows[f"recovery{SUFFIXES[OURS]}"], strict=True))
    below = [lab for lab, target in LONG_TARGETS.items() if not share.get(lab, float("nan")) >= target]
    told = ", ".join(
        f"{lab} {number(share.get(lab, float('nan')), 2)} ({target:.2f})"
        for lab, target in LONG_TARGETS.items()
    )
    words = f"anchored: recovery of {short_label(OURS)} from days, with its target: {told}; below it {_names(below)}"
    return Verdict(met=not below, text=words)


def _network(rows: pd.DataFrame, protocol: str) -> Verdict:
    """Judge what networks add to assimilation by lines: clearly something on three labs, and nothing lost on any."""
    adds = rows.loc[rows["added_network_lower"] > 0, "lab"].to_list()
    loses = rows.loc[rows["added_network_upper"] < 0, "lab"].to_list()
    words = f"networks add to assimilation by lines on {counted(len(adds), 'labs')} ({_names(adds)})"
    words += f"; target {TARGET_LABS}; they lose on {_names(loses)}"
    return Verdict(met=len(adds) >= TARGET_LABS and not loses, text=f"{protocol}: {words}")


def _null_a(rows: pd.DataFrame, protocol: str, model: str) -> Verdict:
    name = f"added{SUFFIXES[model]}_simultaneous"
    bad = rows.loc[(rows[f"{name}_lower"] > 0) | (rows[f"{name}_upper"] < 0), "lab"].to_list()
    column = f"same{SUFFIXES[model]}"
    # Of assimilation alone, which reads where that helps: a network that equals its twin has not been compared.
    known = model == OURS and column in rows
    same = rows[column].eq(True) if known else pd.Series(False, index=rows.index)
    unknown = rows.loc[rows[[f"{name}_lower", f"{name}_upper"]].isna().any(axis=1) & ~same, "lab"].to_list()
    told = f"{short_label(model)} minus its twin leaves out 0 for {_names(bad)}{_unknown(unknown)}"
    told += f"; the twin's own estimates for {_names(rows.loc[same, 'lab'].to_list())}" * bool(same.any())
    words = f"null A: the simultaneous interval of {told}"
    return Verdict(met=not bad and not unknown, text=f"{protocol}: {words}")


def _null_b(rows: pd.DataFrame, protocol: str) -> Verdict:
    end = "_simultaneous_lower"
    lowers = [name for name in rows.columns if name.startswith("r2_") and name.endswith(end)]
    records = rows.to_dict(orient="records")
    bad = [
        f"{row['lab']} ({name.removeprefix('r2_').removesuffix(end)})"
        for row in records
        for name in lowers
        if row[name] > 0
    ]
    unknown = [str(row["lab"]) for row in records if any(pd.isna(row[name]) for name in lowers)]
    words = f"null B: R2 has a simultaneous lower bound above 0 for {_names(bad)}{_unknown(unknown)}"
    return Verdict(met=not bad and not unknown, text=f"{protocol}: {words}")


def _unknown(labs: list[str]) -> str:
    """Say which labs have no bound: what cannot be estimated shows nothing."""
    return f"; not estimable for {_names(labs)}" if labs else ""


def _names(names: list[str]) -> str:
    return ", ".join(names) or "none"


def recovery_text(
    table: pd.DataFrame, *, above: str = "", made_of: Mapping[str, Sequence[str]] | None = None
) -> str:
    """Return the table as fixed-width text, condition by condition, with the verdicts below.

    Parameters
    ----------
    above : what stands above every table, as what of the paper's methods is ours
    made_of : condition -> what made each method's estimates, a sentence each
    """
    lines = [*_wrapped(above), ""] if above else []
    for condition, both in table.groupby("condition", sort=False):
        for protocol, rows in both.groupby("protocol", sort=False):
            size = f"{int(rows['train_patients'].iloc[0])} training patients"
            lines += [f"{condition}, {size}, protocol {protocol}", *_tables(rows)]
        told = [line for sentence in (made_of or {}).get(str(condition), ()) for line in _wrapped(sentence)]
        lines += [*told, ""] if told else []
    lines += [f"{'met   ' if verdict.met else 'MISSED'}  {verdict.text}" for verdict in verdicts(table)]
    return "\n".join([*lines, "", *_footnotes(table)]) + "\n"


def _wrapped(sentence: str) -> list[str]:
    """Break a sentence into lines, but no number at its thousands."""
    whole = re.sub(r"(?<=\d) (?=\d{3})", _INSIDE, sentence)
    lines = textwrap.wrap(whole, LINE, subsequent_indent="  ", break_on_hyphens=False)
    return [line.replace(_INSIDE, " ") for line in lines]


def _tables(rows: pd.DataFrame) -> list[str]:
    """Return the tables of one condition and protocol: the paper's methods, ours, and what is lost."""
    lines, rows = [], _of_its_methods(rows)
    ordered = rows.sort_values("lab", key=lambda lab: lab.map(LAB_NAMES.index)).to_dict(orient="records")
    for model in SHOWN:
        if f"r2_{model}" in rows:
            lines += [_head(model, rows), *(_line(row, model) for row in ordered), ""]
    if "loss_encoder" in rows and 0 not in rows["coupling"].to_list():
        lines += [*_loss_table(ordered), ""]
    return lines


def _of_its_methods(rows: pd.DataFrame) -> pd.DataFrame:
    """Leave out the columns of methods that other conditions have and this one has not."""
    others = [
        name for name in (*WITHOUT_TWIN, TWIN, ZERO_H0, OUR_TWIN, OUR_LINES)
        if f"r2_{name}" in rows and not len(rows[f"r2_{name}"].dropna())
    ]  # fmt: skip
    gone = [f"r2_{name}" for name in others]
    gone += [name for name, (_, without) in PART_ADDED.items() if without in others]
    for model in (model for model, twin in TWIN_OF.items() if twin in others):
        gone += [f"{name}{SUFFIXES[model]}" for name in ("added", "recovery", "recovery_ideal")]
    gone += [f"loss_method{WITHOUT_TWIN[name]}" for name in others if name in WITHOUT_TWIN]
    return rows.drop(columns=[name for name in gone if name in rows])


def _footnotes(table: pd.DataFrame) -> list[str]:
    notes = []
    runs = table["seeds"].to_list()
    if max(runs) > 1:
        notes.append(
            "Intervals of a condition of several training seeds cover patients and seeds: MT+PCS, MT, lines, "
            "assimilation and every twin are trained once a seed; other methods, and assimilation by lines, once."
        )
    if 1 in runs:
        notes.append(
            f"One training run {'in other conditions' if max(runs) > 1 else 'a condition'}: those intervals cover the "
            "choice of patients, not the luck of training."
        )
    if f"recovery{SUFFIXES[OURS]}" in table:
        notes.append(
            "Recovery is what a model has over its twin, of what the best has over it; of assimilation over the "
            "twin or the ideal filter on results alone, whichever is better."
        )
    notes.append(
        "Nulls are judged by intervals at 95 % for all labs and protocols together (Holm), a method at a time."
    )
    return notes


def _loss_table(rows: list[dict[Any, Any]]) -> list[str]:
    """Say where what each method lacks of the oracle is lost."""
    head = f"  {'lost, R2':<10}{'unseen':>8}{'encoder':>8}"
    shown = [
        (model, suffix)
        for model, suffix in (*SUFFIXES.items(), *WITHOUT_TWIN.items())
        if f"loss_method{suffix}" in rows[0]
    ]
    for model, suffix in shown:
        parts = "history, method" if f"loss_history{suffix}" in rows[0] else "both"
        head += f"  {short_label(model) + ': ' + parts:>28}"
    lines = [head]
    for row in rows:
        line = f"  {row['lab']:<10}{number(row['loss_unseen']):>8}{number(row['loss_encoder']):>8}"
        for _, suffix in shown:
            cells = [
                number(row[name]) for name in (f"loss_history{suffix}", f"loss_method{suffix}") if name in row
            ]
            line += f"  {', '.join(cells):>28}"
        lines.append(line)
    return lines


def _differences(model: str, there: Container[object]) -> list[tuple[str, str, Show, int]]:
    """Return column, title, format and width of what stands beside the R2 of a table: what its methods allow."""
    suffix = SUFFIXES[model]
    columns: list[tuple[str, str, Show, int]] = [
        (f"added{suffix}", f"{_NAMES[model]} - twin", signed, 22),
        (f"recovery{suffix}", "recovery", number, 20),
        *((name, title, signed, 22) for name, title in BESIDE[model]),
    ]
    if model == OURS:
        columns.append((f"recovery_ideal{suffix}", "of the ideal", number, 20))
    return [column for column in columns if column[0] in there]


def _head(model: str, rows: pd.DataFrame) -> str:
    names = "".join(f"{_NAMES[name]:>8}" for name in SHOWN[model] if f"r2_{name}" in rows)
    beside = "".join(title.ljust(width) for _, title, _, width in _differences(model, rows))
    return f"  {'R2':<10}{'draws':>6}{names}  {beside}".rstrip()


_NAMES = {
    "locf": "LOCF", "shrunk_locf": "shrunk", "lstm": "LSTM", TWIN: "twin", ZERO_H0: "MT", MODEL: "MT+PCS",
    ORACLE: "oracle", "lines": "lines", OUR_TWIN: "twin", OUR_LINES: "by line", OURS: "assim.", IDEAL: "ideal",
    ON_EMBEDDING: "on emb.", RESULTS_ALONE: "results",
}  # fmt: skip


def _line(row: dict[Any, Any], model: str) -> str:
    added, columns = f"added{SUFFIXES[model]}", _differences(model, row)
    if row["coupling"] == 0:  # where labs are not coupled, the best one's headroom is that of history alone
        columns = [column for column in columns if column[0] == added]
    told = "".join(_cell(row, name, show).ljust(width) for name, _, show, width in columns)
    told = NOT_ESTIMABLE if added in row and pd.isna(row[added]) else told
    cells = "".join(f"{number(row[f'r2_{name}']):>8}" for name in SHOWN[model] if f"r2_{name}" in row)
    return f"  {row['lab']:<10}{int(row['n_labs']):>6}{cells}  {told}".rstrip()


def _cell(row: dict[Any, Any], name: str, show: Show) -> str:
    """Return a number and its interval; in words where nothing was compared, or next to nothing found."""
    values = [row[name], row[f"{name}_lower"], row[f"{name}_upper"]]
    if name.startswith("added") and pd.isna(row[name]):
        return "not estimable"
    if name.startswith("added") and all(abs(value) < HUNDREDTH / 2 for value in values):
        return f"below {HUNDREDTH / 2} either way"
    return f"{show(values[0], 2)} {interval(values[1], values[2], 2)}"
