"""What makes a trained method's estimates, kept beside its checkpoint, for experiments that train many."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from pipeline.cohort.splits import Splits
from pipeline.foundation.atomic import write_json
from pipeline.stages.evaluate import MADE_OF

if TYPE_CHECKING:
    from pipeline.cohort.aligned import AlignedCohort
    from pipeline.cohort.base import WindowStore

MOST_PATIENTS = 8
"""Test patients on whose draws the shares are taken: a model is run once for each of its parts."""


def kept_made_of(
    folder: Path, aligned: "AlignedCohort", store: "WindowStore", splits: Splits, *, split: str = "test"
) -> pd.DataFrame:
    """Return the shares of the variance of a checkpoint's estimates; worked out and kept where they are not yet.

    Returns
    -------
    Rows of ``training.shares.SHARE_COLUMNS``
    """
    kept = folder / MADE_OF
    if not kept.exists():
        from pipeline.prediction.explanations import made_of  # imports torch, which definitions must not

        found = made_of(folder, aligned, store, splits, split=split, most_patients=MOST_PATIENTS)
        write_json(kept, found.astype(object).where(found.notna(), None).to_dict("records"))
    return pd.DataFrame(json.loads(kept.read_text(encoding="utf-8")))
