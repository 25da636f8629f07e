"""Recovery of what was planted, as text: the table condition by condition, and what was expected of it."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.evaluation.recovery import LEARNED, ORACLE
from pipeline.foundation.number_format import interval, number, signed
from pipeline.foundation.schema import LAB_NAMES

SHOWN = ("locf", "shrunk_locf", *LEARNED, ORACLE)
TARGET_RECOVERY, TARGET_LABS = 0.5, 3


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether one expectation was met, and in words."""

    met: bool
    text: str


def verdicts(table: pd.DataFrame) -> list[Verdict]:
    """Judge a table of rows with ``condition``: the target at coupling 1 and both nulls, by protocol."""
    found = []
    for protocol in dict.fromkeys(table["protocol"]):
        rows = table.loc[table["protocol"] == protocol]
        found += [
            verdict
            for condition, judge in (("coupling 1", _target), ("coupling 0 (null A)", _null_a), ("null B", _null_b))
            if len(part := rows.loc[rows["condition"] == condition])
            for verdict in [judge(part, protocol)]
        ]  # fmt: skip
    return found


def _target(rows: pd.DataFrame, protocol: str) -> Verdict:
    reached = rows.loc[rows["recovery"] >= TARGET_RECOVERY, "lab"].to_list()
    words = f"recovery of at least {TARGET_RECOVERY} at coupling 1 on {len(reached)} labs ({_names(reached)})"
    return Verdict(met=len(reached) >= TARGET_LABS, text=f"{protocol}: {words}; target {TARGET_LABS}")


def _null_a(rows: pd.DataFrame, protocol: str) -> Verdict:
    bad = rows.loc[(rows["added_lower"] > 0) | (rows["added_upper"] < 0), "lab"].to_list()
    unknown = rows.loc[rows[["added_lower", "added_upper"]].isna().any(axis=1), "lab"].to_list()
    words = f"null A: the interval of MT+PCS minus its twin leaves out 0 for {_names(bad)}{_unknown(unknown)}"
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
        lines += [f"{condition}, {size}, protocol {protocol}", _HEAD]
        ordered = rows.sort_values("lab", key=lambda lab: lab.map(LAB_NAMES.index))
        lines += [_line(row) for row in ordered.to_dict(orient="records")] + [""]
    lines += [f"{'met   ' if verdict.met else 'MISSED'}  {verdict.text}" for verdict in verdicts(table)]
    lines += [
        "",
        "One training run a condition: the intervals cover the choice of patients, not the luck of training.",
    ]
    return "\n".join(lines) + "\n"


_HEAD = (
    f"  {'R2':<10}{'draws':>6}{'LOCF':>7}{'shrunk':>8}{'LSTM':>7}{'twin':>7}{'MT+PCS':>8}{'oracle':>8}"
    f"  {'MT+PCS - twin':<22}{'recovery'}"
)


def _line(row: dict[Any, Any]) -> str:
    widths = (7, 8, 7, 7, 8, 8)
    cells = "".join(f"{number(row[f'r2_{m}']):>{w}}" for m, w in zip(SHOWN, widths, strict=True))
    added = f"{signed(row['added'], 2)} {interval(row['added_lower'], row['added_upper'], 2)}"
    share = f"{number(row['recovery'])} {interval(row['recovery_lower'], row['recovery_upper'], 2)}"
    if row["coupling"] == 0:  # the oracle's headroom is that of history alone
        share = ""
    return f"  {row['lab']:<10}{int(row['n_labs']):>6}{cells}  {added:<22}{share}".rstrip()
