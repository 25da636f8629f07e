"""Explain a trained method on the patients of a split: what makes its estimates, and how long its h0 lasts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.base import WindowStore
from pipeline.cohort.splits import Splits
from pipeline.prediction.scoring import examples_of, forecasters_of, lacks_a_twin, patients_of
from pipeline.training.embedding_cache import EmbeddingCache
from pipeline.training.forecaster import AnyForecaster
from pipeline.training.initial_state import SURVIVAL_COLUMNS, survival
from pipeline.training.shares import MOST_PATIENTS, SHARE_COLUMNS, shares


@dataclass(frozen=True, kw_only=True)
class Explanations:
    """What is told of a trained method beside its estimates.

    Attributes
    ----------
    made_of : rows of ``training.shares.SHARE_COLUMNS``, one for each protocol and lab
    initial_state : rows of ``training.initial_state.SURVIVAL_COLUMNS``; none of a method without an h0. Where every
        lab has a model of its own (st_pcs), what a model's layers share is named after its lab
    """

    made_of: pd.DataFrame
    initial_state: pd.DataFrame


def explain(
    checkpoint_dir: Path | str,
    aligned: AlignedCohort,
    store: WindowStore,
    splits: Splits,
    *,
    split: str = "test",
    device: str = "auto",
) -> Explanations:
    """Explain a trained method; tables without rows where its split lacks a twin.

    Parameters and errors are those of ``scoring.score``.
    """
    _, forecasters = forecasters_of(checkpoint_dir, store, splits, device)
    patients, cache = patients_of(aligned, splits, split), EmbeddingCache(store)
    if lacks_a_twin(forecasters[0], patients, split):
        return Explanations(
            made_of=pd.DataFrame(columns=list(SHARE_COLUMNS)),
            initial_state=pd.DataFrame(columns=list(SURVIVAL_COLUMNS)),
        )
    examples = examples_of(aligned, patients)
    made_of = _made_of(forecasters, examples, aligned, store, patients, cache)
    lasting = [survival(forecaster, aligned, store, patients, cache) for forecaster in forecasters]
    if len(forecasters) > 1:
        lasting = [_after_its_lab(*both) for both in zip(lasting, forecasters, strict=True)]
    return Explanations(
        made_of=made_of,
        initial_state=pd.concat(lasting, ignore_index=True),
    )


def made_of(
    checkpoint_dir: Path | str,
    aligned: AlignedCohort,
    store: WindowStore,
    splits: Splits,
    *,
    split: str = "test",
    device: str = "auto",
    most_patients: int = MOST_PATIENTS,
) -> pd.DataFrame:
    """Return ``Explanations.made_of`` alone, from the draws of some patients; other parameters as of `explain`."""
    _, forecasters = forecasters_of(checkpoint_dir, store, splits, device)
    patients = patients_of(aligned, splits, split)
    if lacks_a_twin(forecasters[0], patients, split):
        return pd.DataFrame(columns=list(SHARE_COLUMNS))
    examples = examples_of(aligned, patients)
    return _made_of(forecasters, examples, aligned, store, patients, EmbeddingCache(store), most_patients)


def _made_of(
    forecasters: Sequence[AnyForecaster],
    examples: pd.DataFrame,
    aligned: AlignedCohort,
    store: WindowStore,
    patients: Sequence[str],
    cache: EmbeddingCache,
    most_patients: int = MOST_PATIENTS,
) -> pd.DataFrame:
    each = [shares(one, examples, aligned, store, patients, cache, most_patients) for one in forecasters]
    return pd.concat(each, ignore_index=True)


def _after_its_lab(table: pd.DataFrame, forecaster: AnyForecaster) -> pd.DataFrame:
    return table.assign(layer=table["layer"].replace("shared", f"shared, {forecaster.labs[0]}"))
