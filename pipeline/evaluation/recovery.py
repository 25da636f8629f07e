"""How much of what could be known from the pulse wave is found: the arithmetic and the table.

On a synthetic cohort the truth is known, and with it the best estimate that anyone could make (the oracle,
from the latent physiology and the same history) and what history alone achieves (the twin: the same model on
another patient's waveform). Recovery = (R2 model - R2 twin) / (R2 oracle - R2 twin). Where labs know nothing
of the pulse (null A) the model must not beat its twin; where nothing can be known (null B) nobody may have
skill. Source: specification, section 9; the bootstrap is ours.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.cohort.scored_set import ScoredSet, scored_sets
from pipeline.evaluation.judge import EvaluationConfig
from pipeline.foundation import bootstrap
from pipeline.foundation.number_format import interval, number, signed
from pipeline.foundation.schema import LAB_NAMES

MODEL, TWIN, ORACLE = "mt_pcs", "mt_pcs_twin", "oracle"
LEARNED = ("lstm", TWIN, MODEL)
SHOWN = ("locf", "shrunk_locf", *LEARNED, ORACLE)
LEAST_HEADROOM = 0.02
"""R2 that the oracle must have over the twin: a share of less than that is noise over noise."""
TARGET_RECOVERY, TARGET_LABS = 0.5, 3


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One training of every method.

    Attributes
    ----------
    coupling : 0..1, how far labs follow what the pulse wave shows
    null : None, "a" (coupling 0) or "b" (draws independent in time, no patient offset)
    train_share : share of the training patients that are used; test patients are always the same
    cohort_share : size of the cohort, as a share of the experiment's
    """

    name: str
    coupling: float
    null: str | None = None
    train_share: float = 1.0
    cohort_share: float = 1.0


CONDITIONS = (
    Condition(name="coupling 1", coupling=1.0),
    Condition(name="coupling 0 (null A)", coupling=0.0, null="a"),
    Condition(name="coupling 0.5", coupling=0.5),
    Condition(name="coupling 1, half", coupling=1.0, train_share=0.5),
    Condition(name="coupling 1, quarter", coupling=1.0, train_share=0.25),
    Condition(name="null B", coupling=0.0, null="b", cohort_share=0.5),
)
"""The most telling first, so that an interrupted run has shown something."""


def recovery_rows(predictions: pd.DataFrame, config: EvaluationConfig) -> list[dict[str, Any]]:
    """Return one row a protocol and lab of the test patients.

    Parameters
    ----------
    predictions : ``schema.PREDICTION_COLUMNS``, of the twin, MT+PCS, the oracle and any other method

    Returns
    -------
    Rows with ``protocol, lab, n_labs, n_patients``; ``r2_<method>`` of every method, ``added`` (R2 of MT+PCS
    minus R2 of its twin) and ``recovery``, each with ``_lower`` and ``_upper``: percentile intervals over
    the same bootstrap replicates of the patients. ``recovery`` is NaN where the oracle is less than
    `LEAST_HEADROOM` above the twin.
    """
    return [_row(block, config) for block in scored_sets(predictions, config.split)]


def _row(block: ScoredSet, config: EvaluationConfig) -> dict[str, Any]:
    index, n_patients = bootstrap.index_patients(block.patient)
    weights = bootstrap.replicate_weights(n_patients, config.bootstrap, config.seed)
    r2 = {
        method: bootstrap.pooled_metrics(
            bootstrap.sum_by_patient(estimate, block.truth, index, n_patients), weights
        )["r2"]
        for method, estimate in block.estimates.items()
    }
    numbers = {f"r2_{method}": values for method, values in r2.items()}
    numbers["added"] = r2[MODEL] - r2[TWIN]
    numbers["recovery"] = recovery(r2[MODEL], r2[TWIN], r2[ORACLE])
    row: dict[str, Any] = {"protocol": block.protocol, "lab": block.lab,
                           "n_labs": len(block.draws), "n_patients": n_patients}  # fmt: skip
    for name, values in numbers.items():
        known = n_patients > 1
        lower, upper = bootstrap.percentile_interval(values, config.level) if known else (math.nan, math.nan)
        row |= {name: float(values[0]), f"{name}_lower": lower, f"{name}_upper": upper}
    return row


def recovery(model: np.ndarray, twin: np.ndarray, oracle: np.ndarray) -> np.ndarray:
    """Return (R2 model - R2 twin) / (R2 oracle - R2 twin); NaN where the oracle has no headroom."""
    headroom = oracle - twin
    enough = headroom >= LEAST_HEADROOM
    return np.where(enough, (model - twin) / np.where(enough, headroom, 1.0), np.nan)


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
