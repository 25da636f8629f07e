"""Recovery of what was planted, as text: the table condition by condition, and what was expected of it."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.evaluation.recovery import MODEL, ORACLE, OUR_TWIN, OURS, SUFFIXES, TWIN
from pipeline.foundation.number_format import interval, number, short_label, signed
from pipeline.foundation.schema import LAB_NAMES

SHOWN = {MODEL: ("locf", "shrunk_locf", "lstm", TWIN, MODEL, ORACLE), OURS: ("lines", OUR_TWIN, OURS, ORACLE)}
"""Columns of the two tables of a condition and protocol: the paper's methods, and ours."""
TARGET_RECOVERY, TARGET_LABS = 0.5, 3


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether one expectation was met, and in words."""

    met: bool
    text: str


def verdicts(table: pd.DataFrame) -> list[Verdict]:
    """Judge a table of rows with ``condition``: the target at coupling 1 and both nulls, by protocol and method."""
    found = []
    for protocol in dict.fromkeys(table["protocol"]):
        rows = table.loc[table["protocol"] == protocol]
        models = [model for model, suffix in SUFFIXES.items() if f"added{suffix}" in rows]
        for condition, judge in (("coupling 1", _target), ("coupling 0 (null A)", _null_a)):
            part = rows.loc[rows["condition"] == condition]
            found += [judge(part, protocol, model) for model in models if len(part)]
        if len(part := rows.loc[rows["condition"] == "null B"]):
            found.append(_null_b(part, protocol))
    return found


def _target(rows: pd.DataFrame, protocol: str, model: str) -> Verdict:
    reached = rows.loc[rows[f"recovery{SUFFIXES[model]}"] >= TARGET_RECOVERY, "lab"].to_list()
    words = f"recovery of at least {TARGET_RECOVERY} at coupling 1 on {len(reached)} labs ({_names(reached)})"
    words = words if model == MODEL else f"{short_label(model)}: {words}"
    return Verdict(met=len(reached) >= TARGET_LABS, text=f"{protocol}: {words}; target {TARGET_LABS}")


def _null_a(rows: pd.DataFrame, protocol: str, model: str) -> Verdict:
    lower, upper = (f"added{SUFFIXES[model]}_{side}" for side in ("lower", "upper"))
    bad = rows.loc[(rows[lower] > 0) | (rows[upper] < 0), "lab"].to_list()
    unknown = rows.loc[rows[[lower, upper]].isna().any(axis=1), "lab"].to_list()
    told = f"{short_label(model)} minus its twin leaves out 0 for {_names(bad)}{_unknown(unknown)}"
    words = f"null A: the interval of {told}"
    return Verdict(met=not bad and not unknown, text=f"{protocol}: {words}")


def _null_b(rows: pd.DataFrame, protocol: str) -> Verdict:
    lowers = [name for name in rows.columns if name.startswith("r2_") and name.endswith("_lower")]
    bad = [
        f"{row['lab']} ({name.removeprefix('r2_').removesuffix('_lower')})"
        for row in rows.to_dict(orient="records")
        for name in lowers
        if row[name] > 0
    ]
    unknown = [
        str(row["lab"]) for row in rows.to_dict(orient="records") if any(pd.isna(row[n]) for n in lowers)
    ]
    words = f"null B: R2 has a lower bound above 0 for {_names(bad)}{_unknown(unknown)}"
    return Verdict(met=not bad and not unknown, text=f"{protocol}: {words}")


def _unknown(labs: list[str]) -> str:
    """Say which labs have no bound: what cannot be estimated shows nothing."""
    return f"; not estimable for {_names(labs)}" if labs else ""


def _names(names: list[str]) -> str:
    return ", ".join(names) or "none"


def recovery_text(table: pd.DataFrame) -> str:
    """Return the table as fixed-width text, condition by condition, with the verdicts below."""
    lines = []
    for _, rows in table.groupby(["condition", "protocol"], sort=False):
        condition, protocol = rows[["condition", "protocol"]].iloc[0]
        size = f"{int(rows['train_patients'].iloc[0])} training patients"
        lines.append(f"{condition}, {size}, protocol {protocol}")
        ordered = rows.sort_values("lab", key=lambda lab: lab.map(LAB_NAMES.index)).to_dict(orient="records")
        for model in SHOWN:
            if f"r2_{model}" in rows:
                lines += [_head(model), *(_line(row, model) for row in ordered), ""]
    lines += [f"{'met   ' if verdict.met else 'MISSED'}  {verdict.text}" for verdict in verdicts(table)]
    lines += [
        "",
        "One training run a condition: the intervals cover the choice of patients, not the luck of training.",
    ]
    return "\n".join(lines) + "\n"


def _head(model: str) -> str:
    names = "".join(f"{_NAMES[name]:>8}" for name in SHOWN[model])
    return f"  {'R2':<10}{'draws':>6}{names}  {_NAMES[model] + ' - twin':<22}recovery"


_NAMES = {
    "locf": "LOCF", "shrunk_locf": "shrunk", "lstm": "LSTM", TWIN: "twin", MODEL: "MT+PCS", ORACLE: "oracle",
    "lines": "lines", OUR_TWIN: "twin", OURS: "assim.",
}  # fmt: skip


def _line(row: dict[Any, Any], model: str) -> str:
    suffix = SUFFIXES[model]
    added, share = (
        f"{show(row[name], 2)} {interval(row[f'{name}_lower'], row[f'{name}_upper'], 2)}"
        for name, show in ((f"added{suffix}", signed), (f"recovery{suffix}", number))
    )
    if row["coupling"] == 0:  # the oracle's headroom is that of history alone
        share = ""
    cells = "".join(f"{number(row[f'r2_{name}']):>8}" for name in SHOWN[model])
    return f"  {row['lab']:<10}{int(row['n_labs']):>6}{cells}  {added:<22}{share}".rstrip()
