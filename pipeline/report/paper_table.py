"""Table 1 of the paper with ours beside it.

R2 and skill stand first: the paper's MIMIC-III errors of LOCF and of its own methods are not in clinical
units (the spread that they imply for potassium is 0.19, against 0.67 mmol/L in the database), so only
these two can be compared with it. The institutional column is the believable target. Source of the
paper's figures: arXiv 2509.16345, Table 1.
"""

import math
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd

from pipeline.evaluation.judge import ALL_SEEDS
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.schema import LAB_NAMES

NAMES_IN_PAPER = {"LSTM": "lstm", "LOCF": "locf", "MT": "mt", "ST+PCS": "st_pcs", "MT+PCS": "mt_pcs"}
TABLE1_METHODS = (
    "lstm", "locf", "live_locf", "shrunk_locf", "mt", "st_pcs", "mt_pcs_twin", "mt_pcs", "lines", "mt_assim_twin",
    "mt_assim_lines", "mt_assim",
)  # fmt: skip
"""Rows per lab: the paper's five, three that tell what its figures leave open, and ours, where they were scored."""

OURS = ("r2", "skill_vs_locf", "mae", "me", "rmse")
PAPER_METRICS = ("r2", "skill", "mae", "me", "rmse")


def paper_table1() -> pd.DataFrame:
    """Return the paper's figures, one row per lab, method (our name) and source (institutional or mimic3).

    ``r2``, ``mae``, ``me`` and ``rmse`` are as printed. ``skill`` is 1 - mae / mae of LOCF of the same
    source; NaN for the LSTM on MIMIC-III, whose errors are in clinical units while LOCF's are not.
    """
    with (resources.files("pipeline.report") / "data" / "paper_table1.csv").open() as file:
        table = pd.read_csv(file, comment="#")
    table["method"] = [NAMES_IN_PAPER[name] for name in table["method"]]
    locf = {
        (row["lab"], row["source"]): row["mae"]
        for row in table.to_dict(orient="records")
        if row["method"] == "locf"
    }
    table["skill"] = [
        float("nan")
        if (row["source"], row["method"]) == ("mimic3", "lstm")
        else 1 - row["mae"] / locf[row["lab"], row["source"]]
        for row in table.to_dict(orient="records")
    ]
    return table


def table1(evaluation: pd.DataFrame, *, protocol: str = "start", scoring: str = "measured") -> pd.DataFrame:
    """Set our pooled figures beside the paper's, one row per lab and method of ``TABLE1_METHODS``.

    Parameters
    ----------
    evaluation
        Table with ``schema.EVALUATION_COLUMNS``. Several seeds are averaged: ``*_seed_sd`` is their
        standard deviation, and the interval is the envelope of theirs.
    protocol, scoring
        Which of the evaluation's rows.

    Returns
    -------
    ``lab, method, n_labs, n_patients, n_seeds``; ``r2, skill_vs_locf, mae, me, rmse`` each with
    ``_lower``, ``_upper`` and ``_seed_sd``; ``paper_institutional_*`` and ``paper_mimic3_*`` for r2,
    skill, mae, me, rmse. NaN where a method was not scored, or is not in the paper.

    Raises
    ------
    ConfigError
        When the evaluation has no row of that protocol and scoring.
    """
    ours = evaluation.loc[
        (evaluation["protocol"] == protocol)
        & (evaluation["scoring"] == scoring)
        & (evaluation["aggregation"] == "pooled")
        & (evaluation["seed"] != ALL_SEEDS)
    ]
    if ours.empty:
        raise ConfigError(
            f"The evaluation has no row of protocol {protocol!r} and scoring {scoring!r}. Table 1 shows one "
            "of them: choose one that was scored."
        )
    known = {*ours["method"], *NAMES_IN_PAPER.values()}
    paper = {
        (row["lab"], row["method"], row["source"]): row for row in paper_table1().to_dict(orient="records")
    }
    rows = [
        {
            "lab": lab,
            "method": method,
            **_over_seeds(ours.loc[(ours["lab"] == lab) & (ours["method"] == method)]),
            **_of_paper(paper.get((lab, method, "institutional")), "paper_institutional_"),
            **_of_paper(paper.get((lab, method, "mimic3")), "paper_mimic3_"),
        }
        for lab in LAB_NAMES
        for method in TABLE1_METHODS
        if method in known
    ]
    return pd.DataFrame(rows)


def _over_seeds(rows: pd.DataFrame) -> dict[str, float]:
    cells = {"n_seeds": float(len(rows)), **{name: most(rows, name) for name in ("n_labs", "n_patients")}}
    for name in OURS:
        values = rows[name].to_numpy(dtype=np.float64)
        cells[name] = float(values.mean()) if values.size else math.nan
        lower = rows[f"{name}_lower"].to_numpy(dtype=np.float64)
        cells[f"{name}_lower"] = float(lower.min()) if lower.size else math.nan
        cells[f"{name}_upper"] = most(rows, f"{name}_upper")
        cells[f"{name}_seed_sd"] = float(values.std(ddof=1)) if values.size > 1 else math.nan
    return cells


def most(rows: pd.DataFrame, name: str) -> float:
    """Return the largest value of a column; NaN without a row."""
    values = rows[name].to_numpy(dtype=np.float64)
    return float(values.max()) if values.size else math.nan


def _of_paper(row: dict[Any, Any] | None, prefix: str) -> dict[str, float]:
    return {f"{prefix}{name}": float("nan") if row is None else row[name] for name in PAPER_METRICS}
