"""What makes a trained method's estimates, kept beside its checkpoint."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from pipeline.cohort.splits import Splits
from pipeline.foundation.atomic import write_json

if TYPE_CHECKING:
    from pipeline.cohort.aligned import AlignedCohort
    from pipeline.cohort.base import WindowStore

MADE_OF = "made_of.json"
"""Beside each checkpoint: the shares of its estimates' variance, by protocol and lab (``training.shares``)."""
MOST_PATIENTS = 8
"""Test patients on whose draws experiments that train many methods take them: a model is run once for each part."""


def keep_made_of(folder: Path, shares: pd.DataFrame) -> None:
    """Write shares beside the checkpoint that they are of."""
    write_json(folder / MADE_OF, shares.astype(object).where(shares.notna(), None).to_dict("records"))


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

        keep_made_of(
            folder, made_of(folder, aligned, store, splits, split=split, most_patients=MOST_PATIENTS)
        )
    return pd.DataFrame(json.loads(kept.read_text(encoding="utf-8")))
