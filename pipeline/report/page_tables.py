"""The tables of figures on the pages of Dagster's assets: plain rows by title, and the figures it follows over runs."""

import pandas as pd

from pipeline.foundation.number_format import UNITS, short_label
from pipeline.foundation.schema import LAB_NAMES
from pipeline.report.claims import CLAIMED

PageTables = dict[str, list[dict]]
"""Rows by title; one without rows is not shown."""


def metrics_by_lab(evaluation: pd.DataFrame) -> PageTables:
    """Return a table for each protocol and lab, one row a method: measured draws, all pooled, first seed.

    Parameters
    ----------
    evaluation : ``schema.EVALUATION_COLUMNS``
    """
    rows = _looked_at_first(evaluation)
    return {
        f"{lab} ({UNITS[lab]}), {protocol}": [
            {
                "method": short_label(row["method"]),
                "draws": int(row["n_labs"]),
                "R2": round(row["r2"], 3),
                "R2 95 %": f"{row['r2_lower']:.2f} to {row['r2_upper']:.2f}",
                "MAE": round(row["mae"], 3),
                "skill": round(row["skill_vs_locf"], 3),
            }
            for row in rows.loc[(rows["protocol"] == protocol) & (rows["lab"] == lab)].to_dict(
                orient="records"
            )
        ]
        for protocol in evaluation["protocol"].unique()
        for lab in LAB_NAMES
    }


def followed_over_runs(evaluation: pd.DataFrame) -> dict[str, float]:
    """Return the R2 of the methods about which anything is claimed, for Dagster to plot over all runs.

    Parameters
    ----------
    evaluation : ``schema.EVALUATION_COLUMNS``
    """
    rows = _looked_at_first(evaluation)
    return {
        f"R2 {row['lab']}, {row['protocol']} ({short_label(row['method'])})": round(row["r2"], 4)
        for row in rows.loc[rows["method"].isin(CLAIMED) & rows["r2"].notna()].to_dict(orient="records")
    }


def _looked_at_first(evaluation: pd.DataFrame) -> pd.DataFrame:
    return evaluation.loc[
        (evaluation["scoring"] == "measured")
        & (evaluation["aggregation"] == "pooled")
        & (evaluation["seed"] == evaluation["seed"].min())
    ]


def coverage_rows(coverage: pd.DataFrame) -> list[dict]:
    """Return how many draws the intervals hold and how wide they are, one row a method, protocol and lab, first seed.

    Parameters
    ----------
    coverage : what ``evaluation.coverage.coverage`` returns
    """
    return [
        {
            "method": short_label(row["method"]),
            "protocol": row["protocol"],
            "lab": f"{row['lab']} ({UNITS[row['lab']]})",
            "draws": int(row["n_labs"]),
            "coverage": round(row["coverage"], 3),
            "mean width": round(row["mean_width"], 3),
            "without interval": row["missing_reason"],
        }
        for row in coverage.loc[coverage["seed"] == coverage["seed"].min()].to_dict(orient="records")
    ]


def table1_by_method(table: pd.DataFrame) -> PageTables:
    """Return Table 1 as the paper has it, one row a method and one column a lab: ours first, then the paper's figures.

    Parameters
    ----------
    table : what ``paper_table.table1`` returns, with columns ``protocol`` and ``scoring``
    """
    tables = {}
    for protocol, scoring in table[["protocol", "scoring"]].drop_duplicates().itertuples(index=False):
        rows = table.loc[(table["protocol"] == protocol) & (table["scoring"] == scoring)]
        for column, title in (("r2", "R2"), ("skill_vs_locf", "skill over LOCF")):
            tables[f"{title}, {protocol}, {scoring} draws"] = _by_lab(rows, column)
    paper = table.drop_duplicates(["method", "lab"])
    return tables | {
        "R2 in the paper, institutional": _by_lab(paper, "paper_institutional_r2"),
        "R2 in the paper, MIMIC-III": _by_lab(paper, "paper_mimic3_r2"),
    }


def _by_lab(rows: pd.DataFrame, column: str) -> list[dict]:
    figures = rows.loc[rows[column].notna()]
    return [
        {"method": short_label(str(method))}
        | {
            lab: round(float(of_lab[column].iloc[0]), 2)
            for lab, of_lab in of_method.groupby("lab", sort=False)
        }
        for method, of_method in figures.groupby("method", sort=False)
    ]
