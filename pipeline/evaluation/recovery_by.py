"""Where recovery comes from: by how many results are known, how long is recorded, how old the last result is."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from pipeline.evaluation.judge import EvaluationConfig
from pipeline.evaluation.recovery import recovery_rows

KNOWN_DRAWS, HOURS_RECORDED = "known_draws", "hours_recorded"
"""Columns that the recovery experiment adds to its predictions: results of that lab that are known, and hours from
the sequence's first window to the draw."""
EDGES: Mapping[str, Sequence[float]] = {
    KNOWN_DRAWS: (0, 2, 4, 8, 16, np.inf),
    HOURS_RECORDED: (0, 6, 12, 24, 48, 96, np.inf),
    "hours_since_last_lab": (0, 3, 6, 12, 24, np.inf),
}
LEAST_PATIENTS = 10
"""Cells of fewer patients are left out."""


def recovery_by(predictions: pd.DataFrame, config: EvaluationConfig) -> pd.DataFrame:
    """Return the rows of ``recovery_rows`` for each part of the draws; protocol ``anchored``.

    Parameters
    ----------
    predictions : as of ``recovery_rows``, with the columns of `EDGES`

    Returns
    -------
    ``quantity, lower_edge, upper_edge`` (lower one included) before the columns of ``recovery_rows``; R2 is about the
    mean truth of the part's draws.
    """
    anchored = predictions.loc[predictions["protocol"] == "anchored"]
    rows: list[dict[str, Any]] = []
    for quantity, edges in EDGES.items():
        values = anchored[quantity].to_numpy(dtype=float)
        for low, high in pairwise(edges):
            part = anchored.loc[(values >= low) & (values < high) & (anchored["split"] == config.split)]
            part = part.groupby("lab").filter(lambda own: own["patient"].nunique() >= LEAST_PATIENTS)
            if len(part):
                where = {"quantity": quantity, "lower_edge": float(low), "upper_edge": float(high)}
                rows += [where | row for row in recovery_rows(part, config)]
    return pd.DataFrame(rows)
